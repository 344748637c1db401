//! Strangers, hoarders and dawdlers: each is hung up on, in few words, and others are served meanwhile.

use std::io::{Read, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::{PATIENCE, Raw, batch, create_topic, start, start_with};
use finstream::broker::Limits;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{ApiVersionsRequest, ProduceRequest, TopicName};
use kafka_protocol::protocol::StrBytes;

/// What the broker logs, on this thread.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> tracing_subscriber::fmt::MakeWriter<'a> for Lines {
    type Writer = Lines;
    fn make_writer(&'a self) -> Lines {
        self.clone()
    }
}

impl Lines {
    fn hear(&self) -> tracing::subscriber::DefaultGuard {
        let heard = tracing_subscriber::fmt().with_writer(self.clone()).with_ansi(false).finish();
        tracing::subscriber::set_default(heard)
    }

    fn said(&self, what: &str) -> usize {
        String::from_utf8_lossy(&self.0.lock().unwrap()).lines().filter(|line| line.contains(what)).count()
    }
}

/// Waits until the broker hangs up; panics when it says anything before.
async fn hung_up(socket: &mut tokio::net::TcpStream) {
    let mut answer = [0; 1];
    let read = tokio::io::AsyncReadExt::read(socket, &mut answer);
    match tokio::time::timeout(PATIENCE, read).await.expect("the broker hangs up") {
        // Reset where it did not read all that was sent.
        Ok(0) | Err(_) => {}
        Ok(_) => panic!("the broker answered"),
    }
}

#[tokio::test]
async fn strangers_are_hung_up_on_and_named() {
    let lines = Lines::default();
    let _heard = lines.hear();
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { request_timeout: Duration::from_millis(300), ..Limits::default() };
    let broker = start_with(dir.path(), limits).await;
    let sent: [(&[u8], &str); 7] = [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "this is an HTTP request"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "this is an HTTP request"),
        (&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc], "this is a TLS handshake"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "is this a Kafka client?"),
        (b"", "no request came within 300ms"),
        (&[0, 0, 0, 100, 0, 18, 0], "7 of 104 bytes of a request came"),
        // A megabyte of an API that there is not.
        (&[0, 16, 0, 0, 99, 9, 0, 1], "the limit is 65536 (is this a Kafka client?)"),
    ];
    for (bytes, line) in sent {
        let mut socket = tokio::net::TcpStream::connect(broker.address()).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut socket, bytes).await.unwrap();
        hung_up(&mut socket).await;
        assert_eq!(lines.said(line), 1, "{line}");
        lines.0.lock().unwrap().clear();
    }
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_was_told_the_versions_may_begin_with_a_large_request() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    create_topic(&broker, "t", 1).await;
    let data = PartitionProduceData::default().with_records(Some(batch(&[7; 900_000])));
    let name = TopicName(StrBytes::from_static_str("t"));
    let topic = TopicProduceData::default().with_name(name).with_partition_data(vec![data]);
    let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(20_000).with_topic_data(vec![topic]);
    let response = Raw::connect(&broker).ask(&request, 7);
    assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn a_flood_of_garbage_is_a_few_lines_in_the_log() {
    let lines = Lines::default();
    let _heard = lines.hear();
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    for _ in 0..200 {
        let mut socket = tokio::net::TcpStream::connect(broker.address()).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut socket, &[0xff; 64]).await.unwrap();
        hung_up(&mut socket).await;
    }
    assert_eq!(lines.said("connection closed"), 20);
    assert_eq!(lines.said("go untold for a while"), 1);
    broker.stop().await.unwrap();
}

/// Many Linux hosts in one: the whole of 127/8 is this machine.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn one_address_that_takes_all_it_can_locks_out_no_other() {
    let lines = Lines::default();
    let _heard = lines.hear();
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { connections_max: 8, connections_per_address_max: 5, ..Limits::default() };
    let broker = start_with(dir.path(), limits).await;
    let connect = async |host: [u8; 4]| {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((host, 0).into()).unwrap();
        socket.connect(broker.address()).await.unwrap()
    };
    let mut greedy = Vec::new();
    for _ in 0..20 {
        greedy.push(connect([127, 0, 0, 2]).await);
    }
    for socket in &mut greedy[5..] {
        hung_up(socket).await;
    }
    assert_eq!(lines.said("5 connections of this address are open"), 1);
    let mut raw = Raw::connect(&broker);
    // This thread runs the broker, too.
    let raw = tokio::task::spawn_blocking(move || {
        assert_eq!(raw.ask(&ApiVersionsRequest::default(), 3).error_code, 0);
        raw
    });
    let _raw = raw.await.unwrap();
    // Whoever hangs up makes room.
    drop(greedy.drain(..5));
    let started = Instant::now();
    loop {
        let mut socket = connect([127, 0, 0, 2]).await;
        let mut answer = [0; 1];
        let refused = tokio::io::AsyncReadExt::read(&mut socket, &mut answer);
        // An open one waits for our first request.
        if tokio::time::timeout(Duration::from_millis(200), refused).await.is_err() {
            break;
        }
        assert!(started.elapsed() < PATIENCE, "the places never came back");
    }
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_any_size_that_drip_in_are_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let timeout = Duration::from_millis(400);
    let broker = start_with(dir.path(), Limits { request_timeout: timeout, ..Limits::default() }).await;
    let drips = [1usize, 60, 60_000, 1_000_000, 50_000_000].map(|bytes| {
        let mut raw = Raw::connect(&broker);
        std::thread::spawn(move || {
            raw.ask(&ApiVersionsRequest::default(), 3);
            let began = Instant::now();
            let mut wire = (bytes as u32 + 8).to_be_bytes().to_vec();
            wire.extend([0, 0, 0, 9, 0, 0, 0, 1]);
            raw.socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            // A byte, or a handful of a large one, at a time; until the broker hangs up.
            wire.resize(wire.len() + bytes, 0);
            for piece in wire.chunks((bytes / 1000).max(1)) {
                if raw.socket.write_all(piece).is_err() || matches!(raw.socket.read(&mut [0]), Ok(0)) {
                    break;
                }
                assert!(began.elapsed() < PATIENCE, "{bytes} bytes may drip for ever");
            }
            (bytes, began.elapsed())
        })
    });
    for drip in drips {
        let (bytes, took) = drip.join().unwrap();
        // The smallest one is whole in time, and refused for what it says.
        assert!(took < timeout * 12, "{bytes} bytes dripped for {took:?}");
    }
    assert_eq!(Raw::connect(&broker).ask(&ApiVersionsRequest::default(), 3).error_code, 0);
    broker.stop().await.unwrap();
}
