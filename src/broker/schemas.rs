//! The shapes of the requests that this broker takes, one table an API.
//!
//! Field by field in wire order, after Apache Kafka's message definitions (`clients/src/main/resources/common/message`);
//! a test checks each against `kafka-protocol`'s decoder in every version that we advertise.

use super::schema::Kind::{Array, Blob, Fixed, Struct, Structs, Text};
use super::schema::{Field, Kind, Schema};

const fn always(kind: Kind) -> Field {
    Field { first: 0, last: i16::MAX, tag: None, kind }
}

const fn since(first: i16, kind: Kind) -> Field {
    Field { first, last: i16::MAX, tag: None, kind }
}

const fn between(first: i16, last: i16, kind: Kind) -> Field {
    Field { first, last, tag: None, kind }
}

const fn tag(tag: u32, first: i16, kind: Kind) -> Field {
    Field { first, last: i16::MAX, tag: Some(tag), kind }
}

/// Produce
pub(crate) static PRODUCE: Schema = Schema {
    flexible_from: 9,
    fields: &[
        always(Text),
        always(Fixed(2)),
        always(Fixed(4)),
        always(Structs(&[
            between(0, 12, Text),
            since(13, Fixed(16)),
            always(Structs(&[always(Fixed(4)), always(Blob)])),
        ])),
    ],
};
/// Fetch
pub(crate) static FETCH: Schema = Schema {
    flexible_from: 12,
    fields: &[
        between(0, 14, Fixed(4)),
        always(Fixed(4)),
        always(Fixed(4)),
        always(Fixed(4)),
        always(Fixed(1)),
        since(7, Fixed(4)),
        since(7, Fixed(4)),
        always(Structs(&[
            between(0, 12, Text),
            since(13, Fixed(16)),
            always(Structs(&[
                always(Fixed(4)),
                since(9, Fixed(4)),
                always(Fixed(8)),
                since(12, Fixed(4)),
                since(5, Fixed(8)),
                always(Fixed(4)),
                tag(0, 17, Fixed(16)),
                tag(1, 18, Fixed(8)),
            ])),
        ])),
        since(7, Structs(&[between(7, 12, Text), since(13, Fixed(16)), since(7, Array(&Fixed(4)))])),
        since(11, Text),
        tag(0, 0, Text),
        tag(1, 15, Struct(&[since(15, Fixed(4)), since(15, Fixed(8))])),
    ],
};
/// ListOffsets
pub(crate) static LIST_OFFSETS: Schema = Schema {
    flexible_from: 6,
    fields: &[
        always(Fixed(4)),
        since(2, Fixed(1)),
        always(Structs(&[always(Text), always(Structs(&[always(Fixed(4)), since(4, Fixed(4)), always(Fixed(8))]))])),
        since(10, Fixed(4)),
    ],
};
/// Metadata
pub(crate) static METADATA: Schema = Schema {
    flexible_from: 9,
    fields: &[
        always(Structs(&[since(10, Fixed(16)), always(Text)])),
        since(4, Fixed(1)),
        between(8, 10, Fixed(1)),
        since(8, Fixed(1)),
    ],
};
/// OffsetCommit
pub(crate) static OFFSET_COMMIT: Schema = Schema {
    flexible_from: 8,
    fields: &[
        always(Text),
        always(Fixed(4)),
        always(Text),
        since(7, Text),
        between(0, 4, Fixed(8)),
        always(Structs(&[
            always(Text),
            always(Structs(&[always(Fixed(4)), always(Fixed(8)), since(6, Fixed(4)), always(Text)])),
        ])),
    ],
};
/// OffsetFetch
pub(crate) static OFFSET_FETCH: Schema = Schema {
    flexible_from: 6,
    fields: &[
        between(0, 7, Text),
        between(0, 7, Structs(&[between(0, 7, Text), between(0, 7, Array(&Fixed(4)))])),
        since(
            8,
            Structs(&[
                since(8, Text),
                since(9, Text),
                since(9, Fixed(4)),
                since(8, Structs(&[since(8, Text), since(8, Array(&Fixed(4)))])),
            ]),
        ),
        since(7, Fixed(1)),
    ],
};
/// FindCoordinator
pub(crate) static FIND_COORDINATOR: Schema =
    Schema { flexible_from: 3, fields: &[between(0, 3, Text), since(1, Fixed(1)), since(4, Array(&Text))] };
/// JoinGroup
pub(crate) static JOIN_GROUP: Schema = Schema {
    flexible_from: 6,
    fields: &[
        always(Text),
        always(Fixed(4)),
        since(1, Fixed(4)),
        always(Text),
        since(5, Text),
        always(Text),
        always(Structs(&[always(Text), always(Blob)])),
        since(8, Text),
    ],
};
/// Heartbeat
pub(crate) static HEARTBEAT: Schema =
    Schema { flexible_from: 4, fields: &[always(Text), always(Fixed(4)), always(Text), since(3, Text)] };
/// LeaveGroup
pub(crate) static LEAVE_GROUP: Schema = Schema {
    flexible_from: 4,
    fields: &[always(Text), between(0, 2, Text), since(3, Structs(&[since(3, Text), since(3, Text), since(5, Text)]))],
};
/// SyncGroup
pub(crate) static SYNC_GROUP: Schema = Schema {
    flexible_from: 4,
    fields: &[
        always(Text),
        always(Fixed(4)),
        always(Text),
        since(3, Text),
        since(5, Text),
        since(5, Text),
        always(Structs(&[always(Text), always(Blob)])),
    ],
};
/// DescribeGroups
pub(crate) static DESCRIBE_GROUPS: Schema =
    Schema { flexible_from: 5, fields: &[always(Array(&Text)), since(3, Fixed(1))] };
/// ListGroups
pub(crate) static LIST_GROUPS: Schema =
    Schema { flexible_from: 3, fields: &[since(4, Array(&Text)), since(5, Array(&Text))] };
/// ApiVersions
pub(crate) static API_VERSIONS: Schema = Schema { flexible_from: 3, fields: &[since(3, Text), since(3, Text)] };
/// CreateTopics
pub(crate) static CREATE_TOPICS: Schema = Schema {
    flexible_from: 5,
    fields: &[
        always(Structs(&[
            always(Text),
            always(Fixed(4)),
            always(Fixed(2)),
            always(Structs(&[always(Fixed(4)), always(Array(&Fixed(4)))])),
            always(Structs(&[always(Text), always(Text)])),
        ])),
        always(Fixed(4)),
        always(Fixed(1)),
    ],
};
/// DeleteTopics
pub(crate) static DELETE_TOPICS: Schema = Schema {
    flexible_from: 4,
    fields: &[since(6, Structs(&[since(6, Text), since(6, Fixed(16))])), between(0, 5, Array(&Text)), always(Fixed(4))],
};
/// DeleteRecords
pub(crate) static DELETE_RECORDS: Schema = Schema {
    flexible_from: 2,
    fields: &[
        always(Structs(&[always(Text), always(Structs(&[always(Fixed(4)), always(Fixed(8))]))])),
        always(Fixed(4)),
    ],
};
/// InitProducerId
pub(crate) static INIT_PRODUCER_ID: Schema =
    Schema { flexible_from: 2, fields: &[always(Text), always(Fixed(4)), since(3, Fixed(8)), since(3, Fixed(2))] };
/// AddPartitionsToTxn
pub(crate) static ADD_PARTITIONS_TO_TXN: Schema = Schema {
    flexible_from: 3,
    fields: &[
        always(Text),
        always(Fixed(8)),
        always(Fixed(2)),
        always(Structs(&[always(Text), always(Array(&Fixed(4)))])),
    ],
};
/// AddOffsetsToTxn
pub(crate) static ADD_OFFSETS_TO_TXN: Schema =
    Schema { flexible_from: 3, fields: &[always(Text), always(Fixed(8)), always(Fixed(2)), always(Text)] };
/// EndTxn
pub(crate) static END_TXN: Schema =
    Schema { flexible_from: 3, fields: &[always(Text), always(Fixed(8)), always(Fixed(2)), always(Fixed(1))] };
/// WriteTxnMarkers
pub(crate) static WRITE_TXN_MARKERS: Schema = Schema {
    flexible_from: 1,
    fields: &[always(Structs(&[
        always(Fixed(8)),
        always(Fixed(2)),
        always(Fixed(1)),
        always(Structs(&[always(Text), always(Array(&Fixed(4)))])),
        always(Fixed(4)),
    ]))],
};
/// TxnOffsetCommit
pub(crate) static TXN_OFFSET_COMMIT: Schema = Schema {
    flexible_from: 3,
    fields: &[
        always(Text),
        always(Text),
        always(Fixed(8)),
        always(Fixed(2)),
        since(3, Fixed(4)),
        since(3, Text),
        since(3, Text),
        always(Structs(&[
            always(Text),
            always(Structs(&[always(Fixed(4)), always(Fixed(8)), since(2, Fixed(4)), always(Text)])),
        ])),
    ],
};
/// OffsetForLeaderEpoch
pub(crate) static OFFSET_FOR_LEADER_EPOCH: Schema = Schema {
    flexible_from: 4,
    fields: &[
        since(3, Fixed(4)),
        always(Structs(&[always(Text), always(Structs(&[always(Fixed(4)), always(Fixed(4)), always(Fixed(4))]))])),
    ],
};
/// DescribeConfigs
pub(crate) static DESCRIBE_CONFIGS: Schema = Schema {
    flexible_from: 4,
    fields: &[
        always(Structs(&[always(Fixed(1)), always(Text), always(Array(&Text))])),
        always(Fixed(1)),
        since(3, Fixed(1)),
    ],
};
/// AlterConfigs
pub(crate) static ALTER_CONFIGS: Schema = Schema {
    flexible_from: 2,
    fields: &[
        always(Structs(&[always(Fixed(1)), always(Text), always(Structs(&[always(Text), always(Text)]))])),
        always(Fixed(1)),
    ],
};
/// CreatePartitions
pub(crate) static CREATE_PARTITIONS: Schema = Schema {
    flexible_from: 2,
    fields: &[
        always(Structs(&[always(Text), always(Fixed(4)), always(Structs(&[always(Array(&Fixed(4)))]))])),
        always(Fixed(4)),
        always(Fixed(1)),
    ],
};
/// DeleteGroups
pub(crate) static DELETE_GROUPS: Schema = Schema { flexible_from: 2, fields: &[always(Array(&Text))] };
/// IncrementalAlterConfigs
pub(crate) static INCREMENTAL_ALTER_CONFIGS: Schema = Schema {
    flexible_from: 1,
    fields: &[
        always(Structs(&[
            always(Fixed(1)),
            always(Text),
            always(Structs(&[always(Text), always(Fixed(1)), always(Text)])),
        ])),
        always(Fixed(1)),
    ],
};
/// OffsetDelete
pub(crate) static OFFSET_DELETE: Schema = Schema {
    flexible_from: i16::MAX,
    fields: &[always(Text), always(Structs(&[always(Text), always(Structs(&[always(Fixed(4))]))]))],
};
/// DescribeCluster
pub(crate) static DESCRIBE_CLUSTER: Schema =
    Schema { flexible_from: 0, fields: &[always(Fixed(1)), since(1, Fixed(1)), since(2, Fixed(1))] };
/// DescribeProducers
pub(crate) static DESCRIBE_PRODUCERS: Schema =
    Schema { flexible_from: 0, fields: &[always(Structs(&[always(Text), always(Array(&Fixed(4)))]))] };
/// DescribeTransactions
pub(crate) static DESCRIBE_TRANSACTIONS: Schema = Schema { flexible_from: 0, fields: &[always(Array(&Text))] };
/// ListTransactions
pub(crate) static LIST_TRANSACTIONS: Schema =
    Schema { flexible_from: 0, fields: &[always(Array(&Text)), always(Array(&Fixed(8))), since(1, Fixed(8))] };
