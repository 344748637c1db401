//! A member of a group, in a process of its own: it processes messages, commits what it processed, and leaves as it is
//! told to.
//!
//! It does what makes each message be processed once: it commits synchronously before it gives a partition back, and
//! before it leaves; in between it commits now and then, without waiting.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::groups::GroupInfo;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};

use super::kind::{HEARTBEAT, SESSION, TOPIC};
use super::load;
use super::notes::{Note, Notebook};
use super::support::child;
use super::support::notes::now_us;

/// Does what the task says.
pub const TEST: &str = "a_member_of_a_group_and_no_test_by_itself";
/// What it prints before an error.
pub const ERROR: &str = "client error: ";

const COMMIT_AFTER: Duration = Duration::from_millis(300);
/// No message for so long: there is none.
const SILENT_AFTER: Duration = Duration::from_secs(1);
/// A consumer that is not closed by then never will be.
pub const CLOSE_MAX: Duration = Duration::from_secs(10);
/// The exit code that tells so.
pub const NEVER_CLOSED: i32 = 3;
/// Of anything else that it waits for.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Member {
    pub brokers: String,
    pub group: String,
    /// Of this life.
    pub name: String,
    pub instance: Option<String>,
    pub strategy: String,
    /// The folder of its notes.
    pub notes: PathBuf,
}

/// How to leave, as it is told on its stdin; when nothing more can be told, it closes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Leave the group before closing.
    pub unsubscribe: bool,
    /// Wait until the group is stable, and read from every partition before.
    pub is_patient: bool,
}

/// What it knows in callbacks, too.
struct Memory {
    notebook: Mutex<Notebook>,
    /// Where the next message is, of each partition with messages that were processed and are not committed.
    uncommitted: Mutex<BTreeMap<u32, u64>>,
    /// Partitions of its own that it did not read from yet.
    untouched: Mutex<BTreeSet<u32>>,
}

impl Memory {
    fn note(&self, note: Note) {
        self.notebook.lock().unwrap().write(note);
    }

    fn committed(&self, positions: impl IntoIterator<Item = (u32, u64)>) {
        let at_us = now_us();
        for (partition, next_offset) in positions {
            self.note(Note::Committed { partition, next_offset, at_us });
            let mut uncommitted = self.uncommitted.lock().unwrap();
            // More was processed while the commit was on its way.
            if uncommitted.get(&partition) == Some(&next_offset) {
                uncommitted.remove(&partition);
            }
        }
    }

    /// Commits what was processed of some partitions, or of all.
    fn commit(&self, of: Option<&[u32]>, consumer: &BaseConsumer<Memory>, mode: CommitMode) -> KafkaResult<()> {
        let mut positions = self.uncommitted.lock().unwrap().clone();
        positions.retain(|partition, _| of.is_none_or(|of| of.contains(partition)));
        if positions.is_empty() {
            return Ok(());
        }
        let mut list = TopicPartitionList::new();
        for (partition, next_offset) in &positions {
            list.add_partition_offset(TOPIC, *partition as i32, Offset::Offset(*next_offset as i64))?;
        }
        consumer.commit(&list, mode)?;
        if matches!(mode, CommitMode::Sync) {
            self.committed(positions);
        }
        Ok(())
    }

    fn give_back(&self, partitions: &[u32], consumer: &BaseConsumer<Memory>) {
        let committed = match consumer.assignment_lost() {
            true => Err("the assignment is lost".to_owned()),
            false => self.commit(Some(partitions), consumer, CommitMode::Sync).map_err(|error| error.to_string()),
        };
        if let Err(error) = &committed {
            eprintln!("{ERROR}at a rebalance: {error}");
        }
        let at_us = now_us();
        for partition in partitions.iter().copied() {
            self.uncommitted.lock().unwrap().remove(&partition);
            self.untouched.lock().unwrap().remove(&partition);
            self.note(match committed {
                Ok(()) => Note::Revoked { partition, at_us },
                Err(_) => Note::Lost { partition, at_us },
            });
        }
    }
}

fn partitions_of(list: &TopicPartitionList) -> Vec<u32> {
    list.elements().iter().filter_map(|element| u32::try_from(element.partition()).ok()).collect()
}

impl ClientContext for Memory {
    fn error(&self, error: KafkaError, reason: &str) {
        eprintln!("{ERROR}{error}: {reason}");
    }
}

impl ConsumerContext for Memory {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(list) => {
                let (partitions, at_us) = (partitions_of(list), now_us());
                self.untouched.lock().unwrap().extend(&partitions);
                partitions.into_iter().for_each(|partition| self.note(Note::Assigned { partition, at_us }));
            }
            Rebalance::Revoke(list) => self.give_back(&partitions_of(list), consumer),
            Rebalance::Error(error) => eprintln!("{ERROR}of a rebalance: {error}"),
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, list: &TopicPartitionList) {
        match result {
            Ok(()) => {
                let position = |offset: Offset| u64::try_from(offset.to_raw().unwrap_or(-1)).unwrap_or(0);
                let elements = list.elements();
                self.committed(elements.iter().map(|each| (each.partition() as u32, position(each.offset()))));
            }
            Err(error) => eprintln!("{ERROR}of a commit in between: {error}"),
        }
    }
}

/// What the process is there for, if it has this task.
pub fn run() {
    let Some(member) = child::task::<Member>() else { return };
    let orders = orders();
    let consumer = subscribed(&member).unwrap();
    let (mut committed, mut read) = (Instant::now(), Instant::now());
    let mut order: Option<(Order, Instant)> = None;
    loop {
        if let Some(message) = consumer.poll(Duration::from_millis(50)) {
            process(&message.unwrap(), consumer.context());
            read = Instant::now();
        }
        if read.elapsed() > SILENT_AFTER {
            consumer.context().untouched.lock().unwrap().clear();
        }
        if committed.elapsed() < COMMIT_AFTER {
            continue;
        }
        committed = Instant::now();
        order = order.or_else(|| orders.try_recv().ok().map(|order| (order, committed)));
        match order {
            Some((order, given)) => {
                assert!(given.elapsed() < PATIENCE, "it cannot leave");
                if is_ready_to_leave(&consumer, &member, order) {
                    return leave(consumer, &member, order);
                }
            }
            None => {
                if let Err(error) = consumer.context().commit(None, &consumer, CommitMode::Async) {
                    eprintln!("{ERROR}of a commit in between: {error}");
                }
            }
        }
    }
}

fn orders() -> Receiver<Order> {
    let (sender, orders) = mpsc::channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let _ = sender.send(serde_json::from_str(&line).unwrap());
        }
        let _ = sender.send(Order::default());
    });
    orders
}

fn subscribed(member: &Member) -> KafkaResult<BaseConsumer<Memory>> {
    let notebook = Mutex::new(Notebook::create(&member.notes.join(&member.name)));
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &member.brokers)
        .set("client.id", &member.name)
        .set("group.id", &member.group)
        .set("partition.assignment.strategy", &member.strategy)
        .set("session.timeout.ms", SESSION.as_millis().to_string())
        .set("heartbeat.interval.ms", HEARTBEAT.as_millis().to_string())
        .set("max.poll.interval.ms", "60000")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("fetch.wait.max.ms", "100")
        .set("check.crcs", "true");
    if let Some(instance) = &member.instance {
        config.set("group.instance.id", instance);
    }
    let consumer: BaseConsumer<Memory> =
        config.create_with_context(Memory { notebook, uncommitted: Mutex::default(), untouched: Mutex::default() })?;
    consumer.subscribe(&[TOPIC])?;
    Ok(consumer)
}

fn process(message: &BorrowedMessage<'_>, memory: &Memory) {
    let (partition, offset) = (message.partition() as u32, message.offset() as u64);
    assert_eq!(message.payload(), Some(load::payload(partition, offset).as_slice()), "{partition}/{offset}");
    memory.note(Note::Read { partition, offset, at_us: now_us() });
    memory.uncommitted.lock().unwrap().insert(partition, offset + 1);
    memory.untouched.lock().unwrap().remove(&partition);
}

/// Whether everything is committed, and the group can be told.
///
/// A static member does not know its id before it was let in, and cannot leave; librdkafka does not tell the group either
/// when a cooperative one without any partition is closed. Its LeaveGroup waits behind its JoinGroup, and is given up
/// after five seconds: a rebalance that waits for the session of another may last longer. Who is patient does not pass on
/// at once, either, what has waited for that long.
fn is_ready_to_leave(consumer: &BaseConsumer<Memory>, member: &Member, order: Order) -> bool {
    let is_untouched = || !consumer.context().untouched.lock().unwrap().is_empty();
    let may_leave = || !order.is_patient || stands(consumer, member) == Some(true) && !is_untouched();
    if consumer.assignment().unwrap().count() == 0 || !may_leave() {
        return false;
    }
    match consumer.context().commit(None, consumer, CommitMode::Sync) {
        Ok(()) => may_leave(),
        Err(error) if is_of_a_rebalance(&error) => {
            eprintln!("{ERROR}of the last commit: {error}");
            false
        }
        Err(error) => panic!("{error}"),
    }
}

/// Processes nothing any more, and goes.
///
/// librdkafka's close has been seen not to end, twice in some 4,000, of members of eager groups while others left: the time
/// that it was looked into, the session had ended, the group was empty, and the broker owed it no answer. Nothing depends
/// on it any more.
fn leave(consumer: BaseConsumer<Memory>, member: &Member, order: Order) {
    // Everything is committed. librdkafka does not always revoke when it is closed while it joins again.
    let (partitions, at_us) = (partitions_of(&consumer.assignment().unwrap()), now_us());
    partitions.into_iter().for_each(|partition| consumer.context().note(Note::Revoked { partition, at_us }));
    std::thread::spawn(|| {
        // A deadline; the process ends before.
        std::thread::sleep(CLOSE_MAX);
        eprintln!("{ERROR}it is never closed");
        std::process::exit(NEVER_CLOSED);
    });
    if order.unsubscribe {
        consumer.unsubscribe();
        while stands(&consumer, member).is_some() {
            // What comes is left to whoever is given the partition next.
            if let Some(Err(error)) = consumer.poll(Duration::from_millis(20)) {
                panic!("{error}");
            }
        }
    }
}

/// A commit that is refused because the group rebalances is to be tried again when it has.
fn is_of_a_rebalance(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{IllegalGeneration, RebalanceInProgress};
    matches!(error.rdkafka_error_code(), Some(IllegalGeneration | RebalanceInProgress))
}

/// Whether its group is stable; None when the coordinator does not count it among the members.
fn stands(consumer: &BaseConsumer<Memory>, member: &Member) -> Option<bool> {
    let list = consumer.fetch_group_list(Some(&member.group), PATIENCE).unwrap();
    let is_its = |group: &&GroupInfo| group.members().iter().any(|one| one.client_id() == member.name);
    list.groups().iter().find(is_its).map(|group| group.state() == "Stable")
}
