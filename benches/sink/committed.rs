//! From the moment a message is due to the moment its row is committed: the floor, and the whole of finstream beside it.
//!
//! The floor program has no network, no protocol and no totals. One thread lets messages arrive, one writes what has arrived
//! to a preallocated file and syncs it, one takes what is synced and inserts its rows in one statement of one round trip.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use finstream::postgres::Database;
use hdrhistogram::Histogram;
use serde_json::Value;
use sqlx::Connection;

use crate::stage::Stage;
use crate::support::cpu_seconds;
use crate::support::pace::{Pace, histogram, percentiles_ms};
use crate::support::server::without_settings;

/// Bytes of a message of the synthetic source with its headers, as the log holds it.
const MESSAGE_BYTES: usize = 400;
/// What is preallocated.
const FILE_BYTES: usize = 64 * 1024 * 1024;

const TABLE: &str = "create table messages (like reference_whole.messages including all)";
const INSERT: &str = "
insert into messages (\"offset\", sequence, scheduled_at, sent_at, received_at, topic_ref, partition, run_ref)
select o, o, now(), now(), now(), 1, o % 6, 1 from unnest($1::bigint[]) as o";

/// Messages between two threads.
#[derive(Default)]
struct Place {
    waiting: Mutex<(Vec<(i64, Instant)>, bool)>,
    arrived: Condvar,
}

impl Place {
    fn put(&self, messages: impl IntoIterator<Item = (i64, Instant)>) {
        self.waiting.lock().unwrap().0.extend(messages);
        self.arrived.notify_one();
    }

    fn end(&self) {
        self.waiting.lock().unwrap().1 = true;
        self.arrived.notify_one();
    }

    /// All that waits, at least one; none at the end.
    fn take(&self) -> Option<Vec<(i64, Instant)>> {
        let waiting = self.waiting.lock().unwrap();
        let mut waiting = self.arrived.wait_while(waiting, |(messages, ended)| messages.is_empty() && !*ended).unwrap();
        (!waiting.0.is_empty()).then(|| std::mem::take(&mut waiting.0))
    }
}

/// p50 and p99 in milliseconds of the floor program.
pub fn floor(stage: &mut Stage, dir: &Path, rate: f64, measured: Duration) -> [f64; 2] {
    stage.make_schema("floor", TABLE);
    stage.settle();
    let database = stage.database("floor");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(dir.join("floor.log")).unwrap();
    file.write_all(&vec![0; FILE_BYTES]).unwrap();
    file.sync_all().unwrap();
    let file = OpenOptions::new().write(true).open(dir.join("floor.log")).unwrap();

    let (arrived, synced) = (Place::default(), Place::default());
    let delays = std::thread::scope(|scope| {
        scope.spawn(|| sync_groups(file, &arrived, &synced));
        let committing = scope.spawn(|| commit_groups(&database, &synced));
        let begins = Instant::now();
        let mut pace = Pace::new(begins, rate);
        for number in 0.. {
            let due = pace.wait_for_next();
            if due >= begins + measured {
                break;
            }
            arrived.put([(number, due)]);
        }
        arrived.end();
        committing.join().unwrap()
    });
    let [p50, p99, _] = percentiles_ms(&delays);
    [p50, p99]
}

fn sync_groups(mut file: std::fs::File, arrived: &Place, synced: &Place) {
    while let Some(group) = arrived.take() {
        file.write_all(&vec![b'x'; MESSAGE_BYTES * group.len()]).unwrap();
        file.sync_data().unwrap();
        synced.put(group);
    }
    synced.end();
}

fn commit_groups(database: &Database, synced: &Place) -> Histogram<u64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut connection = runtime.block_on(database.connect()).unwrap();
    let mut delays = histogram();
    while let Some(group) = synced.take() {
        let offsets: Vec<i64> = group.iter().map(|(number, _)| *number).collect();
        runtime.block_on(sqlx::query(INSERT).bind(offsets).execute(&mut connection)).unwrap();
        let done = Instant::now();
        for (_, due) in group {
            delays.saturating_record((done - due).as_micros() as u64);
        }
    }
    runtime.block_on(connection.close()).unwrap();
    delays
}

/// What finstream took with all roles in one process on a new data directory.
pub struct Whole {
    pub p50_ms: f64,
    pub p99_ms: f64,
    /// Of a core, in percent: the process alone, without PostgreSQL.
    pub cpu_share: f64,
}

/// Scheduled -> committed, as the summary says.
pub fn whole(dir: &Path, rate: f64, measured: Duration, flags: &[String]) -> Whole {
    let folder = tempfile::Builder::new().prefix("whole-").tempdir_in(dir).unwrap();
    {
        use std::os::unix::fs::PermissionsExt;
        // The private PostgreSQL may run as another user, who must be able to traverse to its cluster.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let (data, summary) = (folder.path().join("data"), folder.path().join("summary.json"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_finstream"));
    without_settings(&mut command);
    command.arg("--data-dir").arg(&data).arg("--summary").arg(&summary);
    command.args(["--http", "127.0.0.1:0", "--kafka-listen", "127.0.0.1:0", "--rate", &rate.to_string()]);
    command.args(["--duration", &format!("{}ms", measured.as_millis())]).args(flags);
    let began = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(measured.saturating_sub(began.elapsed()));
    let cpu_s = cpu_seconds(child.id()).unwrap_or_default();
    assert!(child.wait().unwrap().success(), "finstream at {rate}/s");
    let summary: Value = serde_json::from_str(&std::fs::read_to_string(summary).unwrap()).unwrap();
    // Its cluster may lie outside of the folder.
    let mut reset = Command::new(env!("CARGO_BIN_EXE_finstream"));
    without_settings(&mut reset);
    reset.arg("--data-dir").arg(&data).args(["reset", "--yes"]).stdout(Stdio::null()).stderr(Stdio::null());
    assert!(reset.status().unwrap().success());
    let stages = summary["stages"].as_array().unwrap();
    let stage = stages.iter().find(|stage| stage["stage"] == "scheduled -> committed").unwrap();
    let milliseconds = |name: &str| stage[name].as_f64().unwrap() / 1e3;
    Whole {
        p50_ms: milliseconds("p50_us"),
        p99_ms: milliseconds("p99_us"),
        cpu_share: cpu_s / measured.as_secs_f64() * 100.0,
    }
}
