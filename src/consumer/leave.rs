//! How a consumer leaves its group, so that the group knows at once and not when its session has ended.
//!
//! A static member that only closes says nothing (KIP-345); one that unsubscribes does. But librdkafka can say nothing
//! before the group has let it in for the first time, since it does not know its member id by then; and closing it takes
//! back what it has not sent yet. In both cases the group goes on counting with a member that is gone: its rebalances wait
//! for it, and its partitions with them (measured: 14 s, with two of them in a row).

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;

use super::rebalance::Context;
use super::shared::{Mode, Shared};

const POLL_TIMEOUT: Duration = Duration::from_millis(10);
/// One question to the group's coordinator.
const ASK_TIMEOUT: Duration = Duration::from_millis(500);

/// Under which name this consumer is in which group.
pub(super) struct Membership {
    pub group: String,
    client_id: String,
}

impl Membership {
    pub(super) fn of(config: &ClientConfig) -> Self {
        let property = |name| config.get(name).unwrap_or_default().to_owned();
        Membership { group: property("group.id"), client_id: property("client.id") }
    }

    /// Gives the partitions back and waits until the group counts without this member, or `leave_by`.
    pub(super) fn leave(&self, consumer: &BaseConsumer<Context>, shared: &Shared, leave_by: Instant) {
        let is_time = || Instant::now() < leave_by && shared.mode() < Mode::Now;
        while !shared.has_joined() && is_time() {
            // Without an answer there is nobody to tell.
            if self.is_counted(consumer).is_err() {
                break;
            }
            drop(consumer.poll(POLL_TIMEOUT));
        }
        consumer.unsubscribe();
        while is_time() {
            // What is still delivered is not stored: it is read again by the next owner.
            drop(consumer.poll(POLL_TIMEOUT));
            if shared.assignment().is_empty() && !matches!(self.is_counted(consumer), Ok(true)) {
                return;
            }
        }
        tracing::warn!("the group was not told in time that this consumer leaves: it waits for the end of its session");
    }

    /// Whether the group has a member of this name.
    fn is_counted(&self, consumer: &BaseConsumer<Context>) -> KafkaResult<bool> {
        let list = consumer.fetch_group_list(Some(&self.group), ASK_TIMEOUT)?;
        let mut members = list.groups().iter().flat_map(|group| group.members());
        Ok(members.any(|member| member.client_id() == self.client_id))
    }
}
