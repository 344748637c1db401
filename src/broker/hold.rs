//! Holds records of a topic against retention, for whoever still needs them; must not know what for.

use std::collections::BTreeMap;
use std::sync::Weak;

use super::node::Node;

/// Outlives the broker without keeping it: a broker that has stopped removes nothing.
#[derive(Clone, Debug)]
pub struct Holder(pub(super) Weak<Node>);

impl Holder {
    /// Retention keeps each partition's records from this offset on, and all of a partition that is not named. A hold
    /// lasts until the next one; clients may delete records all the same.
    pub fn hold(&self, topic: &str, from: &BTreeMap<i32, i64>) {
        let Some(node) = self.0.upgrade() else { return };
        let Some(topic) = node.catalog.topic(topic) else { return };
        for (index, partition) in (0..).zip(&topic.partitions) {
            partition.hold_from(from.get(&index).copied().unwrap_or(0));
        }
    }
}
