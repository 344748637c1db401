//! kill -9 while segments are written anew: a child appends and compacts as fast as it can, the parent kills it and looks.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use bytes::Bytes;
use finstream::broker::log::{Durability, Log, PartitionConfig};

use crate::compaction::compacted;
use crate::kill::lose_what_the_checkpoint_does_not_hold;
use crate::support::*;

const CHILD_DIRECTORY: &str = "FINSTREAM_TEST_COMPACTION_CHILD";
const CHILD_MODE: &str = "FINSTREAM_TEST_COMPACTION_MODE";
const KEYS: i64 = 7;
const ROUNDS: usize = 10;

fn durability(mode: &str) -> Durability {
    if mode == "os" { Durability::Os } else { Durability::Fsync }
}

/// The record at this offset.
fn record(offset: i64) -> Written {
    let value = format!("{offset} {}", "x".repeat((offset * 7919 % 300) as usize));
    Written { value: Some(Bytes::from(value)), ..Written::of(&format!("k{}", offset % KEYS), None) }
}

/// Not a test by itself: the process that is killed.
#[test]
fn child_that_appends_and_compacts_until_it_is_killed() {
    let Ok(directory) = std::env::var(CHILD_DIRECTORY) else { return };
    let mode = durability(&std::env::var(CHILD_MODE).unwrap());
    // A small journal, so that there are many checkpoints.
    let log = Log::open(directory.as_ref(), settings(mode)).unwrap().0;
    let config = PartitionConfig { segment_bytes_max: 3_000, ..compacted() };
    let partition = log.create_partition(id(0), "topic-0", config).unwrap();
    let cleaned = log.clone();
    std::thread::spawn(move || {
        loop {
            if !cleaned.compact_one(NOW_MS) {
                std::thread::yield_now();
            }
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut offset = partition.high_watermark();
    loop {
        let records: Vec<Written> = (offset..offset + 5).map(record).collect();
        let appended = partition.append(batch_of(&records, (offset % 4) as u8, None), 0, NOW_MS).unwrap();
        runtime.block_on(partition.durable(&appended)).unwrap();
        std::io::stdout().write_all(format!("acknowledged {}\n", appended.last_offset).as_bytes()).unwrap();
        offset += 5;
    }
}

/// Lets a child live until `lines` acknowledgements came, kills it, and returns the last acknowledged offset.
fn life(directory: &Path, mode: &str, lines: usize) -> i64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "compaction_kill::child_that_appends_and_compacts_until_it_is_killed"])
        .args(["--nocapture", "--test-threads=1"])
        .env(CHILD_DIRECTORY, directory)
        .env(CHILD_MODE, mode)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut acknowledged = output.filter_map(|line| line.split("acknowledged ").nth(1)?.parse::<i64>().ok());
    let last = acknowledged.by_ref().take(lines).last().expect("the child ended by itself");
    child.kill().unwrap();
    child.wait().unwrap();
    acknowledged.last().unwrap_or(last)
}

fn kill_and_compare(mode: &str, damage: impl Fn(&Path)) {
    let dir = tempfile::tempdir().unwrap();
    let mut rewritten = 0;
    for round in 0..ROUNDS {
        let lines = rand::random_range(1..400);
        eprintln!("round {round}: {lines} acknowledgements");
        let last_offset = life(dir.path(), mode, lines);
        let names = files(&dir.path().join("topic-0"), ".log").into_iter();
        rewritten += names.filter(|path| path.file_name().unwrap().to_string_lossy().contains('-')).count();
        damage(dir.path());
        let log = Log::open(dir.path(), settings(durability(mode))).unwrap().0;
        let partition = log.partition(id(0)).unwrap();
        let high_watermark = partition.high_watermark();
        assert!(high_watermark > last_offset, "{last_offset} was acknowledged, the end is {high_watermark}");
        let found: BTreeMap<i64, Written> = records_from(&partition, 0).into_iter().collect();
        for (offset, found) in &found {
            assert_eq!(*found, record(*offset), "round {round}");
        }
        for offset in (high_watermark - KEYS).max(0)..high_watermark {
            assert!(found.contains_key(&offset), "round {round}: the last record of a key, at {offset}, is gone");
        }
        drop((log, partition));
    }
    assert!(rewritten > 0, "nothing was compacted");
}

#[test]
fn after_kill_9_in_the_middle_of_compaction_each_key_has_its_last_record() {
    kill_and_compare("fsync", |_| {});
    kill_and_compare("os", |_| {});
}

#[test]
fn after_a_power_cut_in_the_middle_of_compaction_each_key_has_its_last_record() {
    kill_and_compare("fsync", lose_what_the_checkpoint_does_not_hold);
}
