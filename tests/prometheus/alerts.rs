//! Each alert fires when its fault is caused, and clears when it is cured. The rules are the repository's, with all of
//! their durations divided by [`SPEED`]: thresholds stay as they are.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use finstream::data_dir::DiskSpace;
use rustix::fs::FallocateFlags;
use rustix::process::{Pid, kill_process};

use crate::dashboards::rules;
use crate::send_garbage;
use crate::server::{Prometheus, Target, free_address};
use crate::support::{Running, Sandbox, Signal, setting, wait_until};

/// A minute of the rules is a second here.
const SPEED: u64 = 60;
const SCRAPE_MS: u64 = 250;
/// Set to 1 where a tmpfs can be mounted, as `.ci/run` finds out: then the alerts of the disk must be tried. Elsewhere an ordinary
/// user passes without them, and the test says so.
const MUST_MOUNT: &str = "FINSTREAM_TEST_MUST_MOUNT";
/// An audit that found differences is made again after a minute, whatever the rules say.
const PATIENCE: Duration = Duration::from_secs(150);
const MIB: u64 = 1 << 20;

/// What fired and cleared, by whoever saw it.
struct Watch<'a> {
    prometheus: &'a Prometheus,
    job: &'static str,
    seen: &'a Mutex<BTreeSet<String>>,
    began: Instant,
}

impl Watch<'_> {
    /// None of them fires before its fault. Two scrapes that a busy machine misses are an outage at this speed: it passes.
    fn is_quiet(&self, alerts: &[&str]) {
        self.until(&format!("none of {alerts:?} before the fault"), || {
            let firing = self.prometheus.firing(self.job);
            !alerts.iter().any(|alert| firing.iter().any(|name| name == alert))
        });
    }

    fn fires(&self, alerts: &[&str]) {
        let mut left = alerts.to_vec();
        self.until(&format!("{alerts:?} to fire"), || {
            let firing = self.prometheus.firing(self.job);
            for alert in left.extract_if(.., |alert| firing.iter().any(|name| name == alert)) {
                println!("{:6.1} s  {alert} fires", self.began.elapsed().as_secs_f64());
            }
            left.is_empty()
        });
    }

    fn clears(&self, alerts: &[&str]) {
        let mut left = alerts.to_vec();
        self.until(&format!("{alerts:?} to clear"), || {
            let firing = self.prometheus.firing(self.job);
            for alert in left.extract_if(.., |alert| firing.iter().all(|name| name != alert)) {
                println!("{:6.1} s  {alert} clears", self.began.elapsed().as_secs_f64());
                self.seen.lock().unwrap().insert(alert.to_owned());
            }
            left.is_empty()
        });
    }

    /// Waits until a query gives a sample.
    fn gives(&self, expr: &str) {
        self.until(expr, || self.prometheus.query(expr).is_ok_and(|samples| !samples.is_empty()));
    }

    fn until(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let began = Instant::now();
        while !condition() {
            assert!(
                began.elapsed() < PATIENCE,
                "waited {PATIENCE:?} for {what}; firing: {:?}",
                self.prometheus.firing(self.job)
            );
            std::thread::park_timeout(Duration::from_millis(100));
        }
    }
}

#[test]
fn each_alert_fires_when_its_fault_is_caused_and_clears_when_it_is_cured() {
    let [sink_at, broker_at, producer_at, consumer_at, disk_at, books_at]: [String; 6] =
        std::array::from_fn(|_| free_address());
    let targets = [
        // Of jobs of their own: these processes end before the others are done, and a target of finstream's that is gone is down.
        Target::new("sink", &sink_at),
        Target::new("finstream", &broker_at),
        // Owned partitions are summed over a whole job.
        Target::new("apart", &producer_at),
        Target::new("apart", &consumer_at),
        Target::new("disk", &disk_at),
        Target::new("books", &books_at),
    ];
    let small_disk = small_disk();
    let may_mount = small_disk.is_ok();
    let prometheus = Prometheus::start(&targets, SCRAPE_MS, SPEED);
    let (seen, began) = (Mutex::default(), Instant::now());
    let watch = |job| Watch { prometheus: &prometheus, job, seen: &seen, began };
    std::thread::scope(|scope| {
        scope.spawn(|| books(&watch("books"), &books_at));
        scope.spawn(|| sink(&watch("sink"), &sink_at));
        scope.spawn(|| apart(&watch("finstream"), &watch("apart"), [&broker_at, &producer_at, &consumer_at]));
        if let Ok(small_disk) = &small_disk {
            scope.spawn(|| disk(&watch("disk"), &disk_at, small_disk));
        } else {
            println!("the alerts of the disk are not tried: {}", small_disk.as_ref().err().map_or("", String::as_str));
        }
    });
    let alerts: BTreeSet<String> = rules("alerts").into_iter().map(|rule| rule.name).collect();
    let is_excused = |name: &str| !may_mount && name.starts_with("FinstreamDisk");
    let missing: Vec<&String> =
        alerts.iter().filter(|name| !seen.lock().unwrap().contains(*name) && !is_excused(name)).collect();
    assert!(missing.is_empty(), "no fault was caused for {missing:?}");
}

/// PostgreSQL falls silent under load, and a message comes that is none.
fn sink(watch: &Watch<'_>, address: &str) {
    let sandbox = Sandbox::new();
    // So few that the service level is held beside all that this test does on two cores, and that many wait all the same.
    let mut running = sandbox.start(&["--rate", "100", "--http", address]);
    let ready = running.wait_ready();
    watch.gives("rate(finstream_sink_stored_messages_total{job=\"sink\"}[2s]) > 0");

    watch.is_quiet(&["FinstreamDeadLetters"]);
    send_garbage(ready["kafka"].as_str().unwrap());
    watch.fires(&["FinstreamDeadLetters"]);
    watch.clears(&["FinstreamDeadLetters"]);

    let at_once = ["FinstreamSinkStalled", "FinstreamDatabaseAway", "FinstreamLagGrowing", "FinstreamRoleWaits"];
    watch.is_quiet(&at_once);
    let stopped = with_children(sandbox.postmaster_pid());
    stopped.iter().for_each(|id| signal(*id, Signal::STOP));
    watch.fires(&at_once);
    stopped.iter().for_each(|id| signal(*id, Signal::CONT));
    watch.clears(&at_once);
    // What had to wait is committed now, late.
    let burns = ["FinstreamLatencyBurnFast", "FinstreamLatencyBurnSlow"];
    watch.fires(&burns);
    watch.clears(&burns);
    let (code, output) = running.stop();
    assert_eq!(code, Some(0), "{output}");
}

/// Broker, producer and consumer are processes of their own. The disk under the log is slow, audits cannot be made, the
/// broker is stopped, and killed again and again.
fn apart(watch: &Watch<'_>, clients: &Watch<'_>, [broker_at, producer_at, consumer_at]: [&str; 3]) {
    let sandbox = Sandbox::new();
    let (library, slow) = (slow_syncs(sandbox.path()), sandbox.path().join("slow"));
    let environment = [("LD_PRELOAD", library.to_str().unwrap()), ("SLOW_SYNCS", slow.to_str().unwrap())];
    let start = || {
        let mut running = sandbox.spawn_with(&["--role", "broker", "--http", broker_at], &environment);
        running.wait_ready();
        running
    };
    let mut broker = start();
    // An audit is due when a quarter of the retention is over, whatever has come.
    let consumer = sandbox.start(&["--role", "consumer", "--retention", "1m", "--http", consumer_at]);
    let producer = sandbox.start(&["--role", "producer", "--rate", "100", "--http", producer_at]);
    clients.gives("rate(finstream_sink_stored_messages_total{job=\"apart\"}[2s]) > 0");
    clients.is_quiet(&["FinstreamAuditFailing"]);
    let in_the_way = no_checkpoint(&sandbox);

    fs::write(&slow, "").unwrap();
    watch.fires(&["FinstreamFsyncSlow"]);
    fs::remove_file(&slow).unwrap();
    watch.clears(&["FinstreamFsyncSlow"]);

    clients.fires(&["FinstreamAuditFailing"]);
    fs::remove_dir(in_the_way).unwrap();
    clients.clears(&["FinstreamAuditFailing"]);

    let unheard = ["FinstreamProducerStalled", "FinstreamNoPartitions"];
    watch.is_quiet(&["FinstreamDown"]);
    clients.is_quiet(&unheard);
    broker.signal(Signal::STOP);
    watch.fires(&["FinstreamDown"]);
    clients.fires(&unheard);
    broker.signal(Signal::CONT);
    watch.clears(&["FinstreamDown"]);
    clients.clears(&unheard);

    for lives in 1..=3 {
        let started = format!("process_start_time_seconds{{instance=\"{broker_at}\"}}");
        let before = watch.prometheus.query(&started).unwrap().first().map_or(0.0, |(_, value)| *value);
        broker.kill();
        broker = start();
        println!("{:6.1} s  life {lives} began", watch.began.elapsed().as_secs_f64());
        // Its second is another than the last one's, or nobody could tell.
        watch.gives(&format!("{started} > {before}"));
    }
    watch.fires(&["FinstreamRestartLoop"]);
    watch.clears(&["FinstreamRestartLoop"]);
    drop((producer, consumer, broker));
}

/// Puts a folder where the next checkpoint is to be written, so that no audit can be made until it is gone.
fn no_checkpoint(sandbox: &Sandbox) -> PathBuf {
    let books_id = sandbox.sql("select books_id from schema_owner").replace('-', "");
    let topic = crc32c::crc32c(b"finance.transactions");
    let path = sandbox.data().join("ledger").join(format!("checkpoint-{books_id}-{topic:08x}.new"));
    wait_until("no audit to be under way", || fs::create_dir(&path).is_ok());
    path
}

/// Somebody changes a total by a cent, and back.
fn books(watch: &Watch<'_>, address: &str) {
    let sandbox = Sandbox::new();
    // An audit is due when a quarter of the retention is over, whatever has come: the first one finds the cent.
    let running = sandbox.start(&["--rate", "200", "--retention", "1m", "--http", address]);
    watch.gives("rate(finstream_sink_stored_messages_total{job=\"books\"}[2s]) > 0");
    watch.is_quiet(&["FinstreamAuditMismatch"]);
    // One row, chosen once: others come while traffic flows.
    let row = sandbox.sql(
        "select format('(%L, %L, %s, %s)', user_id, currency, topic_ref, partition) from user_aggregates order by user_id limit 1",
    );
    let change = |cents: &str| {
        sandbox.sql(&format!(
            "update user_aggregates set spend = spend + ({cents}) where (user_id, currency, topic_ref, partition) = {row}"
        ));
    };
    change("0.01");
    watch.fires(&["FinstreamAuditMismatch"]);
    change("-0.01");
    watch.clears(&["FinstreamAuditMismatch"]);
    drop(running);
}

/// A neighbour takes the disk.
fn disk(watch: &Watch<'_>, address: &str, SmallDisk(sandbox): &SmallDisk) {
    let data = sandbox.data();
    let running: Running =
        sandbox.start(&["--role", "broker", "--role", "producer", "--rate", "100", "--http", address]);
    watch.gives("finstream_disk_free_bytes{job=\"disk\"}");
    let (almost, full) = (["FinstreamDiskAlmostFull"], ["FinstreamDiskFull"]);
    watch.is_quiet(&[almost[0], full[0]]);
    let neighbour = fill(&data, 200 * MIB);
    watch.fires(&almost);
    watch.is_quiet(&full);
    fill(&data, 100 * MIB);
    watch.fires(&full);
    fs::remove_file(neighbour).unwrap();
    watch.clears(&[almost[0], full[0]]);
    drop(running);
}

/// A sandbox whose data lie on a disk of their own.
struct SmallDisk(Sandbox);

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.data()).status();
    }
}

/// Where this user may mount one; else why not.
fn small_disk() -> Result<SmallDisk, String> {
    let sandbox = Sandbox::new();
    let data = sandbox.data();
    fs::create_dir(&data).unwrap();
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=768m,mode=700", "tmpfs"]).arg(&data).output();
    let mount = mount.map_err(|error| format!("mount: {error}"))?;
    let said = String::from_utf8_lossy(&mount.stderr).trim().to_owned();
    assert!(mount.status.success() || setting(MUST_MOUNT, 0) != 1, "{MUST_MOUNT}=1, and: {said}");
    if mount.status.success() { Ok(SmallDisk(sandbox)) } else { Err(said) }
}

/// Takes all room but `left` bytes with a file, as a neighbour would.
fn fill(directory: &Path, left: u64) -> PathBuf {
    let path = directory.join("neighbour");
    let file = OpenOptions::new().create(true).append(true).open(&path).unwrap();
    let (free, taken) = (DiskSpace::of(directory).unwrap().free_bytes, file.metadata().unwrap().len());
    rustix::fs::fallocate(&file, FallocateFlags::empty(), taken, free.saturating_sub(left).max(1)).unwrap();
    path
}

/// A library that makes each sync take 80 ms longer, for as long as the file that SLOW_SYNCS names is there.
fn slow_syncs(folder: &Path) -> PathBuf {
    let (source, library) = (folder.join("slow.c"), folder.join("slow.so"));
    let code = r#"
        #define _GNU_SOURCE
        #include <dlfcn.h>
        #include <stdlib.h>
        #include <unistd.h>
        static int slowly(const char *name, int file) {
            const char *slow = getenv("SLOW_SYNCS");
            if (slow && access(slow, F_OK) == 0) usleep(80000);
            return ((int (*)(int))dlsym(RTLD_NEXT, name))(file);
        }
        int fdatasync(int file) { return slowly("fdatasync", file); }
        int fsync(int file) { return slowly("fsync", file); }
    "#;
    fs::write(&source, code).unwrap();
    let made = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl").status();
    assert!(made.unwrap().success(), "cc cannot make {}", library.display());
    library
}

/// A process and those that it has started.
fn with_children(id: u32) -> Vec<u32> {
    let parent_of = |id: u32| -> Option<u32> {
        let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
        status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
    };
    let all = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    // The parent first: it makes no more.
    std::iter::once(id).chain(all.filter(|child| parent_of(*child) == Some(id))).collect()
}

fn signal(id: u32, signal: Signal) {
    // A backend may have ended since.
    let _ = kill_process(Pid::from_raw(i32::try_from(id).unwrap()).unwrap(), signal);
}
