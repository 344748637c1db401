//! A server on 127.0.0.1 that answers in Yahoo's format, as a test has written it down beforehand.

use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Longest wait for anything that a test waits for.
const PATIENCE: Duration = Duration::from_secs(20);
pub const QUOTES: &str = "/v7/finance/quote";
/// In place of a status: the connection ends without a word.
pub const CLOSED: u16 = 0;

/// Status and body. None: the connection stays open, and nothing ever comes.
type Answer = Option<(u16, String)>;

/// Answers by path, one after the other; the last one stays.
#[derive(Default)]
struct Script {
    answers: HashMap<String, VecDeque<Answer>>,
    requests: Vec<String>,
    held: Vec<TcpStream>,
    wants_crumb: bool,
}

pub struct Server {
    address: SocketAddr,
    script: Arc<Mutex<Script>>,
}

impl Server {
    pub fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, script) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Script::default())));
        let served = Arc::clone(&script);
        // It ends with the process; what it holds is a port.
        thread::spawn(move || {
            for stream in listener.incoming() {
                answer(stream.unwrap(), &served);
            }
        });
        Server { address, script }
    }

    /// Where nobody listens: a port that was free a moment ago might be anybody's now, this one is given to nobody.
    pub fn nowhere() -> String {
        "http://127.0.0.1:1".to_owned()
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// One more answer for `path`.
    pub fn then(&self, path: &str, status: u16, body: impl ToString) -> &Server {
        self.add(path, Some((status, body.to_string())))
    }

    pub fn then_quotes(&self, quotes: &[Value]) -> &Server {
        self.then(QUOTES, 200, json!({"quoteResponse": {"result": quotes, "error": null}}))
    }

    /// The next request for `path` gets no answer.
    pub fn then_nothing(&self, path: &str) -> &Server {
        self.add(path, None)
    }

    fn add(&self, path: &str, answer: Answer) -> &Server {
        self.script.lock().unwrap().answers.entry(path.to_owned()).or_default().push_back(answer);
        self
    }

    /// Quotes need cookie and crumb from now on.
    pub fn want_crumb(&self) -> &Server {
        self.script.lock().unwrap().wants_crumb = true;
        self
    }

    /// How many answers `path` has given.
    pub fn served(&self, path: &str) -> usize {
        self.script.lock().unwrap().requests.iter().filter(|request| request.as_str() == path).count()
    }

    /// Until `path` has given so many answers.
    pub fn wait_for(&self, path: &str, times: usize) {
        let begun = Instant::now();
        while self.served(path) < times {
            assert!(begun.elapsed() < PATIENCE, "{path} was asked for {} times, not {times}", self.served(path));
            thread::sleep(Duration::from_millis(1));
        }
    }
}

fn answer(mut stream: TcpStream, script: &Mutex<Script>) {
    let mut head = Vec::new();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        if line.trim().is_empty() {
            break;
        }
        head.push(line);
    }
    let target = head[0].split(' ').nth(1).unwrap().replace("%5E", "^");
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let mut script = script.lock().unwrap();
    script.requests.push(path.to_owned());
    let has_crumb = query.contains("crumb=cru.mb") && head.iter().any(|line| line.trim() == "cookie: A3=secret");
    let found = match path {
        "/consent" if !script.answers.contains_key(path) => Some((404, String::new())),
        "/v1/test/getcrumb" if !script.answers.contains_key(path) => Some((200, "cru.mb".to_owned())),
        QUOTES if script.wants_crumb && !has_crumb => Some((401, unauthorized())),
        _ => match script.answers.get_mut(path) {
            Some(answers) if answers.len() > 1 => answers.pop_front().unwrap(),
            Some(answers) => answers[0].clone(),
            None => Some((404, "{}".to_owned())),
        },
    };
    match found {
        None => script.held.push(stream),
        Some((CLOSED, _)) => {}
        Some((status, body)) => {
            let cookie = if path == "/consent" { "Set-Cookie: A3=secret; Domain=.yahoo.com; Secure\r\n" } else { "" };
            let length = body.len();
            // Whoever asked may be gone.
            let _ = write!(
                stream,
                "HTTP/1.1 {status} Status\r\nContent-Type: application/json\r\n{cookie}Retry-After: 1\r\n\
                 Connection: close\r\nContent-Length: {length}\r\n\r\n{body}"
            );
        }
    }
}

pub fn unauthorized() -> String {
    let error = json!({"code": "Unauthorized", "description": "User is unable to access this feature"});
    json!({"finance": {"result": null, "error": error}}).to_string()
}

/// One of a quote's answer, with the members that Yahoo gives a stock.
pub fn quote(symbol: &str, price: impl Into<Value>, volume: impl Into<Value>, time_s: i64) -> Value {
    json!({
        "language": "en-US", "region": "US", "quoteType": "EQUITY", "typeDisp": "Equity", "currency": "USD",
        "marketState": "REGULAR", "exchange": "NMS", "fullExchangeName": "NasdaqGS", "market": "us_market",
        "regularMarketPrice": price.into(), "regularMarketTime": time_s, "regularMarketVolume": volume.into(),
        "bid": 189.9, "ask": 190.1, "bidSize": 8, "askSize": 9, "exchangeDataDelayedBy": 0, "symbol": symbol,
    })
}

/// The same with other members.
pub fn with(mut quote: Value, members: &[(&str, Value)]) -> Value {
    for (name, value) in members {
        quote[*name] = value.clone();
    }
    quote
}

/// Minutes with open 10, high 12, low 9, close 11 and their volumes; None: a minute that nothing is known of.
pub fn chart(symbol: &str, minutes: &[(i64, Option<i64>)]) -> Value {
    let column = |price: f64| -> Vec<Value> {
        minutes.iter().map(|(_, volume)| volume.map_or(Value::Null, |_| price.into())).collect()
    };
    let volumes: Vec<_> = minutes.iter().map(|(_, volume)| *volume).collect();
    let times: Vec<_> = minutes.iter().map(|(time_s, _)| *time_s).collect();
    let meta = json!({
        "currency": "USD", "symbol": symbol, "exchangeName": "NMS", "instrumentType": "EQUITY",
        "gmtoffset": -18000, "timezone": "EST", "exchangeTimezoneName": "America/New_York",
        "regularMarketPrice": 11.0, "dataGranularity": "1m", "range": "1d",
    });
    let quote = json!({
        "open": column(10.0), "high": column(12.0), "low": column(9.0), "close": column(11.0), "volume": volumes,
    });
    json!({"chart": {"result": [{"meta": meta, "timestamp": times, "indicators": {"quote": [quote]}}], "error": null}})
}

pub fn chart_path(symbol: &str) -> String {
    format!("/v8/finance/chart/{symbol}")
}
