//! A consumer: a member of its topic's group, or one that takes its share by itself. It notes what it reads before it
//! commits.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use super::child::{Clients, Member};
use super::message::{Identity, PARTITIONS_PER_TOPIC, Place, TOPICS, topic};
use super::notes::{Note, Notebook, now_us};

pub const READERS: u32 = 50;
const MEMBERS_OF_A_GROUP: u32 = READERS / TOPICS;
const COMMIT_AFTER: Duration = Duration::from_millis(300);

/// Of a dynamic member: short, so that others take over soon.
const SESSION_MS: &str = "6000";
/// Of a static one: longer than any outage. A client that is cut off for longer comes back under a new id, and its old
/// one is rightly fenced; within this time only the broker's own forgetting can fence it.
const STATIC_SESSION_MS: &str = "60000";

/// How a group shares its partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sharing {
    Range,
    /// A restarted member has its place still.
    Static,
    Cooperative,
    /// No group: each member always reads the same partitions.
    Fixed,
}

fn sharing(group: u32) -> Sharing {
    match group {
        0..=2 => Sharing::Range,
        3..=4 => Sharing::Static,
        5..=7 => Sharing::Cooperative,
        _ => Sharing::Fixed,
    }
}

pub fn group_name(group: u32) -> String {
    format!("readers-{group}")
}

struct Seen {
    notebook: Mutex<Notebook>,
    /// Where the next message of each partition of ours is that we did not commit yet.
    uncommitted: Mutex<BTreeMap<Place, u64>>,
}

impl Seen {
    fn assigned(&self, list: &TopicPartitionList) {
        let at_us = now_us();
        for place in places_of(list) {
            self.uncommitted.lock().unwrap().remove(&place);
            self.notebook.lock().unwrap().write(Note::Assigned { place, at_us });
        }
    }

    fn revoked(&self, list: &TopicPartitionList) {
        for place in places_of(list) {
            self.uncommitted.lock().unwrap().remove(&place);
        }
    }
}

fn places_of(list: &TopicPartitionList) -> Vec<Place> {
    list.elements().iter().filter_map(|element| Place::of(element.topic(), element.partition())).collect()
}

impl ClientContext for Seen {
    fn error(&self, _: KafkaError, _: &str) {}
}

impl ConsumerContext for Seen {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(list) => self.assigned(list),
            Rebalance::Revoke(list) => self.revoked(list),
            Rebalance::Error(_) => {}
        }
    }
}

fn consumer(clients: &Clients, member: Member) -> Result<BaseConsumer<Seen>, KafkaError> {
    let (group, place) = (member.client % TOPICS, member.client / TOPICS);
    let name = format!("reader-{:06}-of-group-{group}", member.life);
    let seen =
        Seen { notebook: Mutex::new(Notebook::create(&clients.notes.join(name))), uncommitted: Mutex::default() };
    let mut config = clients.config();
    config
        .set("group.id", group_name(group))
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("session.timeout.ms", if sharing(group) == Sharing::Static { STATIC_SESSION_MS } else { SESSION_MS })
        .set("heartbeat.interval.ms", "1000")
        .set("max.poll.interval.ms", STATIC_SESSION_MS)
        .set("check.crcs", "true")
        .set("fetch.wait.max.ms", if member.client.is_multiple_of(2) { "100" } else { "500" });
    match sharing(group) {
        Sharing::Cooperative => config.set("partition.assignment.strategy", "cooperative-sticky"),
        Sharing::Static => config.set("group.instance.id", format!("member-{place}")),
        Sharing::Range | Sharing::Fixed => &mut config,
    };
    let consumer: BaseConsumer<Seen> = config.create_with_context(seen)?;
    if sharing(group) == Sharing::Fixed {
        let mut list = TopicPartitionList::new();
        for partition in (0..PARTITIONS_PER_TOPIC).filter(|partition| partition % MEMBERS_OF_A_GROUP == place) {
            list.add_partition_offset(&topic(group), partition as i32, Offset::Stored)?;
        }
        consumer.context().assigned(&list);
        consumer.assign(&list)?;
    } else {
        consumer.subscribe(&[&topic(group)])?;
    }
    Ok(consumer)
}

/// Reads and commits until `stop`.
///
/// # Errors
/// An error that an outage does not explain.
pub fn run(clients: &Clients, member: Member, stop: &AtomicBool) -> Result<(), String> {
    let consumer = consumer(clients, member).map_err(|error| error.to_string())?;
    let mut committed = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        match consumer.poll(Duration::from_millis(50)) {
            None => {}
            Some(Ok(message)) => {
                let place = Place::of(message.topic(), message.partition()).ok_or("a message of another topic")?;
                let offset = u64::try_from(message.offset()).map_err(|error| error.to_string())?;
                // A message that is not from here has no life; the place tells of one that was sent elsewhere.
                let identity = message.payload().and_then(Identity::of).filter(|identity| identity.place == place);
                let (life, sequence) = identity.map_or((0, 0), |identity| (identity.life, identity.sequence));
                let seen = consumer.context();
                seen.notebook.lock().unwrap().write(Note::Read { place, offset, life, sequence });
                seen.uncommitted.lock().unwrap().insert(place, offset + 1);
            }
            Some(Err(error)) => tolerate(&error)?,
        }
        if committed.elapsed() > COMMIT_AFTER {
            commit(&consumer)?;
            committed = Instant::now();
        }
    }
    Ok(())
}

fn commit(consumer: &BaseConsumer<Seen>) -> Result<(), String> {
    let seen = consumer.context();
    let positions = seen.uncommitted.lock().unwrap().clone();
    if positions.is_empty() {
        return Ok(());
    }
    let mut list = TopicPartitionList::new();
    for (place, next_offset) in &positions {
        let offset = Offset::Offset(*next_offset as i64);
        list.add_partition_offset(&place.topic(), place.partition(), offset).map_err(|error| error.to_string())?;
    }
    if let Err(error) = consumer.commit(&list, CommitMode::Sync) {
        return tolerate(&error);
    }
    let at_us = now_us();
    for (place, next_offset) in positions {
        seen.notebook.lock().unwrap().write(Note::Committed { place, next_offset, at_us });
        seen.uncommitted.lock().unwrap().remove(&place);
    }
    Ok(())
}

/// Outages and rebalances are told of and borne; what they do not explain is an error.
fn tolerate(error: &KafkaError) -> Result<(), String> {
    use RDKafkaErrorCode::*;
    let code = error.rdkafka_error_code();
    let explained = matches!(
        code,
        Some(
            BrokerTransportFailure
                | AllBrokersDown
                | OperationTimedOut
                | RequestTimedOut
                | Resolve
                | WaitingForCoordinator
                | WaitCache
                | CoordinatorLoadInProgress
                | CoordinatorNotAvailable
                | NotCoordinator
                | UnknownMemberId
                | IllegalGeneration
                | RebalanceInProgress
                | AssignmentLost
                | NetworkException
        )
    );
    let name = code.map_or_else(|| error.to_string(), |code| format!("{code:?}"));
    // In one piece: other clients write to the same file.
    let _ = std::io::stderr().write_all(format!("client error: {name}\n").as_bytes());
    if explained { Ok(()) } else { Err(format!("an outage does not explain: {error:?}")) }
}
