//! kill -9 at random moments: a child appends and tells what was acknowledged, the parent kills it and looks.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use bytes::Bytes;
use finstream::broker::log::{Durability, Log, Partition};

use crate::support::*;

const CHILD_DIRECTORY: &str = "FINSTREAM_TEST_LOG_CHILD";
const CHILD_MODE: &str = "FINSTREAM_TEST_LOG_MODE";
const PARTITIONS: i32 = 3;

fn durability(mode: &str) -> Durability {
    if mode == "os" { Durability::Os } else { Durability::Fsync }
}

/// The batch with this sequence, so that the parent knows its bytes.
fn batch(partition: i32, sequence: i32) -> Bytes {
    let value_bytes = (sequence as usize * 7919) % 6000;
    BatchOf { value_bytes, timestamp: i64::from(sequence), ..BatchOf::records(2) }
        .of(i64::from(partition), 0, sequence)
        .bytes()
}

/// Not a test by itself: the process that is killed.
#[test]
fn child_that_appends_until_it_is_killed() {
    let Ok(directory) = std::env::var(CHILD_DIRECTORY) else { return };
    let mode = durability(&std::env::var(CHILD_MODE).unwrap());
    let log = Log::open(directory.as_ref(), settings(mode)).unwrap().0;
    let threads: Vec<_> = (0..PARTITIONS)
        .map(|number| {
            let partition = create(&log, number);
            std::thread::spawn(move || append_forever(&partition, number))
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

fn append_forever(partition: &Partition, number: i32) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut sequence = partition.high_watermark() as i32;
    loop {
        let pending: Vec<_> = (0..4)
            .map(|_| {
                let appended = partition.append(batch(number, sequence), 0, NOW_MS).unwrap();
                sequence += 2;
                appended
            })
            .collect();
        for appended in pending {
            runtime.block_on(partition.durable(&appended)).unwrap();
            let line = format!("acknowledged {number} {}\n", appended.last_offset);
            std::io::stdout().write_all(line.as_bytes()).unwrap();
        }
    }
}

/// Lets a child append until `lines` acknowledgements came, kills it, and returns the last offset per partition.
fn life(directory: &Path, mode: &str, lines: usize) -> BTreeMap<i32, i64> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kill::child_that_appends_until_it_is_killed", "--nocapture", "--test-threads=1"])
        .env(CHILD_DIRECTORY, directory)
        .env(CHILD_MODE, mode)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut acknowledged = BTreeMap::new();
    let mut output = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut note = |line: String| {
        let mut words = line.split("acknowledged ").nth(1)?.split(' ');
        let (number, offset) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        acknowledged.insert(number, offset);
        Some(())
    };
    let mut seen = 0;
    while seen < lines {
        seen += usize::from(note(output.next().expect("the child ended by itself")).is_some());
    }
    child.kill().unwrap();
    child.wait().unwrap();
    for line in output {
        note(line);
    }
    acknowledged
}

fn kill_and_compare(mode: &str, rounds: usize, damage: impl Fn(&Path)) {
    let dir = tempfile::tempdir().unwrap();
    let seed: u64 = rand::random();
    eprintln!("seed {seed}");
    let mut random = seed;
    for round in 0..rounds {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let acknowledged = life(dir.path(), mode, 1 + (random >> 33) as usize % 600);
        damage(dir.path());
        let (log, report) = Log::open(dir.path(), settings(durability(mode))).unwrap();
        for (number, last_offset) in acknowledged {
            let partition = log.partition(id(number)).unwrap();
            let high_watermark = partition.high_watermark();
            assert!(high_watermark > last_offset, "round {round}, partition {number}: {report:?}");
            let found = batches_from(&partition, 0);
            assert_eq!(found.len() as i64 * 2, high_watermark);
            for (index, (base_offset, bytes)) in found.iter().enumerate() {
                assert_eq!(*base_offset, 2 * index as i64);
                assert_eq!(*bytes, as_sent(&batch(number, 2 * index as i32)), "offset {base_offset}");
            }
            // A retry of the last one is recognised.
            let again = partition.append(batch(number, high_watermark as i32 - 2), 0, NOW_MS).unwrap();
            assert!(again.duplicate);
        }
        drop(log);
    }
}

#[test]
fn after_kill_9_every_acknowledged_batch_is_there_byte_for_byte() {
    kill_and_compare("fsync", 12, |_| {});
}

#[test]
fn after_kill_9_the_page_cache_is_enough_for_durability_os() {
    kill_and_compare("os", 12, |_| {});
}

#[test]
fn after_a_power_cut_only_journal_and_checkpoint_are_needed() {
    kill_and_compare("fsync", 12, lose_what_the_checkpoint_does_not_hold);
}

/// Overwrites everything in the segments that no checkpoint promised, and removes some of it.
pub fn lose_what_the_checkpoint_does_not_hold(directory: &Path) {
    let held = held_by_checkpoint(&directory.join("checkpoint"));
    for number in 0..PARTITIONS {
        let partition = directory.join(format!("topic-{number}"));
        if !partition.exists() {
            continue;
        }
        for segment in files(&partition, ".log") {
            let name = segment.file_name().unwrap().to_string_lossy().into_owned();
            let length = held.get(&(number, name)).copied();
            match length {
                None if number == 0 => std::fs::remove_file(&segment).unwrap(),
                length => {
                    let mut content = std::fs::read(&segment).unwrap();
                    content[length.unwrap_or(0)..].fill(0xa5);
                    std::fs::write(&segment, content).unwrap();
                }
            }
        }
        // Indexes are not synced at all.
        if number == 1 {
            files(&partition, ".index").iter().for_each(|index| std::fs::write(index, b"?").unwrap());
        }
    }
}

/// How much of each segment (partition, file name) the checkpoint holds.
fn held_by_checkpoint(path: &Path) -> BTreeMap<(i32, String), usize> {
    let content = std::fs::read(path).unwrap();
    let mut rest = &content[20 + 2 + 4 * 8..];
    let mut take = |count: usize| {
        let (taken, left) = rest.split_at(count);
        rest = left;
        let mut number = [0; 8];
        let known = count.min(8);
        number[..known].copy_from_slice(&taken[..known]);
        u64::from_le_bytes(number) as usize
    };
    let mut held = BTreeMap::new();
    for _ in 0..take(4) {
        // Number and topic id; the partition; its directory; a config without limits; log start, end, first dirty.
        take(8 + 16);
        let number = take(4) as i32;
        let name_bytes = take(4);
        take(name_bytes + 8 + 8 + 1 + 1 + 4 + 2 + (8 + 8 + 1 + 3 * 8 + 4) + 24);
        for _ in 0..take(4) {
            let (base_offset, length) = (take(8), take(8));
            take(32);
            let generation = match take(4) {
                0 => String::new(),
                generation => format!("-{generation}"),
            };
            take(8);
            let open = take(4);
            take(16 * open);
            held.insert((number, format!("{base_offset:020}{generation}.log")), length);
        }
        for _ in 0..take(4) {
            take(8 + 2 + 4 + 8);
            let batches = take(1);
            take(24 * batches);
        }
        let open = take(4);
        take(16 * open);
    }
    held
}
