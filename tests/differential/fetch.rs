//! Fetch: from where, how much, for how long, and every refusal.

use std::time::{Duration, Instant};

use kafka_protocol::messages::fetch_request::ForgottenTopic;
use kafka_protocol::messages::{FetchRequest, ProduceRequest};
use uuid::Uuid;

use super::batch::{Batch, packed};
use super::requests::{fetch, from, produce};
use super::scenario::{Scenario, scenario};
use super::session::{Served, Session, topic_name};

const UNKNOWN_ID: Uuid = Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);

pub const SCENARIOS: &[Scenario] = &[
    scenario("Fetch in each version", |s| {
        let (topic, id) = filled(s, 3);
        s.each(|version| fetch(&topic, id, version, from(0, 0)));
    }),
    scenario("Fetch from the middle of a batch", |s| {
        let (topic, id) = filled(s, 3);
        for offset in 0..=9 {
            s.ask_at(11, fetch(&topic, id, 11, from(0, offset)));
        }
    }),
    scenario("Fetch of offsets out of range", |s| {
        let (topic, id) = filled(s, 2);
        s.each(|version| fetch(&topic, id, version, from(0, 7)));
        for offset in [-1, -2, i64::MIN, i64::MAX] {
            s.ask_at(11, fetch(&topic, id, 11, from(0, offset)));
        }
    }),
    scenario("Fetch at the end waits for its time and finds nothing", |s| {
        let (topic, id) = filled(s, 1);
        let began = Instant::now();
        s.ask_at(11, fetch(&topic, id, 11, from(0, 3)).with_max_wait_ms(300));
        s.fact("it waited", &(began.elapsed() >= Duration::from_millis(290)).to_string());
        s.ask_at(11, fetch(&topic, id, 11, from(0, 3)).with_max_wait_ms(0));
        s.ask_at(11, fetch(&topic, id, 11, from(0, 3)).with_max_wait_ms(-1));
    }),
    scenario("Fetch at the end is answered when something comes", |s| {
        let (topic, id) = filled(s, 1);
        let waiting = s.send_at(11, fetch(&topic, id, 11, from(0, 3)).with_max_wait_ms(20_000));
        s.connection(1).ask_at(9, produce(&topic, 0, Some(Batch::of(2).bytes())));
        s.receive(waiting);
    }),
    scenario("Fetch waits for as many bytes as it asks for", |s| {
        let (topic, id) = filled(s, 1);
        let waiting = s.send_at(11, fetch(&topic, id, 11, from(0, 3)).with_max_wait_ms(20_000).with_min_bytes(150));
        let big = Batch { value_bytes: 500, ..Batch::default() };
        for batch in [Batch::of(1), big] {
            s.connection(1).ask_at(9, produce(&topic, 0, Some(batch.bytes())));
        }
        s.receive(waiting);
    }),
    scenario("Fetch without a least number of bytes does not wait", |s| {
        let (topic, id) = filled(s, 1);
        let began = Instant::now();
        s.ask_at(11, fetch(&topic, id, 11, from(0, 3)).with_max_wait_ms(20_000).with_min_bytes(0));
        s.fact("it waited", &(began.elapsed() >= Duration::from_secs(10)).to_string());
    }),
    scenario("Fetch of an error does not wait", |s| {
        let (topic, id) = filled(s, 1);
        let began = Instant::now();
        s.ask_at(11, fetch(&topic, id, 11, from(0, 99)).with_max_wait_ms(20_000));
        s.ask_at(11, fetch(&topic, id, 11, from(5, 0)).with_max_wait_ms(20_000));
        s.fact("it waited", &(began.elapsed() >= Duration::from_secs(10)).to_string());
    }),
    scenario("Fetch of one byte brings one batch", |s| {
        let (topic, id) = filled(s, 3);
        for bytes in [1, 0, -1] {
            s.ask_at(11, fetch(&topic, id, 11, from(0, 0)).with_max_bytes(bytes));
            s.ask_at(11, fetch(&topic, id, 11, from(0, 0).with_partition_max_bytes(bytes)));
        }
    }),
    scenario("Fetch of as many bytes as one batch and a half", |s| {
        let (topic, id) = filled(s, 3);
        let bytes = Batch::of(3).bytes().len() as i32;
        for bytes in [bytes, bytes * 3 / 2, bytes * 2, bytes * 2 - 1] {
            s.ask_at(11, fetch(&topic, id, 11, from(0, 0).with_partition_max_bytes(bytes)));
            s.ask_at(11, fetch(&topic, id, 11, from(0, 0)).with_max_bytes(bytes));
        }
    }),
    scenario("Fetch of two partitions shares the bytes", |s| {
        let topic = s.topic("t", 2);
        for partition in [0, 1] {
            s.append(&topic, partition, &Batch::of(3));
            s.append(&topic, partition, &Batch::of(3));
        }
        let bytes = Batch::of(3).bytes().len() as i32;
        for limit in [1, bytes, 2 * bytes, 3 * bytes] {
            let mut request = fetch(&topic, Uuid::nil(), 11, from(0, 0)).with_max_bytes(limit);
            request.topics[0].partitions.push(from(1, 0));
            s.ask_at(11, request);
        }
    }),
    scenario("Fetch of what there is not, by name", |s| {
        let (topic, id) = filled(s, 1);
        let none = s.name("none");
        s.ask_at(11, fetch(&none, id, 11, from(0, 0)));
        s.ask_at(4, fetch(&none, id, 4, from(0, 0)));
        s.ask_at(11, fetch("", id, 11, from(0, 0)));
        for partition in [1, -1] {
            s.ask_at(11, fetch(&topic, id, 11, from(partition, 0)));
        }
    }),
    scenario("Fetch of what there is not, by id", |s| {
        let (topic, id) = filled(s, 1);
        for version in 13..=*s.versions::<FetchRequest>().end() {
            s.ask_at(version, fetch(&topic, UNKNOWN_ID, version, from(0, 0)));
        }
        s.ask_at(13, fetch(&topic, Uuid::nil(), 13, from(0, 0)));
        s.ask_at(13, fetch(&topic, id, 13, from(4, 0)));
    }),
    scenario("Fetch of a known and an unknown id", |s| {
        let (topic, id) = filled(s, 1);
        let mut request = fetch(&topic, id, 13, from(0, 0));
        request.topics.push(fetch(&topic, UNKNOWN_ID, 13, from(0, 0)).topics.remove(0));
        s.ask_at(13, request);
    }),
    scenario("Fetch with epochs of the leader", |s| {
        let (topic, id) = filled(s, 1);
        for epoch in [-1, 0, 1, 99] {
            s.ask_at(11, fetch(&topic, id, 11, from(0, 0).with_current_leader_epoch(epoch)));
        }
    }),
    scenario("Fetch with the epoch of what was fetched last", |s| {
        let (topic, id) = filled(s, 1);
        for (offset, epoch) in [(3, 0), (3, -1), (3, 5), (1, 0), (0, 7)] {
            s.ask_at(12, fetch(&topic, id, 12, from(0, offset).with_last_fetched_epoch(epoch)));
        }
    }),
    scenario("Fetch of committed records where there are no transactions", |s| {
        let (topic, id) = filled(s, 2);
        s.each(|version| fetch(&topic, id, version, from(0, 0)).with_isolation_level(1));
        s.ask_at(11, fetch(&topic, id, 11, from(0, 0)).with_isolation_level(7));
    }),
    scenario("Fetch of nothing", |s| {
        for version in [4, 7, 12, 13] {
            let mut request = fetch("t", Uuid::nil(), version, from(0, 0));
            request.topics.clear();
            s.ask_at(version, request);
        }
    }),
    scenario("Fetch names one partition twice", |s| {
        let (topic, id) = filled(s, 2);
        let mut request = fetch(&topic, id, 11, from(0, 0));
        request.topics[0].partitions.push(from(0, 3));
        s.ask_at(11, request);
    }),
    scenario("Fetch as a replica that there is not", |s| {
        let (topic, id) = filled(s, 1);
        s.ask_at(11, fetch(&topic, id, 11, from(0, 0)).with_replica_id(17.into()));
        s.ask_at(11, fetch(&topic, id, 11, from(0, 0)).with_replica_id((-2).into()));
    }),
    scenario("Fetch below what was deleted", |s| {
        let (topic, id) = filled(s, 3);
        super::offsets::delete_before(s, &topic, 4);
        for offset in [0, 3, 4, 8] {
            s.ask_at(11, fetch(&topic, id, 11, from(0, offset)));
        }
    }),
    scenario("Fetch of packed batches", |s| {
        let topic = s.topic("t", 1);
        for codec in 1..=4 {
            s.quietly(|s| s.ask_at(9, produce(&topic, 0, Some(packed(&Batch::of(4).bytes(), codec)))));
        }
        s.ask_at(11, fetch(&topic, Uuid::nil(), 11, from(0, 6)));
        s.ask_at(4, fetch(&topic, Uuid::nil(), 4, from(0, 0)));
    }),
    scenario("Fetch of zstd before that is allowed", |s| {
        let topic = s.topic("t", 1);
        s.quietly(|s| s.ask_at(9, produce(&topic, 0, Some(packed(&Batch::of(4).bytes(), 4)))));
        for version in [4, 9, 10] {
            s.ask_at(version, fetch(&topic, Uuid::nil(), version, from(0, 0)));
        }
    }),
    scenario("a Fetch that waits does not hold up what comes behind it on another connection", |s| {
        let (topic, id) = filled(s, 1);
        let waiting = s.send_at(11, fetch(&topic, id, 11, from(0, 3)).with_max_wait_ms(1000));
        s.connection(1).ask_at(11, fetch(&topic, id, 11, from(0, 0)));
        s.receive(waiting);
    }),
    scenario("a Fetch that waits is answered before what comes behind it", |s| {
        let (topic, id) = filled(s, 1);
        let first = s.send_at(11, fetch(&topic, id, 11, from(0, 3)).with_max_wait_ms(300));
        let second: super::session::Waiting<ProduceRequest> =
            s.send_at(9, produce(&topic, 0, Some(Batch::of(1).bytes())));
        s.receive(first);
        s.receive(second);
    })
    .masking(&["records", "high_watermark", "last_stable_offset"]),
];

/// Whether a broker has fetch sessions.
pub fn has_sessions(address: std::net::SocketAddr, served: &Served) -> bool {
    let mut s = Session::new(address, served, "fetch sessions", &[]);
    let (topic, id) = filled(&mut s, 1);
    s.ask_at(11, session(fetch(&topic, id, 11, from(0, 0)), 0, 0)).session_id != 0
}

/// Fetch sessions (KIP-227): compared where we have them; who declines them differs in everything.
pub const SESSIONS: &[Scenario] = &[
    scenario("a fetch session is begun, goes on and ends", |s| {
        let (topic, id) = filled(s, 2);
        let opened = s.ask_at(11, session(fetch(&topic, id, 11, from(0, 0)), 0, 0));
        let mut next = session(fetch(&topic, id, 11, from(0, 6)), opened.session_id, 1);
        s.ask_at(11, next.clone());
        next.topics.clear();
        s.ask_at(11, session(next.clone(), opened.session_id, 2));
        s.append(&topic, 0, &Batch::of(1));
        s.ask_at(11, session(next.clone(), opened.session_id, 3));
        s.ask_at(11, session(next.clone(), opened.session_id, 3));
        s.ask_at(11, session(next.clone(), opened.session_id, -1));
        s.ask_at(11, session(next, opened.session_id, 4));
    })
    .masking(&["session_id"]),
    scenario("a fetch session that there is not", |s| {
        let (topic, id) = filled(s, 1);
        s.ask_at(11, session(fetch(&topic, id, 11, from(0, 0)), 12_345, 1));
        s.ask_at(11, session(fetch(&topic, id, 11, from(0, 0)), 12_345, -1));
        s.ask_at(11, session(fetch(&topic, id, 11, from(0, 0)), 0, 5));
        s.ask_at(11, session(fetch(&topic, id, 11, from(0, 0)), 12_345, 0));
    })
    .masking(&["session_id"]),
    scenario("a partition is forgotten by a fetch session", |s| {
        let (topic, id) = filled(s, 1);
        let opened = s.ask_at(11, session(fetch(&topic, id, 11, from(0, 0)), 0, 0));
        let mut forget = session(fetch(&topic, id, 11, from(0, 0)), opened.session_id, 1);
        forget.topics.clear();
        let gone = ForgottenTopic::default().with_topic(topic_name(&topic)).with_partitions(vec![0]);
        s.ask_at(11, forget.with_forgotten_topics_data(vec![gone]));
    })
    .masking(&["session_id"]),
];

fn session(request: FetchRequest, id: i32, epoch: i32) -> FetchRequest {
    request.with_session_id(id).with_session_epoch(epoch)
}

/// A topic with so many batches of three records in partition 0.
fn filled(s: &mut Session, batches: usize) -> (String, Uuid) {
    let topic = s.topic("t", 1);
    let id = s.await_topic(&topic, 1);
    for _ in 0..batches {
        s.append(&topic, 0, &Batch::of(3));
    }
    (topic, id)
}
