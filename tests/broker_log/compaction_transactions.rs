//! Compaction of a topic that is written to in transactions, against a model: readers of committed records see of each key
//! the last committed one, and nothing of what has ended stays for ever. The seed is printed.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;

use bytes::{Bytes, BytesMut};
use finstream::broker::log::{Batches, Durability, Isolation, Log, Marker, Partition, PartitionConfig};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use crate::compaction::{DELETE_RETENTION_MS, compact, compacted, roll};
use crate::support::*;
use crate::transactions::{end, finish};

const PRODUCERS: i64 = 5;
/// Writes outside of transactions.
const PLAIN: i64 = 0;
const KEYS: u32 = 12;
const STEPS: usize = 220;
const TRANSACTIONAL_BIT: u8 = 0x10;
const CONTROL_BIT: u8 = 0x20;
const HORIZON_BIT: u8 = 0x40;

fn transactional(batch: &Bytes) -> Bytes {
    let mut batch = BytesMut::from(&batch[..]);
    batch[22] |= TRANSACTIONAL_BIT;
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch.freeze()
}

async fn put_in_transaction(partition: &Partition, producer_id: i64, sequence: i32, records: &[Written]) -> i64 {
    let batch = transactional(&batch_of(records, 0, Some((producer_id, 0, sequence))));
    let appended = partition.append_transactional(batch, 5, NOW_MS).unwrap();
    partition.durable(&appended).await.unwrap();
    appended.base_offset
}

fn split(mut bytes: Bytes) -> Vec<Bytes> {
    let mut batches = Vec::new();
    while !bytes.is_empty() {
        let length = i32::from_be_bytes(bytes[8..12].try_into().unwrap()) as usize + 12;
        batches.push(bytes.split_to(length));
    }
    batches
}

fn number(batch: &[u8], at: usize) -> i64 {
    i64::from_be_bytes(batch[at..at + 8].try_into().unwrap())
}

fn end_of(batch: &[u8]) -> i64 {
    number(batch, 0) + i64::from(i32::from_be_bytes(batch[23..27].try_into().unwrap())) + 1
}

/// All batches, whoever may read them.
fn all_batches(partition: &Partition) -> Vec<Bytes> {
    let (mut offset, mut found) = (partition.log_start_offset(), Vec::new());
    while offset < partition.high_watermark() {
        let batches = split(partition.read(offset, 1 << 16, true).unwrap().batches);
        offset = end_of(batches.last().unwrap());
        found.extend(batches);
    }
    found
}

/// What a client that reads committed records is shown, by the rules of Kafka's own consumer.
fn shown(partition: &Partition, mut offset: i64, max_bytes: usize) -> Vec<(i64, Written)> {
    let mut shown = Vec::new();
    loop {
        let (found, mut aborted) =
            partition.find_with_aborted(offset, max_bytes, true, 0, Isolation::Committed).unwrap();
        let bytes = match found.batches {
            Batches::Copied(bytes) => bytes,
            Batches::InFile(range) => range.read().unwrap(),
        };
        if bytes.is_empty() {
            assert!(offset >= found.last_stable_offset);
            return shown;
        }
        aborted.sort_by_key(|transaction| std::cmp::Reverse(transaction.first_offset));
        let mut skipped = HashSet::new();
        for batch in split(bytes) {
            let (attributes, producer_id) = (batch[22], number(&batch, 43));
            while let Some(begun) = aborted.pop_if(|next| next.first_offset < end_of(&batch)) {
                skipped.insert(begun.producer_id);
            }
            let records = records_of(&batch);
            if attributes & CONTROL_BIT != 0 {
                if records[0].1.key.as_ref().unwrap()[2..] == [0, 0] {
                    skipped.remove(&producer_id);
                }
            } else if attributes & TRANSACTIONAL_BIT == 0 || !skipped.contains(&producer_id) {
                shown.extend(records.into_iter().filter(|(found, _)| *found >= offset));
            }
            offset = offset.max(end_of(&batch));
        }
    }
}

fn control_batches(partition: &Partition) -> Vec<Bytes> {
    all_batches(partition).into_iter().filter(|batch| batch[22] & CONTROL_BIT != 0).collect()
}

#[tokio::test]
async fn aborted_records_go_committed_ones_count_and_a_marker_goes_long_after_its_records() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let partition = log.create_partition(id(0), "topic-0", compacted()).unwrap();
    let one = |key: &str, value: Option<&str>| [Written::of(key, value)];
    put(&partition, batch_of(&one("a", Some("old")), 0, None)).await;
    put(&partition, batch_of(&one("b", Some("old")), 0, None)).await;
    put_in_transaction(&partition, 1, 0, &one("a", Some("committed"))).await;
    put_in_transaction(&partition, 2, 0, &one("b", None)).await;
    put_in_transaction(&partition, 2, 1, &one("c", Some("aborted"))).await;
    roll(&log, &partition, NOW_MS).await;
    compact(&log, NOW_MS);
    assert_eq!(all_batches(&partition).len(), 5, "nobody knows yet how they end");
    finish(&partition, end(2, 0, Marker::Abort)).await;
    let committed = finish(&partition, end(1, 0, Marker::Commit)).await;
    put(&partition, batch_of(&one("end", Some("v")), 0, None)).await;
    roll(&log, &partition, NOW_MS).await;
    compact(&log, NOW_MS);
    let keys = |partition: &Partition| -> Vec<(i64, Bytes)> {
        shown(partition, 0, 1 << 16).into_iter().map(|(offset, record)| (offset, record.key.unwrap())).collect()
    };
    assert_eq!(keys(&partition), [(1, "b".into()), (2, "a".into()), (7, "end".into())]);
    let markers = control_batches(&partition);
    assert_eq!(markers.len(), 2, "records that went in this pass still hold their marker");
    assert!(markers.iter().all(|marker| marker[22] & HORIZON_BIT == 0));
    // The aborted one's time begins with the next pass, the committed one's record is still there.
    let dirty = async |now_ms| {
        put(&partition, batch_of(&one("end", Some("v")), 0, None)).await;
        roll(&log, &partition, now_ms).await;
        compact(&log, now_ms);
    };
    dirty(NOW_MS).await;
    let horizons: Vec<bool> = control_batches(&partition).iter().map(|marker| marker[22] & HORIZON_BIT != 0).collect();
    assert_eq!(horizons, [true, false]);
    dirty(NOW_MS + DELETE_RETENTION_MS - 1).await;
    assert_eq!(control_batches(&partition).len(), 2);
    dirty(NOW_MS + DELETE_RETENTION_MS).await;
    let left = control_batches(&partition);
    assert_eq!(left.iter().map(|marker| number(marker, 0)).collect::<Vec<_>>(), [committed]);
    assert_eq!(partition.aborted_transactions(0, partition.high_watermark()).unwrap(), []);
    // What the last batches of a producer told is remembered though they are gone.
    let next = transactional(&batch_of(&one("d", Some("v")), 0, Some((2, 0, 5))));
    assert!(partition.append_transactional(next, 5, NOW_MS).is_err(), "sequence 2 is the next one");
    assert_eq!(put_in_transaction(&partition, 2, 2, &one("d", Some("v"))).await, partition.high_watermark() - 1);
}

struct Record {
    written: Written,
    transaction: Option<usize>,
    first_pass_ms: Option<i64>,
}

/// What was written, how it ended, and when compaction could first have met it.
struct Model {
    records: BTreeMap<i64, Record>,
    ends: Vec<Option<Marker>>,
    open: HashMap<i64, usize>,
    sequences: HashMap<i64, i32>,
    now_ms: i64,
}

impl Model {
    fn is_committed(&self, record: &Record) -> bool {
        record.transaction.is_none_or(|index| self.ends[index] == Some(Marker::Commit))
    }

    async fn write(&mut self, partition: &Partition, random: &mut ChaCha8Rng) {
        let records: Vec<Written> = (0..random.random_range(1..4))
            .map(|_| {
                let value = random.random_bool(0.8).then(|| vec![random.random(); random.random_range(0..150)].into());
                Written { value, ..Written::of(&format!("k{}", random.random_range(0..KEYS)), None) }
            })
            .collect();
        let producer = random.random_range(0..PRODUCERS);
        let sequence = self.sequences.get(&producer).copied().unwrap_or(0);
        *self.sequences.entry(producer).or_default() += records.len() as i32;
        let (base_offset, transaction) = if producer == PLAIN {
            let batch = batch_of(&records, random.random_range(0..5), Some((producer, 0, sequence)));
            (put(partition, batch).await.base_offset, None)
        } else {
            let next = self.ends.len();
            let transaction = *self.open.entry(producer).or_insert(next);
            if transaction == next {
                self.ends.push(None);
            }
            (put_in_transaction(partition, producer, sequence, &records).await, Some(transaction))
        };
        for (offset, written) in (base_offset..).zip(records) {
            self.records.insert(offset, Record { written, transaction, first_pass_ms: None });
        }
    }

    /// Of a transaction that is open, or of one that never began.
    async fn end(&mut self, partition: &Partition, producer: i64, marker: Marker) {
        finish(partition, end(producer, 0, marker)).await;
        if let Some(index) = self.open.remove(&producer) {
            self.ends[index] = Some(marker);
        }
    }

    fn compact(&mut self, log: &Log) {
        compact(log, self.now_ms);
        let now_ms = self.now_ms;
        self.records.values_mut().for_each(|record| _ = record.first_pass_ms.get_or_insert(now_ms));
    }

    fn check(&self, partition: &Partition, max_bytes: usize) {
        let stable = partition.last_stable_offset();
        let open = self.open.values().map(|index| Some(*index)).collect::<HashSet<_>>();
        let first_open = self.records.iter().find(|(_, record)| open.contains(&record.transaction));
        assert_eq!(stable, first_open.map_or(partition.high_watermark(), |(offset, _)| *offset));
        let shown: BTreeMap<i64, Written> = shown(partition, 0, max_bytes).into_iter().collect();
        for (offset, found) in &shown {
            let record = &self.records[offset];
            assert!(*offset < stable && self.is_committed(record), "offset {offset} was not committed");
            assert_eq!(found, &record.written, "at {offset}");
        }
        let mut last: HashMap<&Bytes, i64> = HashMap::new();
        for (offset, record) in self.records.range(..stable).filter(|(_, record)| self.is_committed(record)) {
            last.insert(record.written.key.as_ref().unwrap(), *offset);
        }
        for (key, last) in last {
            if shown.contains_key(&last) {
                continue;
            }
            let record = &self.records[&last];
            assert!(record.written.value.is_none(), "the last committed record of {key:?}, at {last}, is gone");
            let met_ms = record.first_pass_ms.expect("a tombstone that no pass has met");
            assert!(self.now_ms >= met_ms + DELETE_RETENTION_MS, "the tombstone at {last} went before its time");
            let older = shown.range(..last).find(|(_, record)| record.key.as_ref() == Some(key));
            assert_eq!(older, None, "{key:?} came back to life");
        }
        // A reader that begins in the middle is shown the same.
        let from = stable / 2;
        let some: Vec<i64> = self::shown(partition, from, max_bytes).into_iter().map(|(offset, _)| offset).collect();
        assert_eq!(some, shown.range(from..).map(|(offset, _)| *offset).collect::<Vec<_>>());
    }
}

fn open_log(dir: &Path, durability: Durability, config: &PartitionConfig) -> (Log, Partition) {
    let log = Log::open(dir, settings(durability)).unwrap().0;
    let partition = log.create_partition(id(0), "topic-0", config.clone()).unwrap();
    partition.set_config(config.clone());
    (log, partition)
}

async fn run(seed: u64, durability: Durability) {
    eprintln!("FINSTREAM_TEST_SEED={seed}, {durability:?}");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let config = PartitionConfig { segment_bytes_max: random.random_range(300..3_000), ..compacted() };
    let (mut log, mut partition) = open_log(dir.path(), durability, &config);
    let mut model = Model {
        records: BTreeMap::new(),
        ends: Vec::new(),
        open: HashMap::new(),
        sequences: HashMap::new(),
        now_ms: NOW_MS,
    };
    let marker = |random: &mut ChaCha8Rng| if random.random() { Marker::Commit } else { Marker::Abort };
    for step in 0..STEPS {
        match random.random_range(0..24) {
            0..12 => model.write(&partition, &mut random).await,
            12..17 => {
                let producer = random.random_range(1..PRODUCERS);
                let how = marker(&mut random);
                model.end(&partition, producer, how).await;
            }
            17..19 => model.compact(&log),
            19..21 => {
                roll(&log, &partition, model.now_ms).await;
                model.compact(&log);
            }
            21..23 => model.now_ms += random.random_range(0..DELETE_RETENTION_MS),
            _ => {
                if random.random_bool(0.5) {
                    log.close().await.unwrap();
                }
                drop((partition, log));
                (log, partition) = open_log(dir.path(), durability, &config);
            }
        }
        if step % 8 == 7 {
            model.check(&partition, random.random_range(1..6_000));
        }
    }
    for producer in 1..PRODUCERS {
        model.end(&partition, producer, Marker::Abort).await;
    }
    for _ in 0..4 {
        model.write(&partition, &mut random).await;
        for producer in 1..PRODUCERS {
            let how = marker(&mut random);
            model.end(&partition, producer, how).await;
        }
        roll(&log, &partition, model.now_ms).await;
        model.compact(&log);
        model.check(&partition, 1 << 16);
        model.now_ms += DELETE_RETENTION_MS;
    }
    // Nothing of what ended long ago is left but the last record of each key with the markers of those.
    let left: BTreeSet<i64> = shown(&partition, 0, 1 << 16).into_iter().map(|(offset, _)| offset).collect();
    let markers = control_batches(&partition).len();
    assert!(left.len() <= KEYS as usize + 12, "{} records are left", left.len());
    assert!(markers <= KEYS as usize + 5 * PRODUCERS as usize, "{markers} markers are left");
}

#[tokio::test]
async fn whatever_is_compacted_when_ever_readers_see_of_each_key_the_last_committed_record() {
    let given = std::env::var("FINSTREAM_TEST_SEED").ok().and_then(|text| text.parse::<u64>().ok());
    for round in 0..6 {
        let seed = given.map_or_else(rand::random, |given| given.wrapping_add(round));
        run(seed, Durability::Fsync).await;
        run(seed, Durability::Os).await;
    }
}
