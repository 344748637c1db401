//! Runs librdkafka's own `rdkafka_performance` and reads what it prints; watches its CPU time from outside.

use std::collections::HashMap;
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::brokers::Broker;
use crate::support::{MachineCpu, ThreadTime, children_cpu_seconds, first_line};

/// Partitions of every topic here.
pub const PARTITIONS: i32 = 6;
/// The client prints a row this often.
const ROW_MS: &str = "250";
/// Columns of the rows.
const ELAPSED_MS: usize = 0;
const MESSAGES: usize = 1;
const DELIVERED: usize = 4;
/// How often the client's threads are looked at.
const THREAD_LOOK: Duration = Duration::from_millis(50);
/// A load that takes longer than this is stuck.
const PATIENCE: Duration = Duration::from_secs(300);

/// What one load took.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub messages_per_second: f64,
    /// CPU seconds for a million messages.
    pub broker_cpu: Option<f64>,
    pub client_cpu: Option<f64>,
    /// Share of the time in which the client's busiest thread ran, in percent; and in which it ran or waited for a core
    /// that others had. Near 100 means that it never waits for the broker.
    pub client_thread_ran: f64,
    pub client_thread_wanted: f64,
    /// Share of all cores that was in use, by whomever, in percent.
    pub machine_share: Option<f64>,
}

/// The client's program.
pub struct PerfClient {
    program: String,
}

impl PerfClient {
    /// Builds it where that was not done yet.
    pub fn find() -> PerfClient {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/librdkafka.sh");
        let program = first_line(script, &["performance"]);
        assert!(!program.is_empty(), "rdkafka_performance cannot be built: run scripts/librdkafka.sh performance");
        PerfClient { program }
    }

    /// Sends `count` messages with acks=all and idempotence.
    pub fn produce(&self, broker: &Broker, topic: &str, message_bytes: u32, count: u64) -> Load {
        let mut command = self.producing(broker, topic, message_bytes, count);
        let seen = watch(broker, &mut command);
        // From the first acknowledgement on: before it, the client looks for its broker and its producer id, and may
        // sleep half a second between two looks.
        let first = seen.rows.iter().find(|row| row[DELIVERED] > 0.0).unwrap();
        let last = seen.rows.last().unwrap();
        assert_eq!(last[DELIVERED] as u64, count, "messages were not delivered");
        seen.load(count, (last[DELIVERED] - first[DELIVERED]) / (last[ELAPSED_MS] - first[ELAPSED_MS]))
    }

    /// Reads `count` messages from the beginning, in a group of its own.
    pub fn consume(&self, broker: &Broker, topic: &str, group: &str, count: u64) -> Load {
        let mut command = self.command(broker, topic, count);
        command.args(["-G", group]);
        let seen = watch(broker, &mut command);
        // It counts from its first message.
        let last = seen.rows.last().unwrap();
        assert!(last[MESSAGES] as u64 >= count, "{} of {count} messages came", last[MESSAGES]);
        seen.load(count, last[MESSAGES] / last[ELAPSED_MS])
    }

    /// The command that sends `count` messages with acks=all and idempotence.
    pub fn producing(&self, broker: &Broker, topic: &str, message_bytes: u32, count: u64) -> Command {
        let mut command = self.command(broker, topic, count);
        command.args(["-P", "-a", "-1", "-s", &message_bytes.to_string()]);
        // The program by itself sets a linger of a second; this is librdkafka's default.
        command.args(["-X", "enable.idempotence=true", "-X", "linger.ms=5"]);
        command
    }

    fn command(&self, broker: &Broker, topic: &str, count: u64) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["-b", &broker.address, "-t", topic, "-c", &count.to_string(), "-u", "-i", ROW_MS]);
        command
    }
}

/// What was seen of a client that has ended.
struct Seen {
    rows: Vec<Vec<f64>>,
    broker_cpu: Option<f64>,
    client_cpu: Option<f64>,
    /// Of the thread that wanted to run most.
    client_thread: ThreadTime,
    machine_share: Option<f64>,
}

impl Seen {
    fn load(&self, count: u64, messages_per_ms: f64) -> Load {
        let per_million = |seconds: f64| seconds / (count as f64 / 1e6);
        // Of the time of the load, without what the client took to find its broker and to end.
        let share = |seconds: f64| seconds / count as f64 * messages_per_ms * 1e3 * 100.0;
        Load {
            messages_per_second: messages_per_ms * 1e3,
            broker_cpu: self.broker_cpu.map(per_million),
            client_cpu: self.client_cpu.map(per_million),
            client_thread_ran: share(self.client_thread.ran_s),
            client_thread_wanted: share(self.client_thread.wanted_s()),
            machine_share: self.machine_share,
        }
    }
}

/// Runs the client to its end. What the broker still does for it afterwards counts as well.
fn watch(broker: &Broker, command: &mut Command) -> Seen {
    let broker_before = broker.cpu_seconds();
    let machine_before = MachineCpu::now();
    let children_before = children_cpu_seconds();
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut output = child.stdout.take().unwrap();
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        output.read_to_string(&mut text).unwrap();
        text
    });
    let began = Instant::now();
    let mut threads = HashMap::new();
    let status = loop {
        note_threads(child.id(), &mut threads);
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if began.elapsed() > PATIENCE {
            child.kill().unwrap();
        }
        std::thread::sleep(THREAD_LOOK);
    };
    let machine_share = machine_before.share_since();
    let text = reading.join().unwrap();
    assert!(status.success(), "{command:?}: {status}\n{text}");
    let client_cpu = children_cpu_seconds().zip(children_before).map(|(after, before)| after - before);
    broker.settle();
    Seen {
        rows: text.lines().filter_map(numbers).collect(),
        broker_cpu: broker.cpu_seconds().zip(broker_before).map(|(after, before)| after - before),
        client_cpu,
        client_thread: threads
            .into_values()
            .max_by(|one, other| one.wanted_s().total_cmp(&other.wanted_s()))
            .unwrap_or_default(),
        machine_share,
    }
}

/// Keeps the times that each thread of a process had when it was last seen.
fn note_threads(pid: u32, threads: &mut HashMap<String, ThreadTime>) {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return };
    for task in tasks.flatten() {
        let id = task.file_name().to_string_lossy().into_owned();
        if let Some(time) = ThreadTime::of(pid, &id) {
            threads.insert(id, time);
        }
    }
}

/// The values of a row of the client's table; none for its head and for other lines.
fn numbers(line: &str) -> Option<Vec<f64>> {
    let cells = line.strip_prefix('|')?;
    cells.split('|').map(|cell| cell.trim().parse().ok()).collect()
}
