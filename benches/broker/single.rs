//! What is measured of our broker alone: starting on a large log after `kill -9`, doing nothing, holding connections.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::brokers::{Broker, Subject};
use crate::perf_client::{PARTITIONS, PerfClient};
use crate::support::resident_mib;

/// Bytes of log at the kill.
const LOG_BYTES: u64 = 10 * 1000 * 1000 * 1000;
const MESSAGE_BYTES: u32 = 1000;
const CONNECTIONS: usize = 1000;
/// Longest wait for an answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(60);

/// An ApiVersions request: key 18, version 0, correlation id 1, no client id.
const API_VERSIONS: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff];
/// A Metadata request for all topics: key 3, version 0, correlation id 2, no client id, no names.
const METADATA: [u8; 18] = [0, 0, 0, 14, 0, 3, 0, 0, 0, 0, 0, 2, 0xff, 0xff, 0, 0, 0, 0];

type Rows = Vec<(String, String)>;

/// Fills a log, kills the broker in the middle of the load, and times the next start until Metadata is answered.
pub fn start_up(client: &PerfClient, dir: &Path, quick: bool) -> Rows {
    let wanted = if quick { LOG_BYTES / 10 } else { LOG_BYTES };
    [Subject::Os, Subject::Fsync]
        .into_iter()
        .map(|subject| {
            eprintln!("start-up, {}: filling {} GB …", subject.title(), wanted as f64 / 1e9);
            let dir = dir.join("start-up");
            let broker = Broker::start(subject, &dir);
            broker.create_topic("large", PARTITIONS);
            // More than wanted: the kill ends the load.
            let mut load = client.producing(&broker, "large", MESSAGE_BYTES, 2 * wanted / u64::from(MESSAGE_BYTES));
            let log = std::fs::File::create(dir.join("client.txt")).unwrap();
            let mut load = load.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
            while disk_bytes(broker.folder()) < wanted {
                assert!(load.try_wait().unwrap().is_none(), "the client ended before the log was full");
                std::thread::sleep(Duration::from_millis(50));
            }
            broker.kill();
            load.kill().unwrap();
            load.wait().unwrap();
            let bytes = disk_bytes(&dir);
            let began = Instant::now();
            let broker = Broker::start(subject, &dir);
            let listening = began.elapsed();
            let mut stream = TcpStream::connect(&broker.address).unwrap();
            ask(&mut stream, &METADATA);
            let answered = began.elapsed();
            drop(broker);
            std::fs::remove_dir_all(&dir).unwrap();
            let gigabytes = bytes as f64 / 1e9;
            let text = format!(
                "{:.2} s to the first Metadata answer ({:.2} s to the ready file), {gigabytes:.1} GB on disk",
                answered.as_secs_f64(),
                listening.as_secs_f64()
            );
            (format!("start-up after kill -9 in the middle of a load, {}", subject.title()), text)
        })
        .collect()
}

/// CPU and memory with nothing to do, then with a thousand connections that asked once.
pub fn idle(dir: &Path, quick: bool) -> Rows {
    // The soft limit is often 1024, and this process holds the other ends; the broker inherits it.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    let watched = Duration::from_secs(if quick { 5 } else { 20 });
    let dir = dir.join("idle");
    let broker = Broker::start(Subject::Fsync, &dir);
    broker.settle();
    let share = |broker: &Broker| {
        let before = broker.cpu_seconds();
        std::thread::sleep(watched);
        let seconds = broker.cpu_seconds().zip(before).map_or(f64::NAN, |(after, before)| after - before);
        format!("{:.2} % of a core", seconds / watched.as_secs_f64() * 100.0)
    };
    eprintln!("idle …");
    let alone = format!("{}, RSS {} MiB", share(&broker), resident_mib(broker.pid));
    let connections: Vec<TcpStream> = (0..CONNECTIONS)
        .map(|_| {
            let mut stream = TcpStream::connect(&broker.address).unwrap();
            ask(&mut stream, &API_VERSIONS);
            stream
        })
        .collect();
    let many = format!("{}, RSS {} MiB", share(&broker), resident_mib(broker.pid));
    drop(connections);
    drop(broker);
    std::fs::remove_dir_all(&dir).unwrap();
    vec![("idle".into(), alone), (format!("{CONNECTIONS} idle connections"), many)]
}

/// Sends a request and reads its answer.
fn ask(stream: &mut TcpStream, request: &[u8]) {
    stream.set_read_timeout(Some(ANSWER_PATIENCE)).unwrap();
    stream.write_all(request).unwrap();
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut body = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut body).unwrap();
}

/// Bytes in files below `path`; what vanishes meanwhile counts as nothing.
fn disk_bytes(path: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(path) else { return 0 };
    let bytes = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.flatten().map(bytes).sum()
}
