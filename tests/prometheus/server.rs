//! A real Prometheus, and what a test asks of it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::dashboards::{RULE_FILES, read, with_durations};
use crate::support::wait_until;

/// An answer of a server on this machine.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// One program of Prometheus. A test installs nothing: `scripts/prometheus.sh` does, and `make test` calls it.
pub fn program(name: &str) -> PathBuf {
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join(".local-deps/prometheus/usr/bin").join(name);
    if unpacked.exists() {
        return unpacked;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.exists());
    found.unwrap_or_else(|| panic!("{name} is not here: run scripts/prometheus.sh"))
}

/// What is scraped, under which job.
pub struct Target {
    pub job: &'static str,
    /// HOST:PORT.
    pub address: String,
    /// A metric that is called otherwise on its way, as if somebody had renamed it.
    pub renamed: Option<(&'static str, &'static str)>,
}

impl Target {
    pub fn new(job: &'static str, address: &str) -> Target {
        Target { job, address: address.to_owned(), renamed: None }
    }
}

/// Ends with its test.
pub struct Prometheus {
    child: Child,
    address: String,
    _dir: TempDir,
}

impl Prometheus {
    /// Scrapes `targets` every `scrape_ms` with the rules of this repository, whose durations are divided by `speed`.
    pub fn start(targets: &[Target], scrape_ms: u64, speed: u64) -> Prometheus {
        let dir = tempfile::Builder::new().prefix("finstream-prometheus-").tempdir().unwrap();
        std::fs::create_dir(dir.path().join("rules")).unwrap();
        for file in RULE_FILES {
            let rules = read(&format!("grafana/prometheus/rules/{file}.yml"));
            let rules = with_durations(&rules, |ms| ms / speed);
            std::fs::write(dir.path().join(format!("rules/{file}.yml")), rules).unwrap();
        }
        let mut config = format!(
            "global:\n  scrape_interval: {scrape_ms}ms\n  scrape_timeout: {scrape_ms}ms\n  evaluation_interval: \
             {scrape_ms}ms\nrule_files:\n  - rules/*.yml\nscrape_configs:\n"
        );
        let mut jobs: Vec<&str> = targets.iter().map(|target| target.job).collect();
        jobs.sort_unstable();
        jobs.dedup();
        for job in jobs {
            let of: Vec<&Target> = targets.iter().filter(|target| target.job == job).collect();
            let addresses: Vec<String> = of.iter().map(|target| format!("\"{}\"", target.address)).collect();
            config.push_str(&format!(
                "  - job_name: {job}\n    static_configs:\n      - targets: [{}]\n",
                addresses.join(", ")
            ));
            if let Some((from, to)) = of.iter().find_map(|target| target.renamed) {
                config.push_str(&format!(
                    "    metric_relabel_configs:\n      - source_labels: [__name__]\n        regex: {from}\n        \
                     target_label: __name__\n        replacement: {to}\n"
                ));
            }
        }
        let file = dir.path().join("prometheus.yml");
        std::fs::write(&file, config).unwrap();
        let address = free_address();
        let log = std::fs::File::create(dir.path().join("log.txt")).unwrap();
        let child = Command::new(program("prometheus"))
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let started = Prometheus { child, address, _dir: dir };
        wait_until("Prometheus to be ready", || get(&started.address, "/-/ready").is_some_and(|(code, _)| code == 200));
        started
    }

    /// The result of a query now: each sample's labels and value.
    pub fn query(&self, expr: &str) -> Result<Vec<(Value, f64)>, String> {
        let answer = self.api(&format!("/api/v1/query?query={}", encoded(expr)))?;
        let samples = match answer["resultType"].as_str() {
            Some("vector") => answer["result"].as_array().unwrap().clone(),
            _ => return Err(format!("not a vector: {answer}")),
        };
        let read = |sample: &Value| (sample["metric"].clone(), sample["value"][1].as_str().unwrap().parse().unwrap());
        Ok(samples.iter().map(read).collect())
    }

    /// Names of alerts that fire now, of one job.
    pub fn firing(&self, job: &str) -> Vec<String> {
        let alerts = self.query(&format!("ALERTS{{alertstate=\"firing\", job=\"{job}\"}}")).unwrap();
        alerts.iter().map(|(labels, _)| labels["alertname"].as_str().unwrap().to_owned()).collect()
    }

    /// Rules that could not be evaluated, and why.
    pub fn broken_rules(&self) -> Vec<String> {
        let answer = self.api("/api/v1/rules").unwrap();
        let groups = answer["groups"].as_array().unwrap();
        let rules = groups.iter().flat_map(|group| group["rules"].as_array().unwrap());
        let broken = rules.filter(|rule| rule["health"] != "ok");
        broken.map(|rule| format!("{}: {} {}", rule["name"], rule["health"], rule["lastError"])).collect()
    }

    fn api(&self, path: &str) -> Result<Value, String> {
        let (_, body) = get(&self.address, path).ok_or("Prometheus does not answer")?;
        let answer: Value = serde_json::from_str(&body).map_err(|error| format!("{error}: {body}"))?;
        if answer["status"] != "success" { Err(answer["error"].to_string()) } else { Ok(answer["data"].clone()) }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address of this machine that nobody listens on.
pub fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// Code and body of an answer; none when there is no answer.
pub fn get(address: &str, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(ANSWER_MAX)).ok()?;
    // 1.0: the answer comes in one piece.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' | b'.' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
        encoded
    })
}

/// Runs promtool in the folder of the rules, with text on its stdin; what it printed, if it was content.
pub fn promtool(arguments: &[&str], input: &str) -> Result<String, String> {
    let mut child = Command::new(program("promtool"))
        .args(arguments)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("grafana/prometheus"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(text) } else { Err(text) }
}
