//! FetchResponse, versions 4-17, as parts: the fields as bytes, and the records where they lie.
//!
//! `kafka-protocol` writes the same fields, but wants the records in memory and copies them. That both write the same
//! bytes is tested for all versions. v5 adds the log start offset; v7 error and session; v11 the preferred replica; v12
//! is flexible; v13 has ids instead of names (KIP-516).

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::{FetchResponse, TopicName};
use kafka_protocol::protocol::HeaderVersion;
use uuid::Uuid;

use crate::broker::answer::Part;
use crate::broker::frame::{FrameError, Head};
use crate::broker::log::{Batches, FileRange};

/// A partition's fields (apart from records and tagged ones), and its records.
pub(super) struct Fetched {
    pub data: PartitionData,
    pub batches: Batches,
}

/// What was found of one topic.
pub(super) struct FetchedTopic {
    pub name: TopicName,
    pub id: Uuid,
    pub partitions: Vec<Fetched>,
}

/// One answer with its length and header. `session`: error code and id of the session.
pub(super) fn encode(head: &Head, session: (i16, i32), topics: &[FetchedTopic]) -> Result<Vec<Part>, FrameError> {
    let version = head.version;
    let mut writer = Writer { out: BytesMut::new(), version, is_flexible: version >= 12, files: Vec::new() };
    // Set below, when it is known.
    writer.out.put_i32(0);
    writer.out.put_i32(head.correlation_id);
    if FetchResponse::header_version(version) >= 1 {
        writer.no_tags();
    }
    writer.response(session, topics);
    writer.finish().ok_or_else(|| {
        let reason = "it is longer than a length can say".to_owned();
        FrameError::Unencodable { api: head.api.name, version, reason }
    })
}

struct Writer {
    out: BytesMut,
    version: i16,
    is_flexible: bool,
    /// Where in `out` the records of a file go.
    files: Vec<(usize, FileRange)>,
}

impl Writer {
    fn response(&mut self, (error_code, session_id): (i16, i32), topics: &[FetchedTopic]) {
        let throttle_time_ms = 0;
        self.out.put_i32(throttle_time_ms);
        if self.version >= 7 {
            self.out.put_i16(error_code);
            self.out.put_i32(session_id);
        }
        self.length(topics.len());
        for topic in topics {
            self.topic(topic);
        }
        self.no_tags();
    }

    fn topic(&mut self, topic: &FetchedTopic) {
        match self.version {
            ..=11 => {
                self.out.put_u16(topic.name.len() as u16);
                self.out.put_slice(topic.name.as_bytes());
            }
            12 => {
                self.length(topic.name.len());
                self.out.put_slice(topic.name.as_bytes());
            }
            _ => self.out.put_u128(topic.id.as_u128()),
        }
        self.length(topic.partitions.len());
        for partition in &topic.partitions {
            self.partition(partition);
        }
        self.no_tags();
    }

    fn partition(&mut self, Fetched { data, batches }: &Fetched) {
        self.out.put_i32(data.partition_index);
        self.out.put_i16(data.error_code);
        self.out.put_i64(data.high_watermark);
        self.out.put_i64(data.last_stable_offset);
        if self.version >= 5 {
            self.out.put_i64(data.log_start_offset);
        }
        match &data.aborted_transactions {
            None if self.is_flexible => self.out.put_u8(0),
            None => self.out.put_i32(-1),
            Some(aborted) => {
                self.length(aborted.len());
                for transaction in aborted {
                    self.out.put_i64(transaction.producer_id.0);
                    self.out.put_i64(transaction.first_offset);
                    self.no_tags();
                }
            }
        }
        if self.version >= 11 {
            self.out.put_i32(data.preferred_read_replica.0);
        }
        self.length(batches.len());
        match batches {
            Batches::Copied(bytes) => self.out.put_slice(bytes),
            Batches::InFile(range) => self.files.push((self.out.len(), range.clone())),
        }
        self.no_tags();
    }

    /// Of an array, a string or bytes.
    fn length(&mut self, length: usize) {
        if !self.is_flexible {
            // An answer that is too long for it is refused at the end.
            return self.out.put_i32(length as i32);
        }
        let mut rest = length as u64 + 1;
        while rest >= 0x80 {
            self.out.put_u8(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.out.put_u8(rest as u8);
    }

    fn no_tags(&mut self) {
        if self.is_flexible {
            self.out.put_u8(0);
        }
    }

    /// The parts in order; none when the whole is too long.
    fn finish(mut self) -> Option<Vec<Part>> {
        let in_files: usize = self.files.iter().map(|(_, range)| range.len()).sum();
        let length = i32::try_from(self.out.len() - 4 + in_files).ok()?;
        self.out[..4].copy_from_slice(&length.to_be_bytes());
        let fields = self.out.freeze();
        let mut parts = Vec::with_capacity(2 * self.files.len() + 1);
        let mut from = 0;
        for (at, range) in self.files {
            parts.push(Part::Bytes(fields.slice(from..at)));
            parts.push(Part::File(range));
            from = at;
        }
        let rest: Bytes = fields.slice(from..);
        if !rest.is_empty() {
            parts.push(Part::Bytes(rest));
        }
        Some(parts)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use kafka_protocol::messages::fetch_response::{AbortedTransaction, FetchableTopicResponse};
    use kafka_protocol::messages::{ApiKey, ProducerId};
    use kafka_protocol::protocol::StrBytes;
    use rand::rngs::ChaCha8Rng;
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::broker::dispatch;
    use crate::broker::versions::Api;

    fn batches(random: &mut ChaCha8Rng) -> Bytes {
        // Lengths around those where the length's own length changes.
        let bytes = *[0, 1, 126, 127, 128, 300, 16_382, 16_383, 16_384].get(random.random_range(0..9)).unwrap();
        Bytes::from(vec![random.random::<u8>(); bytes])
    }

    fn partition(random: &mut ChaCha8Rng, version: i16) -> PartitionData {
        let aborted = |random: &mut ChaCha8Rng| {
            let producer_id = ProducerId(random.random());
            AbortedTransaction::default().with_producer_id(producer_id).with_first_offset(random.random())
        };
        let aborted = match random.random_range(0..3) {
            0 => None,
            1 => Some(Vec::new()),
            _ => Some((0..random.random_range(1..140)).map(|_| aborted(random)).collect()),
        };
        let data = PartitionData::default()
            .with_partition_index(random.random())
            .with_error_code(random.random())
            .with_high_watermark(random.random())
            .with_last_stable_offset(random.random())
            .with_log_start_offset(random.random())
            .with_aborted_transactions(aborted);
        let replica = if version >= 11 { random.random() } else { -1 };
        data.with_preferred_read_replica(replica.into()).with_records(Some(batches(random)))
    }

    /// The same answer, once for `kafka-protocol` and once for us.
    fn answer(random: &mut ChaCha8Rng, version: i16) -> (FetchResponse, Vec<FetchedTopic>) {
        let (mut theirs, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..random.random_range(0..4) {
            let name = "t".repeat(random.random_range(1..250));
            let (name, id) = (TopicName(StrBytes::from_string(name)), Uuid::from_u128(random.random()));
            let partitions: Vec<PartitionData> =
                (0..random.random_range(0..140)).map(|_| partition(random, version)).collect();
            let fetched = |data: &PartitionData| {
                let batches = Batches::Copied(data.records.clone().unwrap());
                Fetched { data: data.clone(), batches }
            };
            ours.push(FetchedTopic { name: name.clone(), id, partitions: partitions.iter().map(fetched).collect() });
            let topic = FetchableTopicResponse::default().with_topic(name).with_topic_id(id);
            theirs.push(topic.with_partitions(partitions));
        }
        (FetchResponse::default().with_responses(theirs), ours)
    }

    #[test]
    fn every_version_is_written_byte_by_byte_as_kafka_protocol_writes_it() {
        let seed: u64 = rand::random();
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let api = Api::find(ApiKey::Fetch as i16).unwrap();
        for version in 4..=17 {
            for round in 0..8 {
                let head = Head { api, version, correlation_id: random.random(), client_id: String::new() };
                let (error_code, session_id) = if version >= 7 { random.random() } else { (0, 0) };
                let (theirs, ours) = answer(&mut random, version);
                let theirs = theirs.with_error_code(error_code).with_session_id(session_id);
                let parts = encode(&head, (error_code, session_id), &ours).unwrap();
                let [Part::Bytes(ours)] = parts.as_slice() else { panic!("records in memory make one part") };
                assert!(
                    *ours == dispatch::encode(&head, &theirs).unwrap(),
                    "seed {seed}, version {version}, round {round}"
                );
            }
        }
    }
}
