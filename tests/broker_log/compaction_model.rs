//! Random records, compaction and restarts against a model: what is kept must be what was written, where it was written.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use finstream::broker::log::{Durability, Log, Partition, PartitionConfig};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::compaction::{DELETE_RETENTION_MS, compact, compacted, roll};
use crate::support::*;

const STEPS: usize = 160;
const KEYS: u32 = 30;

/// What was written, and when compaction could first have met it.
#[derive(Default)]
struct Model {
    written: BTreeMap<i64, Written>,
    last: HashMap<Bytes, i64>,
    /// By offset: the wall clock of the first pass after the append.
    first_pass_ms: HashMap<i64, i64>,
    now_ms: i64,
    sequences: HashMap<i64, i32>,
}

impl Model {
    fn record(&self, random: &mut StdRng) -> Written {
        let key = format!("key-{}", random.random_range(0..KEYS).min(random.random_range(0..KEYS)));
        let value = random.random_bool(0.8).then(|| vec![random.random(); random.random_range(0..120)].into());
        let mut headers = Vec::new();
        put_varint(&mut headers, 1);
        put_varint(&mut headers, 1);
        headers.push(b'h');
        put_varint(&mut headers, -1);
        let headers = if random.random_bool(0.3) { headers.into() } else { Bytes::from_static(&[0]) };
        // Producers' clocks are not ours, and not in order.
        let timestamp = NOW_MS + random.random_range(-5_000..5_000);
        Written { key: Some(key.into_bytes().into()), value, timestamp, headers }
    }

    async fn append(&mut self, partition: &Partition, random: &mut StdRng) {
        let records: Vec<Written> = (0..random.random_range(1..12)).map(|_| self.record(random)).collect();
        let producer = random.random_bool(0.6).then(|| random.random_range(0..3));
        let stamp = producer.map(|id| (id, 0, self.sequences.get(&id).copied().unwrap_or(0)));
        let batch = batch_of(&records, random.random_range(0..5), stamp);
        let appended = partition.append(batch.clone(), 5, self.now_ms).unwrap();
        partition.durable(&appended).await.unwrap();
        if let Some(id) = producer {
            *self.sequences.entry(id).or_default() += records.len() as i32;
            // A retry is still known, whatever is left of the batch.
            assert!(partition.append(batch, 5, self.now_ms).unwrap().duplicate);
        }
        for (offset, record) in (appended.base_offset..).zip(records) {
            self.last.insert(record.key.clone().unwrap(), offset);
            self.written.insert(offset, record);
        }
    }

    fn compact(&mut self, log: &Log) {
        compact(log, self.now_ms);
        for offset in self.written.keys() {
            self.first_pass_ms.entry(*offset).or_insert(self.now_ms);
        }
    }

    fn check(&self, partition: &Partition) {
        let found = records_from(partition, 0);
        assert_eq!(partition.high_watermark(), self.written.len() as i64);
        for (offset, record) in &found {
            assert_eq!(record, &self.written[offset], "at {offset}");
        }
        let found: HashMap<i64, &Written> = found.iter().map(|(offset, record)| (*offset, record)).collect();
        for (key, last) in &self.last {
            if self.written[last].value.is_some() {
                assert!(found.contains_key(last), "the last record of {key:?}, at {last}, is gone");
            } else if !found.contains_key(last) {
                let met_ms = self.first_pass_ms[last];
                assert!(self.now_ms >= met_ms + DELETE_RETENTION_MS, "a tombstone at {last} went before its time");
                let older = self.written.range(..last).filter(|(_, record)| record.key.as_ref() == Some(key));
                for (offset, _) in older {
                    assert!(!found.contains_key(offset), "{key:?} came back to life at {offset}");
                }
            }
        }
        for offset in 0..partition.high_watermark() {
            if offset % 7 != self.now_ms % 7 {
                continue;
            }
            let next = records_of(&partition.read(offset, 1, true).unwrap().batches);
            let next = next.into_iter().map(|(found, _)| found).find(|found| *found >= offset);
            let expected = found.keys().copied().filter(|found| *found >= offset).min();
            // What is left of a batch may lie before the offset; then the next batch follows.
            assert!(next.is_none() || next == expected, "read from {offset} gave {next:?} for {expected:?}");
            let time = NOW_MS - 5_000 + (offset * 97) % 10_000;
            let at_or_after = found.iter().filter(|(_, record)| record.timestamp >= time);
            let expected = at_or_after.map(|(offset, record)| (*offset, record.timestamp)).min();
            assert_eq!(partition.offset_for_timestamp(time).unwrap(), expected, "first at or after {time}");
        }
        let largest = found.iter().map(|(offset, record)| (record.timestamp, -offset)).max();
        let largest = largest.map(|(timestamp, offset)| (-offset, timestamp));
        assert_eq!(partition.offset_of_max_timestamp().unwrap(), largest);
    }
}

async fn run(seed: u64, durability: Durability) {
    eprintln!("seed {seed}, {durability:?}");
    let mut random = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path(), settings(durability)).unwrap().0;
    let config = PartitionConfig { segment_bytes_max: random.random_range(300..4_000), ..compacted() };
    let mut partition = log.create_partition(id(0), "topic-0", config.clone()).unwrap();
    let mut model = Model { now_ms: NOW_MS, ..Model::default() };
    for step in 0..STEPS {
        match random.random_range(0..20) {
            0..=11 => model.append(&partition, &mut random).await,
            12..=14 => model.compact(&log),
            15 => {
                roll(&log, &partition, model.now_ms).await;
                model.compact(&log);
            }
            16..=17 => model.now_ms += random.random_range(0..DELETE_RETENTION_MS),
            _ => {
                if random.random_bool(0.5) {
                    log.close().await.unwrap();
                }
                drop((partition, log));
                log = Log::open(dir.path(), settings(durability)).unwrap().0;
                partition = log.partition(id(0)).unwrap();
                partition.set_config(config.clone());
            }
        }
        if step % 8 == 7 {
            model.check(&partition);
        }
    }
    roll(&log, &partition, model.now_ms).await;
    model.compact(&log);
    model.now_ms += DELETE_RETENTION_MS;
    model.append(&partition, &mut random).await;
    roll(&log, &partition, model.now_ms).await;
    model.compact(&log);
    model.check(&partition);
    // Nothing is left but the last record of each key, and the last batch.
    let left = records_from(&partition, 0).len();
    assert!(left <= KEYS as usize + 12, "{left} records are left");
}

#[tokio::test]
async fn whatever_is_compacted_when_ever_each_key_keeps_its_last_record_where_it_was() {
    let given = std::env::var("FINSTREAM_TEST_SEED").ok().and_then(|text| text.parse::<u64>().ok());
    for round in 0..6 {
        let seed = given.map_or_else(rand::random, |given| given + round);
        run(seed, Durability::Fsync).await;
        run(seed, Durability::Os).await;
    }
}
