//! Transactions: InitProducerId with an id, AddPartitionsToTxn, AddOffsetsToTxn, TxnOffsetCommit, EndTxn, and what is
//! told of them. Compared where both serve EndTxn.

use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, DescribeTransactionsRequest, EndTxnRequest,
    InitProducerIdRequest, ListTransactionsRequest, ProduceRequest, ProducerId, TransactionalId,
    TxnOffsetCommitRequest,
};

use super::batch::Batch;
use super::group::{commit, committed, id as group_id};
use super::requests::{create, fetch, from, list_offsets, new_topic, produce};
use super::scenario::{Scenario, scenario};
use super::session::{Session, text, topic_name};

const TIMEOUT_MS: i32 = 60_000;

pub const SCENARIOS: &[Scenario] = &[
    scenario("InitProducerId with a transactional id in each version", |s| {
        for version in s.versions::<InitProducerIdRequest>() {
            let id = s.name(&format!("v{version}"));
            s.ask_at(version, init(&id));
            s.ask_at(version, init(&id));
        }
    }),
    scenario("InitProducerId with transactional ids and timeouts that cannot be", |s| {
        s.ask(init(""));
        for timeout_ms in [0, -1, 900_001, i32::MAX] {
            let id = s.name("t");
            s.ask(init(&id).with_transaction_timeout_ms(timeout_ms));
        }
    }),
    scenario("InitProducerId of an instance that comes back", |s| {
        let id = s.name("t");
        let first = s.ask(init(&id));
        for epoch in [0, 0, 1, 7] {
            s.ask(init(&id).with_producer_id(first.producer_id).with_producer_epoch(epoch));
        }
        s.ask(init(&id).with_producer_id(ProducerId(987_654)).with_producer_epoch(0));
        let unknown = s.name("unknown");
        s.ask(init(&unknown).with_producer_id(ProducerId(987_654)).with_producer_epoch(3));
    }),
    scenario("a transaction that is committed", |s| whole(s, true)),
    scenario("a transaction that is aborted", |s| whole(s, false)),
    scenario("an empty transaction ends", |s| {
        let producer = begun(s);
        s.ask_at(3, end(&producer, true));
        s.ask_at(3, end(&producer, false));
    }),
    scenario("a transaction that has ended ends again", |s| {
        let topic = s.topic("t", 1);
        let producer = begun(s);
        s.ask_at(3, add(&producer, &topic, &[0]));
        s.ask_at(3, end(&producer, true));
        s.until("it is complete", |s| state(s, &producer) == "CompleteCommit");
        s.ask_at(3, end(&producer, true));
        s.ask_at(3, end(&producer, false));
    }),
    scenario("EndTxn of producers that there are not", |s| {
        let producer = begun(s);
        let strangers = [
            Producer { transactional_id: s.name("nobody"), ..producer.clone() },
            Producer { transactional_id: String::new(), ..producer.clone() },
            Producer { id: 987_654, ..producer.clone() },
            Producer { epoch: producer.epoch + 1, ..producer.clone() },
            Producer { epoch: -1, ..producer },
        ];
        for stranger in &strangers {
            for version in [0, 2, 3] {
                s.ask_at(version, end(stranger, true));
            }
        }
    }),
    scenario("AddPartitionsToTxn in each version and of what there is not", |s| {
        let topic = s.topic("t", 2);
        let producer = begun(s);
        for version in 0..=3 {
            s.ask_at(version, add(&producer, &topic, &[0, 1]));
        }
        let none = s.name("none");
        s.ask_at(3, add(&producer, &none, &[0]));
        s.ask_at(3, add(&producer, &topic, &[7, 0]));
        s.ask_at(3, add(&Producer { epoch: 5, ..producer.clone() }, &topic, &[0]));
        s.ask_at(1, add(&Producer { epoch: 5, ..producer.clone() }, &topic, &[0]));
        s.ask_at(3, add(&Producer { id: 987_654, ..producer.clone() }, &topic, &[0]));
        let nobody = s.name("nobody");
        s.ask_at(3, add(&Producer { transactional_id: nobody, ..producer.clone() }, &topic, &[0]));
        s.ask_at(3, add(&Producer { transactional_id: String::new(), ..producer }, &topic, &[0]));
    }),
    scenario("a batch of a transaction that the partition is not part of", |s| {
        let topic = s.topic("t", 1);
        let producer = begun(s);
        s.ask_at(9, transactional(&producer, &topic, 0));
    }),
    scenario("a batch of a transaction without a transactional id", |s| {
        let topic = s.topic("t", 1);
        let producer = begun(s);
        s.ask_at(3, add(&producer, &topic, &[0]));
        s.ask_at(9, transactional(&producer, &topic, 0).with_transactional_id(None));
        s.ask_at(9, produce(&topic, 0, Some(Batch::from_producer(producer.id, 0, 0, 1).bytes())));
    }),
    scenario("a producer that another instance has fenced", |s| {
        let topic = s.topic("t", 1);
        let old = begun(s);
        s.ask_at(3, add(&old, &topic, &[0]));
        s.ask_at(9, transactional(&old, &topic, 0));
        let again = init(&old.transactional_id);
        s.until("the old transaction has ended", |s| s.ask_at(4, again.clone()).error_code == 0);
        s.ask_at(9, transactional(&old, &topic, 1));
        s.ask_at(3, add(&old, &topic, &[0]));
        s.ask_at(3, end(&old, true));
        s.ask_at(1, end(&old, true));
        s.ask_at(11, fetch(&topic, uuid::Uuid::nil(), 11, from(0, 0)).with_isolation_level(1));
    })
    .masking(&["records", "high_watermark", "last_stable_offset"]),
    scenario("offsets of a transaction that is committed", |s| offsets(s, true)),
    scenario("offsets of a transaction that is aborted", |s| offsets(s, false)),
    scenario("TxnOffsetCommit that is refused", |s| {
        let topic = s.topic("t", 1);
        let group = s.name("g");
        let producer = begun(s);
        s.ask_at(3, commit_in(&producer, &group, &topic, 1));
        s.ask_at(3, add_offsets(&producer, &group));
        let none = s.name("none");
        s.ask_at(3, commit_in(&producer, &group, &none, 1));
        s.ask_at(3, commit_in(&producer, "", &topic, 1));
        s.ask_at(3, commit_in(&producer, &group, &topic, 1).with_generation_id(5).with_member_id(text("nobody")));
        let (member, generation) = s.stable_member(&group);
        let told = |member: &str, generation: i32| {
            commit_in(&producer, &group, &topic, 1).with_generation_id(generation).with_member_id(text(member))
        };
        s.ask_at(3, told(&member, generation));
        s.ask_at(3, told(&member, generation + 1));
        s.ask_at(3, told("nobody", generation));
        s.ask_at(3, told(&member, generation).with_group_instance_id(Some(text("nobody"))));
    }),
    scenario("AddOffsetsToTxn that is refused", |s| {
        let group = s.name("g");
        let producer = begun(s);
        s.ask_at(3, add_offsets(&producer, ""));
        s.ask_at(3, add_offsets(&Producer { epoch: 5, ..producer.clone() }, &group));
        s.ask_at(3, add_offsets(&Producer { id: 987_654, ..producer.clone() }, &group));
        let nobody = s.name("nobody");
        s.ask_at(3, add_offsets(&Producer { transactional_id: nobody, ..producer }, &group));
    }),
    scenario("DescribeTransactions of what there is and of what there is not", |s| {
        let topic = s.topic("t", 2);
        let producer = begun(s);
        s.ask(describe(&producer.transactional_id));
        s.ask_at(3, add(&producer, &topic, &[1, 0]));
        s.ask(describe(&producer.transactional_id));
        let nobody = s.name("nobody");
        s.ask(describe(&nobody));
        s.ask(describe(""));
        s.ask(DescribeTransactionsRequest::default());
    })
    .masking(&["transaction_start_time_ms"]),
    scenario("ListTransactions by state and by producer", |s| {
        let topic = s.topic("t", 1);
        let producer = begun(s);
        s.ask_at(3, add(&producer, &topic, &[0]));
        let by_id = ListTransactionsRequest::default().with_producer_id_filters(vec![ProducerId(producer.id)]);
        s.ask_at(0, by_id.clone());
        for states in [&["Ongoing"][..], &["Empty"], &["no such state"], &["Ongoing", "no such state"]] {
            let states = states.iter().map(|state| text(state)).collect();
            s.ask_at(0, by_id.clone().with_state_filters(states));
        }
        s.ask_at(1, by_id.clone().with_duration_filter(3_600_000));
        s.ask_at(1, by_id.with_duration_filter(-1));
    }),
    scenario("the internal topics cannot be made or written by clients", |s| {
        s.ask(create(vec![new_topic("__consumer_offsets", 1, 1)]).with_validate_only(true));
        s.ask(create(vec![new_topic("__transaction_state", 1, 1)]).with_validate_only(true));
        s.ask_at(9, produce("__consumer_offsets", 0, Some(Batch::of(1).bytes())));
        s.ask_at(9, produce("__transaction_state", 0, Some(Batch::of(1).bytes())));
    }),
];

#[derive(Clone)]
struct Producer {
    transactional_id: String,
    id: i64,
    epoch: i16,
}

impl Producer {
    fn name(&self) -> TransactionalId {
        TransactionalId(text(&self.transactional_id))
    }
}

fn init(transactional_id: &str) -> InitProducerIdRequest {
    InitProducerIdRequest::default()
        .with_transactional_id(Some(TransactionalId(text(transactional_id))))
        .with_transaction_timeout_ms(TIMEOUT_MS)
}

/// A producer that has introduced itself, without comparing.
fn begun(s: &mut Session) -> Producer {
    let transactional_id = s.name("transactional");
    let answer = s.quietly(|s| s.ask_at(4, init(&transactional_id)));
    assert_eq!(answer.error_code, 0);
    Producer { transactional_id, id: answer.producer_id.0, epoch: answer.producer_epoch }
}

fn add(producer: &Producer, topic: &str, partitions: &[i32]) -> AddPartitionsToTxnRequest {
    let topic = AddPartitionsToTxnTopic::default().with_name(topic_name(topic)).with_partitions(partitions.to_vec());
    AddPartitionsToTxnRequest::default()
        .with_v3_and_below_transactional_id(producer.name())
        .with_v3_and_below_producer_id(ProducerId(producer.id))
        .with_v3_and_below_producer_epoch(producer.epoch)
        .with_v3_and_below_topics(vec![topic])
}

fn add_offsets(producer: &Producer, group: &str) -> AddOffsetsToTxnRequest {
    AddOffsetsToTxnRequest::default()
        .with_transactional_id(producer.name())
        .with_producer_id(ProducerId(producer.id))
        .with_producer_epoch(producer.epoch)
        .with_group_id(group_id(group))
}

fn end(producer: &Producer, committed: bool) -> EndTxnRequest {
    EndTxnRequest::default()
        .with_transactional_id(producer.name())
        .with_producer_id(ProducerId(producer.id))
        .with_producer_epoch(producer.epoch)
        .with_committed(committed)
}

fn transactional(producer: &Producer, topic: &str, sequence: i32) -> ProduceRequest {
    let batch = Batch::from_producer(producer.id, producer.epoch, sequence, 1).transactional();
    produce(topic, 0, Some(batch.bytes())).with_transactional_id(Some(producer.name()))
}

fn commit_in(producer: &Producer, group: &str, topic: &str, offset: i64) -> TxnOffsetCommitRequest {
    let partition = TxnOffsetCommitRequestPartition::default()
        .with_committed_offset(offset)
        .with_committed_metadata(Some(text("words")));
    let topic = TxnOffsetCommitRequestTopic::default().with_name(topic_name(topic)).with_partitions(vec![partition]);
    TxnOffsetCommitRequest::default()
        .with_transactional_id(producer.name())
        .with_group_id(group_id(group))
        .with_producer_id(ProducerId(producer.id))
        .with_producer_epoch(producer.epoch)
        .with_generation_id(-1)
        .with_topics(vec![topic])
}

fn describe(transactional_id: &str) -> DescribeTransactionsRequest {
    DescribeTransactionsRequest::default().with_transactional_ids(vec![TransactionalId(text(transactional_id))])
}

fn state(s: &mut Session, producer: &Producer) -> String {
    s.ask(describe(&producer.transactional_id)).transaction_states[0].transaction_state.to_string()
}

/// From the first partition to the marker, looked at from outside after each step.
fn whole(s: &mut Session, committed: bool) {
    // Records of 2023 and markers of today would not share a segment, and a fetch looks into one.
    let topic = s.topic_with("t", 1, &[("segment.ms", "3153600000000")]);
    let producer = begun(s);
    let looked = |s: &mut Session| {
        for isolation in [0, 1] {
            s.ask_at(11, fetch(&topic, uuid::Uuid::nil(), 11, from(0, 0)).with_isolation_level(isolation));
            s.ask_at(5, list_offsets(&topic, &[(0, -1)]).with_isolation_level(isolation));
        }
    };
    s.ask_at(3, add(&producer, &topic, &[0]));
    s.ask_at(9, transactional(&producer, &topic, 0));
    s.append(&topic, 0, &Batch::of(2));
    looked(s);
    s.ask_at(9, transactional(&producer, &topic, 1));
    s.ask_at(3, end(&producer, committed));
    let wanted = if committed { "CompleteCommit" } else { "CompleteAbort" };
    s.until("it is complete", |s| state(s, &producer) == wanted);
    looked(s);
    s.ask_at(3, add(&producer, &topic, &[0]));
    s.ask_at(9, transactional(&producer, &topic, 2));
    s.ask_at(3, end(&producer, !committed));
    let wanted = if committed { "CompleteAbort" } else { "CompleteCommit" };
    s.until("it is complete", |s| state(s, &producer) == wanted);
    looked(s);
}

/// Offsets are pending until the end, and hold up who wants stable ones.
fn offsets(s: &mut Session, is_committed: bool) {
    let topic = s.topic("t", 1);
    let group = s.name("g");
    let producer = begun(s);
    s.ask(commit(&group, &topic, &[(0, 1)]));
    s.ask_at(3, add_offsets(&producer, &group));
    s.ask_at(3, commit_in(&producer, &group, &topic, 7));
    let looked = |s: &mut Session| {
        for is_stable in [false, true] {
            for version in [7, 8] {
                let request = committed(version, &group, Some((&topic, &[0])));
                s.ask_at(version, request.with_require_stable(is_stable));
            }
        }
    };
    looked(s);
    s.ask_at(3, end(&producer, is_committed));
    s.until("they are stable", |s| {
        let request = committed(7, &group, Some((&topic, &[0]))).with_require_stable(true);
        s.ask_at(7, request).topics[0].partitions[0].error_code == 0
    });
    looked(s);
}
