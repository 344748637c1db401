//! The windows over HTTP, through a real socket.
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use finstream::http::{self, HttpState, Limits, Readiness};
use finstream::metrics::{SINK_STORED_TOTAL, STAGE_LATENCY_SECONDS};
use finstream::progress::{Progress, Stage};
use finstream::shutdown::{self, Trigger};
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(10);

/// The recorder is one a process, the tests are several.
fn recorder() -> PrometheusHandle {
    static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
    RECORDER.get_or_init(|| http::install_recorder().unwrap()).clone()
}

struct Server {
    address: SocketAddr,
    progress: Arc<Progress>,
    readiness: Readiness,
    trigger: Trigger,
    task: JoinHandle<std::io::Result<()>>,
}

impl Server {
    async fn start() -> Server {
        Self::start_with(Limits::default()).await
    }

    async fn start_with(limits: Limits) -> Server {
        let listener = http::bind("127.0.0.1:0".parse().unwrap(), true).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (progress, readiness) = (Arc::new(Progress::new()), Readiness::new());
        let (trigger, shutdown) = shutdown::channel();
        let state = HttpState::new(Arc::clone(&progress), recorder(), readiness.clone());
        let task = tokio::spawn(http::serve_with(listener, state, shutdown, limits));
        Server { address, progress, readiness, trigger, task }
    }

    async fn request(&self, method: &str, path: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let code = head.split(' ').nth(1).unwrap().parse().unwrap();
        (code, head.to_ascii_lowercase(), body.to_owned())
    }

    async fn get(&self, path: &str) -> (u16, String, String) {
        self.request("GET", path).await
    }

    async fn stop(self) {
        self.trigger.raise(shutdown::Stage::Drain);
        tokio::time::timeout(PATIENCE, self.task).await.unwrap().unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_process_is_alive_before_it_is_ready() {
    let server = Server::start().await;
    assert_eq!(server.get("/healthz").await.0, 200);
    assert_eq!(server.get("/readyz").await.0, 503, "no role has reported yet");

    server.readiness.waiting("consumer", "a broker at 127.0.0.1:9092");
    let (code, _, body) = server.get("/readyz").await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((code, &body["waiting_for"]["consumer"]), (503, &Value::from("a broker at 127.0.0.1:9092")));

    server.readiness.ready("consumer");
    assert_eq!(server.get("/readyz").await.0, 200);
    server.stop().await;
}

#[tokio::test]
async fn the_status_shows_what_the_roles_counted() {
    let server = Server::start().await;
    Progress::add(&server.progress.stored, 7);
    server.progress.record(Stage::EndToEnd, [2_000]);
    let (code, head, body) = server.get("/api/v1/status").await;
    assert_eq!(code, 200);
    assert!(head.contains("content-type: application/json"), "{head}");
    let status: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(status["counters"]["stored"], 7);
    assert_eq!(status["lag"]["messages"], Value::Null);
    let stages = status["stages"].as_array().unwrap();
    assert_eq!(stages.len(), Stage::ALL.len());
    let p50_us = stages.last().unwrap()["p50_us"].as_u64().unwrap();
    assert!((2_000..=2_002).contains(&p50_us), "{p50_us} us");
    server.stop().await;
}

#[tokio::test]
async fn metrics_are_histograms_with_the_documented_bounds_and_never_summaries() {
    let server = Server::start().await;
    metrics::histogram!(STAGE_LATENCY_SECONDS, "stage" => "scheduled_to_committed").record(0.000_020);
    metrics::counter!(SINK_STORED_TOTAL).increment(3);
    let (code, head, body) = server.get("/metrics").await;
    assert_eq!(code, 200);
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert!(body.contains("# TYPE finstream_stage_latency_seconds histogram"), "{body}");
    assert!(body.contains("# HELP finstream_sink_stored_messages_total "), "{body}");
    assert!(!body.contains("quantile="), "a summary: {body}");
    let stage = "finstream_stage_latency_seconds_bucket{stage=\"scheduled_to_committed\"";
    let buckets = body.lines().filter(|line| line.starts_with(stage)).count();
    assert_eq!(buckets, 39 + 1 + 1, "39 bounds, the service level and +Inf");
    assert!(body.contains("finstream_build_info{version="), "{body}");
    server.stop().await;
}

#[tokio::test]
async fn the_page_loads_nothing_from_elsewhere() {
    let server = Server::start().await;
    for (path, kind) in [("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript")] {
        let (code, head, body) = server.get(path).await;
        assert_eq!(code, 200, "{path}");
        assert!(head.contains(&format!("content-type: {kind}")), "{path}: {head}");
        assert!(head.contains("content-security-policy: default-src 'none'"), "{path}: {head}");
        assert!(!body.contains("//cdn") && !body.contains("https://"), "{path}");
        // What a script imports is there, too.
        for (at, _) in body.match_indices("\"./page/") {
            let module = body[at + 2..].split('"').next().unwrap();
            assert_eq!(server.get(module).await.0, 200, "{path} imports {module}");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn head_unknown_paths_and_wrong_methods_are_answered() {
    let server = Server::start().await;
    let (code, _, body) = server.request("HEAD", "/healthz").await;
    assert_eq!((code, body.as_str()), (200, ""));
    let (code, _, body) = server.get("/no/such?path").await;
    assert_eq!(code, 404);
    assert!(body.contains("/no/such") && body.contains("/api/v1/status"), "{body}");
    assert_eq!(server.request("POST", "/api/v1/status").await.0, 405);
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_never_finishes_does_not_hold_up_the_stop() {
    let server = Server::start().await;
    let mut stuck = TcpStream::connect(server.address).await.unwrap();
    stuck.write_all(b"GET / HTTP/1.1\r\nhost:").await.unwrap();
    // A whole answer on a second connection shows that the first one was accepted.
    assert_eq!(server.get("/healthz").await.0, 200);
    server.stop().await;
}

/// Connections that take every place, each having sent that.
async fn take_all_places(server: &Server, limits: Limits, sent: &str) -> Vec<TcpStream> {
    let mut taken = Vec::new();
    // Some more wait in the kernel's queue.
    for _ in 0..limits.connections_max + 5 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        taken.push(stream);
    }
    taken
}

#[tokio::test]
async fn connections_that_ask_nothing_or_never_finish_to_ask_give_their_places_back() {
    let limits = Limits { connections_max: 4, head_timeout: Duration::from_millis(100), ..Limits::default() };
    let server = Server::start_with(limits).await;
    // Nothing; half a head; and a whole request, after which the connection stays open.
    for sent in ["", "GET / HTTP/1.1\r\nhost:", "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"] {
        let taken = take_all_places(&server, limits, sent).await;
        assert_eq!(server.get("/healthz").await.0, 200, "behind {sent:?}");
        drop(taken);
    }
    server.stop().await;
}

#[tokio::test]
async fn clients_that_take_no_answers_give_their_places_back() {
    let limits = Limits { connections_max: 2, write_timeout: Duration::from_millis(100), ..Limits::default() };
    let server = Server::start_with(limits).await;
    // More answers than all buffers between the two ends hold.
    let asked = "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(50_000);
    let mut deaf = Vec::new();
    for _ in 0..limits.connections_max {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let asked = asked.clone();
        deaf.push(tokio::spawn(async move {
            // Ends with an error when the server hangs up.
            let _ = stream.write_all(asked.as_bytes()).await;
            stream
        }));
    }
    assert_eq!(server.get("/healthz").await.0, 200);
    for stream in deaf {
        drop(tokio::time::timeout(PATIENCE, stream).await.unwrap().unwrap());
    }
    server.stop().await;
}

#[tokio::test]
async fn a_taken_default_port_moves_on_and_a_taken_explicit_one_is_an_error() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();

    let error = http::bind(address, true).await.unwrap_err().to_string();
    assert!(error.contains(&address.to_string()) && error.contains("--http"), "{error}");

    let moved = http::bind(address, false).await.unwrap().local_addr().unwrap();
    assert_eq!(moved.ip(), address.ip());
    assert!(moved.port() > address.port(), "{moved}");
}

#[tokio::test]
async fn an_address_of_another_machine_is_an_error_even_as_a_default() {
    let error = http::bind("192.0.2.1:8080".parse().unwrap(), false).await.unwrap_err().to_string();
    assert!(error.contains("192.0.2.1:8080"), "{error}");
}

/// Reads the stream until it has seen `count` events; their bytes.
async fn follow(address: SocketAddr, count: usize) -> Vec<String> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // HTTP/1.0 has no chunks between the events.
    stream.write_all(b"GET /api/v1/events HTTP/1.0\r\nhost: localhost\r\n\r\n").await.unwrap();
    let (mut text, mut piece) = (Vec::new(), [0; 16 * 1024]);
    loop {
        let whole = String::from_utf8_lossy(&text);
        let mut parts: Vec<&str> = whole.split("event: snapshot\ndata: ").skip(1).collect();
        // What follows the last line break is not whole yet.
        if !whole.ends_with("\n\n") {
            parts.pop();
        }
        if parts.len() >= count {
            return parts.into_iter().take(count).map(str::to_owned).collect();
        }
        let read = stream.read(&mut piece).await.unwrap();
        assert!(read > 0, "the stream ended: {whole}");
        text.extend_from_slice(&piece[..read]);
    }
}

#[tokio::test]
async fn a_thousand_viewers_get_the_bytes_that_were_made_once_a_second() {
    const VIEWERS: usize = 1_000;
    let limits = Limits { connections_max: VIEWERS + 24, viewers_max: VIEWERS, ..Limits::default() };
    let server = Server::start_with(limits).await;
    let viewers: Vec<_> = (0..VIEWERS).map(|_| tokio::spawn(follow(server.address, 2))).collect();
    let mut made = std::collections::BTreeSet::new();
    let began = std::time::Instant::now();
    for viewer in viewers {
        made.extend(tokio::time::timeout(PATIENCE * 3, viewer).await.unwrap().unwrap());
    }
    // Each holds the time at which it was made, to the microsecond.
    let seconds = began.elapsed().as_secs() as usize + 2;
    assert!((2..=seconds).contains(&made.len()), "{} documents in {seconds} s", made.len());
    server.stop().await;
}

#[tokio::test]
async fn one_viewer_too_many_is_told_so_and_the_others_and_prometheus_are_served() {
    let limits = Limits { viewers_max: 1, ..Limits::default() };
    let server = Server::start_with(limits).await;
    let mut viewer = TcpStream::connect(server.address).await.unwrap();
    viewer.write_all(b"GET /api/v1/events HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut head = [0; 512];
    assert!(viewer.read(&mut head).await.unwrap() > 0, "the first one is in");
    let (code, head, body) = server.get("/api/v1/events").await;
    assert_eq!(code, 503);
    assert!(head.contains("application/problem+json") && body.contains("viewers"), "{body}");
    assert_eq!(server.get("/metrics").await.0, 200);
    drop(viewer);
    // That it is gone shows when the next event cannot be written.
    let came_in = async {
        loop {
            let mut next = TcpStream::connect(server.address).await.unwrap();
            next.write_all(b"GET /api/v1/events HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
            let mut head = [0; 512];
            let read = next.read(&mut head).await.unwrap();
            if head[..read].starts_with(b"HTTP/1.1 200") {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, came_in).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn a_name_that_was_pointed_at_this_machine_is_no_name_of_its_server() {
    let server = Server::start().await;
    for (host, expected) in [
        ("localhost:8080", 200),
        ("127.0.0.1", 200),
        ("[::1]:8080", 200),
        ("evil.example:8080", 421),
        ("localhost.evil.example", 421),
    ] {
        let request = format!("GET /api/v1/status HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let mut stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut answer).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected} ")), "{host}: {answer}");
    }
    server.stop().await;
}
