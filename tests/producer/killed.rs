//! A producer that is killed has intended everything that the log holds, and what it was told to be stored is there.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use finstream::config::{Arrival, Pace, ProducerSettings};
use finstream::ledger::{LedgerReader, RunRecord};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use crate::support::{acknowledged, cluster, log, produce, settings, stored};

const CHILD_BROKERS: &str = "FINSTREAM_TEST_CHILD_BROKERS";
const CHILD_LEDGER: &str = "FINSTREAM_TEST_CHILD_LEDGER";
const ROUNDS: usize = 6;

/// Not a test by itself: the process that `a_killed_producer…` starts and kills.
#[tokio::test(flavor = "multi_thread")]
async fn child() {
    let (Ok(brokers), Ok(ledger)) = (std::env::var(CHILD_BROKERS), std::env::var(CHILD_LEDGER)) else { return };
    // It ends by itself should nobody be left to kill it.
    let duration = Some(Duration::from_secs(60));
    let settings = ProducerSettings {
        pace: Pace::Rate { per_second: 5_000.0, arrival: Arrival::Constant },
        duration,
        ..settings(brokers, ledger.as_ref())
    };
    produce(&settings).await.unwrap();
}

/// Ends with the test, whatever becomes of it.
struct Victim(Child);

impl Victim {
    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_killed_producer_intended_all_that_the_log_holds_and_lost_nothing_that_was_acknowledged() {
    let (cluster, dir) = (cluster(), tempfile::tempdir().unwrap());
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    println!("SEED={seed}");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let reader = LedgerReader::new(dir.path());
    let mut known: Vec<RunRecord> = Vec::new();
    for _ in 0..ROUNDS {
        let mut victim = Victim(
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "killed::child"])
                .env(CHILD_BROKERS, cluster.bootstrap_servers())
                .env(CHILD_LEDGER, dir.path())
                .spawn()
                .unwrap(),
        );
        let started = Instant::now();
        let run = loop {
            assert!(started.elapsed() < Duration::from_secs(30), "the child acknowledges nothing");
            let fresh = reader.runs().unwrap().into_iter().find(|run| !known.contains(run));
            match fresh {
                Some(record) if !acknowledged(dir.path(), record.run).is_empty() => break record,
                _ => std::thread::sleep(Duration::from_millis(2)),
            }
        };
        // The moment is the point of the test, not a wait for something.
        std::thread::sleep(Duration::from_millis(random.random_range(0..300)));
        victim.kill();
        assert!(!reader.is_being_written(run.run));
        let acknowledged = acknowledged(dir.path(), run.run);
        let stored = stored(&log(&cluster.bootstrap_servers()), run.run);
        let mut intended = 0;
        reader.read_intents(run.run, |intent| intended = intent.sequence + 1).unwrap();
        for (sequence, place) in &acknowledged {
            assert_eq!(stored.get(sequence), Some(place), "acknowledged and not stored");
        }
        let last = stored.last_key_value().map_or(-1, |(sequence, _)| *sequence);
        assert!(last < intended, "message {last} is stored, intents end at {intended}");
        known.push(run);
    }
}
