//! The kinds of groups, and what all of them have in common.

use std::time::Duration;

pub const TOPIC: &str = "rebalance";
pub const PARTITIONS: u32 = 12;
/// Each member's `session.timeout.ms`.
pub const SESSION: Duration = Duration::from_secs(6);
/// Members learn of a rebalance by a heartbeat, and librdkafka joins once a second: a partition that was given to one who
/// died in the middle of a rebalance waits for that, for its session, and for the next heartbeat.
pub const HEARTBEAT: Duration = Duration::from_millis(300);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Static {
    Nobody,
    Everybody,
    EveryOther,
}

#[derive(Debug)]
pub struct Kind {
    /// Of the group, too.
    pub name: &'static str,
    /// `partition.assignment.strategy`
    pub strategy: &'static str,
    statics: Static,
}

impl Kind {
    pub const ALL: [Kind; 6] = [
        Kind { name: "eager-dynamic", strategy: "range", statics: Static::Nobody },
        Kind { name: "eager-static", strategy: "roundrobin", statics: Static::Everybody },
        Kind { name: "eager-mixed", strategy: "range", statics: Static::EveryOther },
        Kind { name: "cooperative-dynamic", strategy: "cooperative-sticky", statics: Static::Nobody },
        Kind { name: "cooperative-static", strategy: "cooperative-sticky", statics: Static::Everybody },
        Kind { name: "cooperative-mixed", strategy: "cooperative-sticky", statics: Static::EveryOther },
    ];

    pub fn is_static(&self, slot: usize) -> bool {
        match self.statics {
            Static::Nobody => false,
            Static::Everybody => true,
            Static::EveryOther => slot.is_multiple_of(2),
        }
    }
}
