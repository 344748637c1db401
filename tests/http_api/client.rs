//! A client for one request: HTTP/1.0, so that the answer ends with the connection.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

/// An answer.
pub struct Answer {
    pub code: u16,
    /// Lower case.
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

pub fn connect(address: &str, method: &str, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    write!(stream, "{method} {path} HTTP/1.0\r\nhost: localhost\r\n\r\n").unwrap();
    stream
}

pub fn request(address: &str, method: &str, path: &str) -> Answer {
    let mut text = Vec::new();
    connect(address, method, path).read_to_end(&mut text).unwrap();
    let text = String::from_utf8_lossy(&text).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{method} {path}: {text}"));
    let code = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { code, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

pub fn get(address: &str, path: &str) -> Answer {
    request(address, "GET", path)
}

/// The data of the first events of a stream.
pub fn events(address: &str, path: &str, count: usize) -> Vec<Value> {
    let reader = BufReader::new(connect(address, "GET", path));
    let lines = reader.lines().map(|line| line.unwrap());
    let data = lines.filter_map(|line| line.strip_prefix("data: ").map(str::to_owned));
    data.take(count).map(|data| serde_json::from_str(&data).unwrap()).collect()
}
