//! Produce without and with an idempotent producer: what is appended, and every refusal.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::produce_request::PartitionProduceData;
use kafka_protocol::messages::{DescribeProducersRequest, InitProducerIdRequest, ProduceRequest, ProducerId};

use super::batch::{Batch, TIME_MS, forge, forge_sealed, old_message, packed, with_magic};
use super::requests::{TIMEOUT_MS, fetch, from, list_offsets, metadata, produce};
use super::scenario::{Scenario, scenario};
use super::session::{Session, topic_name};
use super::wire::frame;

pub const PLAIN: &[Scenario] = &[
    scenario("Produce in each version", |s| {
        let topic = s.topic("t", 1);
        s.each(|_| produce(&topic, 0, Some(Batch::of(3).bytes())));
        read(s, &topic);
    }),
    scenario("Produce with acks 1", |s| {
        let topic = s.topic("t", 1);
        s.each(|_| produce(&topic, 0, Some(Batch::of(2).bytes())).with_acks(1));
    }),
    scenario("Produce with acks 0 is not answered", |s| {
        let topic = s.topic("t", 1);
        for version in s.versions::<ProduceRequest>() {
            let waiting = s.send_at(version, produce(&topic, 0, Some(Batch::of(2).bytes())).with_acks(0));
            s.expect_no_answer(waiting);
        }
        s.until("all is durable", |s| {
            let end = 2 * s.versions::<ProduceRequest>().count() as i64;
            s.ask_at(4, list_offsets(&topic, &[(0, -1)])).topics[0].partitions[0].offset == end
        });
        read(s, &topic);
    }),
    scenario("Produce with acks 0 to a topic that there is not", |s| {
        let name = s.name("none");
        let waiting = s.send_at(9, produce(&name, 0, Some(Batch::of(1).bytes())).with_acks(0));
        s.expect_no_answer(waiting);
    }),
    scenario("Produce with acks that cannot be", |s| {
        let topic = s.topic("t", 1);
        for acks in [2, -2, i16::MAX] {
            s.ask(produce(&topic, 0, Some(Batch::of(1).bytes())).with_acks(acks));
        }
        read(s, &topic);
    }),
    scenario("Produce to a topic and to partitions that there are not", |s| {
        let (topic, none) = (s.topic("t", 1), s.name("none"));
        s.each(|_| produce(&none, 0, Some(Batch::of(1).bytes())));
        for partition in [1, -1, i32::MAX] {
            s.ask(produce(&topic, partition, Some(Batch::of(1).bytes())));
        }
    }),
    scenario("Produce to names that none can have", |s| {
        for name in ["", "a b", ".."] {
            s.ask(produce(name, 0, Some(Batch::of(1).bytes())));
        }
    }),
    scenario("Produce of nothing", |s| {
        let topic = s.topic("t", 1);
        s.ask_at(9, produce(&topic, 0, Some(Bytes::new())));
        s.ask(ProduceRequest::default().with_acks(-1).with_timeout_ms(TIMEOUT_MS));
    }),
    scenario("Produce of null where records belong", |s| {
        let topic = s.topic("t", 1);
        for version in [8, 9] {
            s.throw(&format!("Produce v{version}"), &frame(&produce(&topic, 0, None), version, 1));
        }
    }),
    scenario("Produce of a batch whose checksum is wrong", |s| {
        let topic = s.topic("t", 1);
        let batch = Batch::of(2).bytes();
        s.each(|_| produce(&topic, 0, Some(forge(&batch, 17, &[1, 2, 3, 4]))));
        s.ask(produce(&topic, 0, Some(forge(&batch, batch.len() - 1, &[9]))));
        read(s, &topic);
    }),
    scenario("Produce of batches whose format is another one", |s| {
        let topic = s.topic("t", 1);
        for magic in [0, 1] {
            s.ask(produce(&topic, 0, Some(old_message(magic))));
        }
        for magic in [3, 17, 255] {
            s.ask(produce(&topic, 0, Some(with_magic(&Batch::of(1).bytes(), magic))));
        }
    }),
    scenario("Produce of a batch cut short", |s| {
        let topic = s.topic("t", 1);
        let batch = Batch::of(2).bytes();
        for length in [1, 11, 16, 17, 60, batch.len() - 1] {
            s.ask(produce(&topic, 0, Some(batch.slice(..length))));
        }
        read(s, &topic);
    }),
    scenario("Produce of two batches in one partition", |s| {
        let topic = s.topic("t", 1);
        let batch = Batch::of(2).bytes();
        s.ask(produce(&topic, 0, Some(Bytes::from([&batch[..], &batch[..]].concat()))));
        read(s, &topic);
    }),
    scenario("Produce of a batch with bytes behind it", |s| {
        let topic = s.topic("t", 1);
        let batch = Batch::of(1).bytes();
        for tail in [&[0u8][..], &[0; 12], &[0; 70]] {
            s.ask(produce(&topic, 0, Some(Bytes::from([&batch[..], tail].concat()))));
        }
    }),
    scenario("Produce of a batch that is too large", |s| {
        let topic = s.topic_with("t", 1, &[("max.message.bytes", "1000")]);
        s.ask(produce(&topic, 0, Some(Batch { value_bytes: 2000, ..Batch::default() }.bytes())));
        let fits = |bytes: usize| Batch { value_bytes: bytes, ..Batch::default() }.bytes();
        let overhead = fits(900).len() - 900;
        s.ask(produce(&topic, 0, Some(fits(1000 - overhead))));
        s.ask(produce(&topic, 0, Some(fits(1001 - overhead))));
    }),
    scenario("Produce of a batch above the default limit", |s| {
        let topic = s.topic("t", 1);
        let batch = |bytes: usize| Batch { value_bytes: bytes, ..Batch::default() }.bytes();
        let overhead = batch(1_000_000).len() - 1_000_000;
        s.ask(produce(&topic, 0, Some(batch(1_048_588 - overhead))));
        s.ask(produce(&topic, 0, Some(batch(1_048_589 - overhead))));
    }),
    scenario("Produce of batches that contradict themselves", |s| {
        let topic = s.topic("t", 1);
        let batch = Batch::of(3).bytes();
        let forged = [
            ("a length that is too small", forge(&batch, 8, &10u32.to_be_bytes())),
            ("a length that is negative", forge(&batch, 8, &(-1i32).to_be_bytes())),
            ("fewer records than offsets", forge_sealed(&batch, 57, &2u32.to_be_bytes())),
            ("more records than offsets", forge_sealed(&batch, 57, &4u32.to_be_bytes())),
            ("no records", forge_sealed(&batch, 57, &0u32.to_be_bytes())),
            ("a negative number of records", forge_sealed(&batch, 57, &(-1i32).to_be_bytes())),
            ("a last offset that is too high", forge_sealed(&batch, 23, &9u32.to_be_bytes())),
            ("a last offset that is negative", forge_sealed(&batch, 23, &(-1i32).to_be_bytes())),
            ("a largest time that is too small", forge_sealed(&batch, 35, &1u64.to_be_bytes())),
            ("a control batch", forge_sealed(&batch, 21, &0x20u16.to_be_bytes())),
            ("a codec that there is not", forge_sealed(&batch, 21, &7u16.to_be_bytes())),
            ("a codec that was not used", forge_sealed(&batch, 21, &1u16.to_be_bytes())),
            ("the log's own kind of time", forge_sealed(&batch, 21, &0x8u16.to_be_bytes())),
            ("a delete horizon", forge_sealed(&batch, 21, &0x40u16.to_be_bytes())),
            ("attributes of the future", forge_sealed(&batch, 21, &0x80u16.to_be_bytes())),
            ("a leader epoch of its own", forge(&batch, 12, &77u32.to_be_bytes())),
            ("a base offset of its own", forge(&batch, 0, &77u64.to_be_bytes())),
        ];
        for (what, records) in forged {
            s.fact("batch with", what);
            s.ask(produce(&topic, 0, Some(records)));
        }
        read(s, &topic);
    }),
    scenario("Produce with each codec", |s| {
        let topic = s.topic("t", 1);
        for codec in 1..=4 {
            s.ask(produce(&topic, 0, Some(packed(&Batch { value_bytes: 300, ..Batch::of(5) }.bytes(), codec))));
        }
        read(s, &topic);
    }),
    scenario("Produce with zstd before that is allowed", |s| {
        let topic = s.topic("t", 1);
        let zstd = packed(&Batch::of(5).bytes(), 4);
        for version in 3..=7 {
            s.ask_at(version, produce(&topic, 0, Some(zstd.clone())));
        }
    }),
    scenario("Produce of packed records that contradict their batch", |s| {
        let topic = s.topic("t", 1);
        for codec in 1..=4 {
            let batch = packed(&Batch::of(3).bytes(), codec);
            s.ask(produce(&topic, 0, Some(forge_sealed(&batch, 57, &2u32.to_be_bytes()))));
            s.ask(produce(&topic, 0, Some(forge_sealed(&batch, batch.len() - 6, &[0xff; 6]))));
        }
    }),
    scenario("Produce of times too early and too late", |s| {
        let topic = s.topic_with("t", 1, &[("message.timestamp.before.max.ms", "3600000")]);
        s.ask(produce(&topic, 0, Some(Batch::of(1).bytes())));
        let now = now_ms();
        for time_ms in [now, now - 7_200_000, now + 1_800_000, now + 7_200_000] {
            s.ask(produce(&topic, 0, Some(Batch { time_ms, ..Batch::of(2) }.bytes())));
        }
        let topic = s.topic("default", 1);
        for time_ms in [now, 0, -1, now + 1_800_000, now + 7_200_000] {
            s.ask(produce(&topic, 0, Some(Batch { time_ms, ..Batch::of(1) }.bytes())));
        }
    }),
    scenario("Produce to a topic that keeps its own time", |s| {
        let topic = s.topic_with("t", 1, &[("message.timestamp.type", "LogAppendTime")]);
        let answer = s.ask(produce(&topic, 0, Some(Batch::of(2).bytes())));
        let time = answer.responses[0].partition_responses[0].log_append_time_ms;
        s.fact("the log's time", if (time - now_ms()).abs() < 600_000 { "now" } else { "another" });
        read(s, &topic);
    }),
    scenario("Produce without a key to a compacted topic", |s| {
        let topic = s.topic_with("t", 1, &[("cleanup.policy", "compact")]);
        s.ask(produce(&topic, 0, Some(Batch { has_key: false, ..Batch::of(3) }.bytes())));
        s.ask(produce(&topic, 0, Some(Batch::of(3).bytes())));
        s.ask(produce(&topic, 0, Some(packed(&Batch { has_key: false, ..Batch::of(3) }.bytes(), 1))));
        read(s, &topic);
    }),
    scenario("Produce to several partitions, one of them unknown", |s| {
        let topic = s.topic("t", 2);
        let mut request = produce(&topic, 0, Some(Batch::of(1).bytes()));
        for index in [7, 1] {
            let data = PartitionProduceData::default().with_index(index).with_records(Some(Batch::of(2).bytes()));
            request.topic_data[0].partition_data.push(data);
        }
        s.ask(request);
    }),
    scenario("Produce to one partition twice in a request", |s| {
        let topic = s.topic("t", 1);
        let mut request = produce(&topic, 0, Some(Batch::of(1).bytes()));
        let again = request.topic_data[0].partition_data[0].clone().with_records(Some(Batch::of(2).bytes()));
        request.topic_data[0].partition_data.push(again);
        s.ask(request);
        read(s, &topic);
    }),
    scenario("Produce to one topic twice in a request", |s| {
        let topic = s.topic("t", 2);
        let mut request = produce(&topic, 0, Some(Batch::of(1).bytes()));
        request.topic_data.push(produce(&topic, 1, Some(Batch::of(2).bytes())).topic_data.remove(0));
        s.ask(request);
    }),
    scenario("Produce makes no topic", |s| {
        let name = s.name("none");
        s.ask(produce(&name, 0, Some(Batch::of(1).bytes())));
        s.ask(metadata(&[&name]).with_allow_auto_topic_creation(false));
    }),
];

pub const IDEMPOTENT: &[Scenario] = &[
    scenario("InitProducerId without a transaction in each version", |s| s.each(|_| init())),
    scenario("InitProducerId with timeouts that a transaction could not have", |s| {
        for timeout_ms in [0, -1, i32::MAX] {
            s.ask(init().with_transaction_timeout_ms(timeout_ms));
        }
    }),
    scenario("InitProducerId with an id and an epoch of before", |s| {
        let id = s.producer_id();
        for (id, epoch) in [(id, 0), (id, 5), (987_654, 3), (id, -1), (-1, 3)] {
            s.ask(init().with_producer_id(ProducerId(id)).with_producer_epoch(epoch));
        }
    }),
    scenario("an idempotent producer's batches in order", |s| {
        let topic = s.topic("t", 1);
        let id = s.producer_id();
        for sequence in [0, 3, 6] {
            s.ask(produce(&topic, 0, Some(Batch::from_producer(id, 0, sequence, 3).bytes())));
        }
        read(s, &topic);
        s.ask(producers(&topic, &[0]));
    }),
    scenario("a batch that came before is acknowledged and not appended", |s| {
        let topic = s.topic("t", 1);
        let id = s.producer_id();
        let batches: Vec<Bytes> = (0..6).map(|n| Batch::from_producer(id, 0, 2 * n, 2).bytes()).collect();
        batches.iter().for_each(|batch| drop(s.ask(produce(&topic, 0, Some(batch.clone())))));
        for batch in [5, 4, 1, 0] {
            s.ask(produce(&topic, 0, Some(batches[batch].clone())));
        }
        s.ask(list_offsets(&topic, &[(0, -1)]));
    }),
    scenario("a batch that came before with another length", |s| {
        let topic = s.topic("t", 1);
        let id = s.producer_id();
        s.ask(produce(&topic, 0, Some(Batch::from_producer(id, 0, 0, 3).bytes())));
        s.ask(produce(&topic, 0, Some(Batch::from_producer(id, 0, 0, 2).bytes())));
        s.ask(produce(&topic, 0, Some(Batch::from_producer(id, 0, 1, 2).bytes())));
        s.ask(produce(&topic, 0, Some(Batch::from_producer(id, 0, 2, 2).bytes())));
    }),
    scenario("a batch that comes too early", |s| {
        let topic = s.topic("t", 1);
        let id = s.producer_id();
        s.ask(produce(&topic, 0, Some(Batch::from_producer(id, 0, 0, 1).bytes())));
        s.ask(produce(&topic, 0, Some(Batch::from_producer(id, 0, 5, 1).bytes())));
        s.ask(produce(&topic, 0, Some(Batch::from_producer(id, 0, 1, 1).bytes())));
    }),
    scenario("a producer that nobody knows begins in the middle", |s| {
        let topic = s.topic("t", 1);
        let id = s.producer_id();
        s.ask(produce(&topic, 0, Some(Batch::from_producer(id, 0, 17, 2).bytes())));
        s.ask(produce(&topic, 0, Some(Batch::from_producer(id, 0, 19, 2).bytes())));
        s.ask(producers(&topic, &[0]));
    }),
    scenario("a producer id that was never given out", |s| {
        let topic = s.topic("t", 1);
        s.ask(produce(&topic, 0, Some(Batch::from_producer(1_234_567_890_123, 0, 0, 1).bytes())));
        s.ask(produce(&topic, 0, Some(Batch::from_producer(1_234_567_890_123, 7, 0, 1).bytes())));
    }),
    scenario("epochs go up and never down", |s| {
        let topic = s.topic("t", 1);
        let id = s.producer_id();
        for (epoch, sequence) in [(0, 0), (1, 0), (0, 1), (0, 0), (1, 1), (5, 3), (5, 0), (4, 0)] {
            s.ask(produce(&topic, 0, Some(Batch::from_producer(id, epoch, sequence, 1).bytes())));
        }
        s.ask(producers(&topic, &[0]));
    }),
    scenario("sequences begin again after the largest", |s| {
        let topic = s.topic("t", 1);
        let id = s.producer_id();
        for (sequence, records) in [(i32::MAX - 2, 2), (i32::MAX, 3), (2, 1), (2, 1), (1, 1), (0, 1)] {
            s.ask(produce(&topic, 0, Some(Batch::from_producer(id, 0, sequence, records).bytes())));
        }
        s.ask(list_offsets(&topic, &[(0, -1)]));
    }),
    scenario("a producer without a sequence or an epoch", |s| {
        let topic = s.topic("t", 1);
        let id = s.producer_id();
        for (id, epoch, sequence) in [(id, 0, -1), (id, -1, 0), (id, -1, -1), (-1, 0, 0), (-1, 0, -1), (-2, 0, 0)] {
            let mut batch = BytesMut::from(&Batch::from_producer(id, epoch, 0, 1).bytes()[..]);
            batch[53..57].copy_from_slice(&i32::to_be_bytes(sequence));
            s.ask(produce(&topic, 0, Some(super::batch::seal(batch))));
        }
    }),
    scenario("an idempotent producer with acks 1", |s| {
        let topic = s.topic("t", 1);
        let id = s.producer_id();
        s.ask(produce(&topic, 0, Some(Batch::from_producer(id, 0, 0, 1).bytes())).with_acks(1));
    }),
    scenario("two producers in one partition", |s| {
        let topic = s.topic("t", 1);
        let (one, two) = (s.producer_id(), s.producer_id());
        for (id, sequence) in [(one, 0), (two, 0), (one, 1), (two, 1), (two, 3)] {
            s.ask(produce(&topic, 0, Some(Batch::from_producer(id, 0, sequence, 1).bytes())));
        }
        s.ask(producers(&topic, &[0]));
        read(s, &topic);
    }),
    scenario("two batches of an idempotent producer in one partition of a request", |s| {
        let topic = s.topic("t", 1);
        let id = s.producer_id();
        let two = [Batch::from_producer(id, 0, 0, 2).bytes(), Batch::from_producer(id, 0, 2, 2).bytes()].concat();
        s.ask(produce(&topic, 0, Some(two.into())));
    }),
    scenario("DescribeProducers of partitions without producers", |s| {
        let topic = s.topic("t", 1);
        s.append(&topic, 0, &Batch::of(3));
        s.ask(producers(&topic, &[0]));
    }),
    scenario("DescribeProducers of what there is not", |s| {
        let topic = s.topic("t", 1);
        s.ask(producers(&topic, &[1, -1]));
        let name = s.name("none");
        s.ask(producers(&name, &[0]));
        s.ask(producers("a b", &[0]));
        s.ask(DescribeProducersRequest::default());
    }),
];

fn init() -> InitProducerIdRequest {
    InitProducerIdRequest::default().with_transaction_timeout_ms(TIMEOUT_MS)
}

fn producers(topic: &str, partitions: &[i32]) -> DescribeProducersRequest {
    let topic = TopicRequest::default().with_name(topic_name(topic)).with_partition_indexes(partitions.to_vec());
    DescribeProducersRequest::default().with_topics(vec![topic])
}

/// All of partition 0.
fn read(s: &mut Session, topic: &str) {
    let topic = topic.to_owned();
    s.ask_at(11, fetch(&topic, uuid::Uuid::nil(), 11, from(0, 0)));
}

fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis()).unwrap().max(TIME_MS)
}
