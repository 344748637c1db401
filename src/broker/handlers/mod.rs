//! One file an API: Kafka's messages on one side, log, catalog and groups on the other. Kafka's error codes are mapped
//! in `errors`, and nowhere else.

pub(crate) mod add_offsets_to_txn;
pub(crate) mod add_partitions_to_txn;
pub(crate) mod alter_configs;
pub(crate) mod api_versions;
mod asked;
pub(crate) mod create_partitions;
pub(crate) mod create_topics;
pub(crate) mod delete_groups;
pub(crate) mod delete_records;
pub(crate) mod delete_topics;
pub(crate) mod describe_cluster;
pub(crate) mod describe_configs;
pub(crate) mod describe_groups;
pub(crate) mod describe_producers;
pub(crate) mod describe_transactions;
pub(crate) mod end_txn;
mod errors;
pub(crate) mod fetch;
mod fetch_encoder;
mod fetch_session;
pub(crate) mod find_coordinator;
pub(crate) mod heartbeat;
pub(crate) mod incremental_alter_configs;
pub(crate) mod init_producer_id;
pub(crate) mod join_group;
pub(crate) mod leave_group;
pub(crate) mod list_groups;
pub(crate) mod list_offsets;
pub(crate) mod list_transactions;
pub(crate) mod metadata;
pub(crate) mod offset_commit;
pub(crate) mod offset_delete;
pub(crate) mod offset_fetch;
pub(crate) mod offset_for_leader_epoch;
pub(crate) mod produce;
pub(crate) mod sync_group;
pub(crate) mod txn_offset_commit;
pub(crate) mod write_txn_markers;

use kafka_protocol::protocol::StrBytes;

use super::aside::{aside, unfolding};
use crate::broker::log::Isolation;

/// What a client calls the isolation level; every other number than 1 is "read uncommitted".
fn isolation(level: i8) -> Isolation {
    if level == 1 { Isolation::Committed } else { Isolation::Uncommitted }
}

/// A string for an answer.
fn text(text: impl Into<String>) -> StrBytes {
    StrBytes::from_string(text.into())
}

/// "Not asked for", where a bit set of permitted operations stands.
const OPERATIONS_UNKNOWN: i32 = i32::MIN;
/// Read, write, create, delete, alter, describe, describe and alter configs: everyone may do everything here.
const TOPIC_OPERATIONS: i32 = 0b1101_1111_1000;
/// Create, alter, describe, cluster action, describe and alter configs, idempotent write.
const CLUSTER_OPERATIONS: i32 = 0b1_1111_1010_0000;
/// Read, delete, describe, describe and alter configs.
const GROUP_OPERATIONS: i32 = 0b1101_0100_1000;
