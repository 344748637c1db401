//! Random transactions against a model, over restarts, crashes, and kills of the process. The seed is printed.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use bytes::Bytes;
use finstream::broker::log::{
    AbortedTransaction, Durability, EndTransaction, Isolation, Log, LogSettings, Marker, Partition, PartitionConfig,
};
use kafka_protocol::records::RecordBatchDecoder;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use crate::support::*;
use crate::transactions::*;

const PRODUCERS: usize = 6;

fn seed() -> u64 {
    let seed =
        std::env::var("FINSTREAM_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    eprintln!("FINSTREAM_TEST_SEED={seed}");
    seed
}

fn small_settings(durability: Durability) -> LogSettings {
    // Checkpoints come often.
    LogSettings { durability, journal_bytes_max: 64 << 10 }
}

fn open_log(dir: &Path, durability: Durability) -> (Log, Partition) {
    let log = Log::open(dir, small_settings(durability)).unwrap().0;
    let small = PartitionConfig { segment_bytes_max: 1_500, ..config() };
    let partition = log.create_partition(id(0), "topic-0", small).unwrap();
    (log, partition)
}

/// Who wrote a stored record, and in which transaction.
struct Stored {
    offset: i64,
    value: Bytes,
    transaction: Option<usize>,
}

struct Transaction {
    producer_id: i64,
    first_offset: i64,
    /// Marker, its offset, the last stable offset behind it.
    end: Option<(Marker, i64, i64)>,
}

#[derive(Clone, Default)]
struct Producer {
    epoch: i16,
    sequence: i32,
    open: Option<usize>,
    last: Option<(BatchOf, i64)>,
}

/// What should be in the log.
#[derive(Default)]
struct Model {
    records: Vec<Stored>,
    transactions: Vec<Transaction>,
    producers: Vec<Producer>,
    log_start: i64,
    end: i64,
}

impl Model {
    fn oldest_open(&self) -> Option<i64> {
        let open = self.transactions.iter().filter(|transaction| transaction.end.is_none());
        open.map(|transaction| transaction.first_offset).min()
    }

    fn last_stable_offset(&self) -> i64 {
        self.oldest_open().map_or(self.end, |first| first.max(self.log_start))
    }

    fn is_visible(&self, record: &Stored) -> bool {
        let ended = record.transaction.map(|index| self.transactions[index].end);
        !matches!(ended, Some(None | Some((Marker::Abort, ..))))
    }

    fn committed_from(&self, offset: i64) -> Vec<(i64, Bytes)> {
        let stable = self.last_stable_offset();
        let wanted = self.records.iter().filter(|record| (offset..stable).contains(&record.offset));
        wanted.filter(|record| self.is_visible(record)).map(|record| (record.offset, record.value.clone())).collect()
    }

    /// In the order of their markers.
    fn aborted(&self, from: i64, to: i64) -> Vec<AbortedTransaction> {
        let mut aborted: Vec<_> = self
            .transactions
            .iter()
            .filter_map(|transaction| match transaction.end {
                Some((Marker::Abort, last_offset, last_stable_offset)) => Some(AbortedTransaction {
                    producer_id: transaction.producer_id,
                    first_offset: transaction.first_offset,
                    last_offset,
                    last_stable_offset,
                }),
                _ => None,
            })
            .filter(|aborted| aborted.last_offset >= from && aborted.first_offset < to)
            .collect();
        aborted.sort_by_key(|aborted| aborted.last_offset);
        aborted
    }

    fn store(&mut self, batch: BatchOf, base_offset: i64, transaction: Option<usize>) {
        assert_eq!(base_offset, self.end);
        for index in 0..batch.records {
            let value = Bytes::from(vec![index as u8; batch.value_bytes]);
            self.records.push(Stored { offset: base_offset + index as i64, value, transaction });
        }
        self.end += batch.records as i64;
    }

    async fn step(&mut self, partition: &Partition, random: &mut ChaCha8Rng) {
        let batch = BatchOf { value_bytes: random.random_range(0..200), ..BatchOf::records(random.random_range(1..4)) };
        let who = random.random_range(0..PRODUCERS);
        match random.random_range(0..100) {
            0..10 => {
                let base_offset = put(partition, batch.bytes()).await.base_offset;
                self.store(batch, base_offset, None);
            }
            10..60 => self.write(partition, who, batch).await,
            60..70 => self.retry(partition, who).await,
            70..98 => {
                let marker = if random.random() { Marker::Commit } else { Marker::Abort };
                self.end(partition, who, marker, random.random_range(0..3) == 0).await;
            }
            _ => {
                let before = random.random_range(self.log_start..=self.end);
                partition.delete_records_before(before).await.unwrap();
                self.log_start = self.log_start.max(before);
            }
        }
    }

    /// The first half writes in transactions only; the others also outside of them.
    async fn write(&mut self, partition: &Partition, who: usize, batch: BatchOf) {
        let producer = self.producers[who].clone();
        let is_transactional = who < PRODUCERS / 2 || producer.open.is_some() || batch.value_bytes.is_multiple_of(2);
        let batch = batch.of(who as i64, producer.epoch, producer.sequence);
        let (batch, base_offset) = if is_transactional {
            (batch.transactional(), put_transactional(partition, batch).await)
        } else {
            (batch, put(partition, batch.bytes()).await.base_offset)
        };
        let mut open = producer.open;
        if is_transactional && open.is_none() {
            open = Some(self.transactions.len());
            self.transactions.push(Transaction { producer_id: who as i64, first_offset: base_offset, end: None });
        }
        self.store(batch, base_offset, open);
        let sequence = producer.sequence + batch.records as i32;
        self.producers[who] = Producer { sequence, open, last: Some((batch, base_offset)), ..producer };
    }

    async fn retry(&mut self, partition: &Partition, who: usize) {
        let Some((batch, base_offset)) = self.producers[who].last else { return };
        let again = partition.append_transactional(batch.bytes(), 5, NOW_MS).unwrap();
        assert_eq!((again.base_offset, again.duplicate), (base_offset, true));
    }

    async fn end(&mut self, partition: &Partition, who: usize, marker: Marker, bump: bool) {
        let producer = &mut self.producers[who];
        if bump {
            *producer = Producer { epoch: producer.epoch + 1, open: producer.open, ..Producer::default() };
        }
        let offset = finish(partition, end(who as i64, producer.epoch, marker)).await;
        let ended = producer.open.take();
        assert_eq!(offset, self.end);
        self.end += 1;
        if let Some(index) = ended {
            self.transactions[index].end = Some((marker, offset, 0));
            let stable = self.oldest_open().unwrap_or(offset + 1);
            self.transactions[index].end = Some((marker, offset, stable));
        }
    }

    fn check(&self, partition: &Partition, random: &mut ChaCha8Rng) {
        let stable = self.last_stable_offset();
        assert_eq!(
            (partition.log_start_offset(), partition.last_stable_offset(), partition.high_watermark()),
            (self.log_start, stable, self.end)
        );
        let from = random.random_range(self.log_start..=stable);
        let to = random.random_range(from..=stable);
        assert_eq!(partition.aborted_transactions(from, to).unwrap(), self.expected_aborted(from, to), "{from} {to}");
        let expected = self.committed_from(from);
        assert_eq!(committed_from(partition, from, random.random_range(1..3_000)), expected, "from {from}");
        let beyond = partition.read_isolated(stable, 1000, true, Isolation::Committed).unwrap();
        assert!(beyond.batches.is_empty());
        for (who, producer) in self.producers.iter().enumerate() {
            let open = producer.open.map(|index| self.transactions[index].first_offset);
            assert_eq!(partition.open_transaction(who as i64), open);
        }
    }

    fn expected_aborted(&self, from: i64, to: i64) -> Vec<AbortedTransaction> {
        if from < to { self.aborted(from, to) } else { Vec::new() }
    }
}

/// What may happen to an index file between two lives.
fn damage(path: &Path, random: &mut ChaCha8Rng) {
    let mut content = std::fs::read(path).unwrap();
    match random.random_range(0..6) {
        0 => return std::fs::remove_file(path).unwrap(),
        1 => content.truncate(random.random_range(0..=content.len())),
        2 if !content.is_empty() => {
            let at = random.random_range(0..content.len());
            content[at] ^= 1 << random.random_range(0..8);
        }
        3 => content.extend(vec![random.random::<u8>(); random.random_range(1..100)]),
        _ => return,
    }
    std::fs::write(path, content).unwrap();
}

async fn lives(durability: Durability, count: usize, steps: usize) {
    let mut random = ChaCha8Rng::seed_from_u64(seed());
    let dir = tempfile::tempdir().unwrap();
    let mut model = Model { producers: vec![Producer::default(); PRODUCERS], ..Model::default() };
    for _ in 0..count {
        let (log, partition) = open_log(dir.path(), durability);
        model.check(&partition, &mut random);
        for _ in 0..random.random_range(0..steps) {
            model.step(&partition, &mut random).await;
            if random.random_range(0..8) == 0 {
                model.check(&partition, &mut random);
            }
            if random.random_range(0..20) == 0 {
                log.enforce_retention(NOW_MS);
            }
        }
        model.check(&partition, &mut random);
        if random.random() {
            log.close().await.unwrap();
        }
        drop((log, partition));
        if random.random() {
            files(&dir.path().join("topic-0"), ".txnindex").iter().for_each(|path| damage(path, &mut random));
        }
    }
}

#[tokio::test]
async fn readers_of_committed_records_see_exactly_those_through_all_lives_with_durability_fsync() {
    lives(Durability::Fsync, 20, 60).await;
}

#[tokio::test]
async fn readers_of_committed_records_see_exactly_those_through_all_lives_with_durability_os() {
    lives(Durability::Os, 40, 120).await;
}

const CHILD_DIRECTORY: &str = "FINSTREAM_TEST_TRANSACTIONS_CHILD";
const CHILD_MODE: &str = "FINSTREAM_TEST_TRANSACTIONS_MODE";

fn durability(mode: &str) -> Durability {
    if mode == "os" { Durability::Os } else { Durability::Fsync }
}

/// Not a test by itself: the process that is killed. Aborts what its last life left open, as a coordinator would, then
/// writes transactions and tells where each ended.
#[tokio::test]
async fn child_that_writes_transactions_until_it_is_killed() {
    let Ok(directory) = std::env::var(CHILD_DIRECTORY) else { return };
    let (_log, partition) = open_log(directory.as_ref(), durability(&std::env::var(CHILD_MODE).unwrap()));
    let mut random = ChaCha8Rng::seed_from_u64(rand::random());
    let mut producers: BTreeMap<i64, (i16, i32)> = BTreeMap::new();
    for known in partition.active_producers() {
        let epoch = known.epoch + 1;
        finish(&partition, end(known.producer_id, epoch, Marker::Abort)).await;
        producers.insert(known.producer_id, (epoch, 0));
    }
    loop {
        let who = random.random_range(0..PRODUCERS as i64);
        let (epoch, sequence) = producers.entry(who).or_default();
        if random.random_range(0..3) > 0 {
            let batch = BatchOf { value_bytes: random.random_range(0..300), ..BatchOf::records(2) };
            put_transactional(&partition, batch.of(who, *epoch, *sequence)).await;
            *sequence += 2;
        } else {
            let marker = if random.random() { Marker::Commit } else { Marker::Abort };
            let offset = finish(&partition, EndTransaction { coordinator_epoch: 1, ..end(who, *epoch, marker) }).await;
            std::io::stdout().write_all(format!("ended {offset}\n").as_bytes()).unwrap();
        }
    }
}

/// Lets a child write until `lines` ends were told, kills it, and returns the last one.
fn life(directory: &Path, mode: &str, lines: usize) -> i64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "transactions_model::child_that_writes_transactions_until_it_is_killed", "--nocapture"])
        .args(["--test-threads=1"])
        .env(CHILD_DIRECTORY, directory)
        .env(CHILD_MODE, mode)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let ends = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut ends = ends.filter_map(|line| line.split("ended ").nth(1)?.parse::<i64>().ok());
    let seen = ends.by_ref().take(lines).last();
    child.kill().unwrap();
    child.wait().unwrap();
    ends.last().or(seen).expect("the child ended by itself")
}

/// The committed records and the last stable offset, worked out from all that lies in the log.
fn worked_out(partition: &Partition) -> (Vec<(i64, Bytes)>, i64) {
    let mut open: BTreeMap<i64, Vec<(i64, Bytes)>> = BTreeMap::new();
    let mut committed = Vec::new();
    let mut offset = 0;
    while offset < partition.high_watermark() {
        let read = partition.read(offset, 100_000, true).unwrap();
        offset = read.end_offset().unwrap();
        let mut bytes = read.batches;
        while !bytes.is_empty() {
            for record in RecordBatchDecoder::decode(&mut bytes).unwrap().records {
                if !record.control {
                    open.entry(record.producer_id).or_default().push((record.offset, record.value.unwrap()));
                } else if let Some(ended) = open.remove(&record.producer_id)
                    && !is_abort(&record)
                {
                    committed.extend(ended);
                }
            }
        }
    }
    let stable = open.values().map(|records| records[0].0).min().unwrap_or(offset);
    committed.retain(|(offset, _)| *offset < stable);
    committed.sort();
    (committed, stable)
}

fn kill_and_compare(mode: &str) {
    let mut random = ChaCha8Rng::seed_from_u64(seed());
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..5 {
        let last_end = life(dir.path(), mode, random.random_range(1..150));
        if random.random() {
            files(&dir.path().join("topic-0"), ".txnindex").iter().for_each(|path| damage(path, &mut random));
        }
        for _ in 0..2 {
            let (log, partition) = open_log(dir.path(), durability(mode));
            assert!(partition.high_watermark() > last_end);
            let (committed, stable) = worked_out(&partition);
            assert_eq!(partition.last_stable_offset(), stable);
            assert!(committed_from(&partition, 0, random.random_range(1..20_000)) == committed);
            drop((log, partition));
        }
    }
}

#[test]
fn after_kill_9_readers_of_committed_records_see_exactly_those_with_durability_fsync() {
    kill_and_compare("fsync");
}

#[test]
fn after_kill_9_readers_of_committed_records_see_exactly_those_with_durability_os() {
    kill_and_compare("os");
}
