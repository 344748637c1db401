//! The table of topic configs: Apache Kafka 4's names, types, defaults, and what of them is true of this broker.
//!
//! A config that this broker does not honour may only be set to what it does anyway, so that a topic never promises what
//! nobody keeps.

/// Kafka's own default of `max.message.bytes`.
const MESSAGE_BYTES_MAX: &str = "1048588";
/// Above this a batch could not be fetched or replayed within our other bounds.
const MESSAGE_BYTES_LIMIT: i64 = 64 * 1024 * 1024;
pub(super) const SEGMENT_BYTES: i64 = 128 * 1024 * 1024;
pub(super) const SEGMENT_BYTES_MIN: i64 = 1024 * 1024;
const INT_MAX: i64 = i32::MAX as i64;
const NO_LIMIT: &str = "9223372036854775807";

/// What kind of value a config has, in DescribeConfigs' numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConfigType {
    Boolean = 1,
    Text = 2,
    Int = 3,
    Short = 4,
    Long = 5,
    Double = 6,
    List = 7,
}

/// Which values are possible.
#[derive(Clone, Copy, Debug)]
pub(super) enum Allowed {
    Numbers {
        min: i64,
        max: i64,
    },
    /// 0 to 1.
    Ratio,
    Words(&'static [&'static str]),
    /// Some of these, each once.
    SomeOf(&'static [&'static str]),
    /// Any positive number where every acknowledged batch is synced; else only "never".
    Flush,
}

#[derive(Debug)]
pub(super) struct Definition {
    pub name: &'static str,
    /// The broker's config that it takes its default from.
    pub synonym: &'static str,
    pub config_type: ConfigType,
    /// None: from the broker's own settings.
    pub default: Option<&'static str>,
    pub allowed: Allowed,
    /// Follows "it must be".
    pub expected: &'static str,
    pub documentation: &'static str,
}

impl Definition {
    /// Whether Apache Kafka has that broker config, and changes it at run time (KIP-226); here as well, within what is
    /// allowed.
    pub fn is_dynamic(&self) -> bool {
        // No brokers' configs there, and no way to say it for all topics; the last is set before a start.
        !self.name.ends_with(".throttled.replicas") && !self.name.starts_with("remote.")
    }
}

const fn row(
    (name, synonym, config_type): (&'static str, &'static str, ConfigType),
    default: &'static str,
    allowed: Allowed,
    expected: &'static str,
    documentation: &'static str,
) -> Definition {
    Definition { name, synonym, config_type, default: Some(default), allowed, expected, documentation }
}

const fn from_settings(
    (name, synonym, config_type): (&'static str, &'static str, ConfigType),
    allowed: Allowed,
    expected: &'static str,
    documentation: &'static str,
) -> Definition {
    Definition { name, synonym, config_type, default: None, allowed, expected, documentation }
}

const fn numbers(min: i64, max: i64) -> Allowed {
    Allowed::Numbers { min, max }
}

const fn only(number: i64) -> Allowed {
    numbers(number, number)
}

const NO: Allowed = Allowed::Words(&["false"]);
const NONE: Allowed = Allowed::Words(&[""]);
const MILLISECONDS: &str = "a number of milliseconds, 0 or more";
const ONE_NODE: &str = "empty: there is one node, and nothing to replicate";
const NO_TIERS: &str = "false: there is no tiered storage";
const LOCAL_ONLY: &str = "-2: there is no tiered storage, so retention.ms and retention.bytes say it all";
const ONE_LEVEL: &str = "its default: what the broker compresses anew it compresses at that level";
use ConfigType::{Boolean, Double, Int, List, Long, Text};

/// In order of name.
pub(super) static DEFINITIONS: [Definition; 33] = [
    row(
        ("cleanup.policy", "log.cleanup.policy", List),
        "delete",
        Allowed::SomeOf(&["compact", "delete"]),
        "delete, compact or both",
        "What removes records: delete cuts by retention.ms and retention.bytes, compact keeps the last record of a key.",
    ),
    row(
        ("compression.gzip.level", "compression.gzip.level", Int),
        "-1",
        only(-1),
        ONE_LEVEL,
        "The level at which the broker compresses anew: see compression.type.",
    ),
    row(
        ("compression.lz4.level", "compression.lz4.level", Int),
        "9",
        only(9),
        ONE_LEVEL,
        "The level at which the broker compresses anew: see compression.type.",
    ),
    row(
        ("compression.type", "compression.type", Text),
        "producer",
        Allowed::Words(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]),
        "uncompressed, zstd, lz4, snappy, gzip or producer",
        "How batches are stored: in the codec that the producer chose, or compressed anew where that is another one.",
    ),
    row(
        ("compression.zstd.level", "compression.zstd.level", Int),
        "3",
        only(3),
        ONE_LEVEL,
        "The level at which the broker compresses anew: see compression.type.",
    ),
    row(
        ("delete.retention.ms", "log.cleaner.delete.retention.ms", Long),
        "86400000",
        numbers(0, i64::MAX),
        MILLISECONDS,
        "How long a tombstone of a compacted topic stays after compaction has met it first.",
    ),
    row(
        ("file.delete.delay.ms", "log.segment.delete.delay.ms", Long),
        "0",
        only(0),
        "0: files are removed as soon as no start needs them; whoever reads one goes on reading it",
        "How long a file stays after it was deleted: not at all.",
    ),
    row(
        ("flush.messages", "log.flush.interval.messages", Long),
        NO_LIMIT,
        Allowed::Flush,
        "9223372036854775807 with --durability os, and any positive number with fsync: then all that is acknowledged is synced",
        "After how many messages the log is synced at the latest. With --durability fsync: before each acknowledgement.",
    ),
    row(
        ("flush.ms", "log.flush.interval.ms", Long),
        NO_LIMIT,
        Allowed::Flush,
        "9223372036854775807 with --durability os, and any positive number with fsync: then all that is acknowledged is synced",
        "After how long the log is synced at the latest. With --durability fsync: before each acknowledgement.",
    ),
    row(
        ("follower.replication.throttled.replicas", "follower.replication.throttled.replicas", List),
        "",
        NONE,
        ONE_NODE,
        "Replicas whose replication is slowed down: there are none.",
    ),
    row(
        ("index.interval.bytes", "log.index.interval.bytes", Int),
        "4096",
        only(4096),
        "4096: the distance between entries of the index is fixed",
        "Bytes of a segment between two entries of its index.",
    ),
    row(
        ("leader.replication.throttled.replicas", "leader.replication.throttled.replicas", List),
        "",
        NONE,
        ONE_NODE,
        "Replicas whose replication is slowed down: there are none.",
    ),
    row(
        ("local.retention.bytes", "log.local.retention.bytes", Long),
        "-2",
        only(-2),
        LOCAL_ONLY,
        "As retention.bytes.",
    ),
    row(("local.retention.ms", "log.local.retention.ms", Long), "-2", only(-2), LOCAL_ONLY, "As retention.ms."),
    row(
        ("max.compaction.lag.ms", "log.cleaner.max.compaction.lag.ms", Long),
        NO_LIMIT,
        numbers(1, i64::MAX),
        "a positive number of milliseconds",
        "A record of a compacted topic is looked at by compaction when it was appended longer ago, however little there is to clean.",
    ),
    row(
        ("max.message.bytes", "message.max.bytes", Int),
        MESSAGE_BYTES_MAX,
        numbers(0, MESSAGE_BYTES_LIMIT),
        "0 to 67108864 bytes",
        "The largest batch that is taken, in bytes as it arrives.",
    ),
    row(
        ("message.timestamp.after.max.ms", "log.message.timestamp.after.max.ms", Long),
        // Retention counts from the append here, so a wrong clock of a producer does no harm.
        NO_LIMIT,
        numbers(0, i64::MAX),
        MILLISECONDS,
        "A record whose timestamp is further ahead of the broker's clock is refused; CreateTime only.",
    ),
    row(
        ("message.timestamp.before.max.ms", "log.message.timestamp.before.max.ms", Long),
        NO_LIMIT,
        numbers(0, i64::MAX),
        MILLISECONDS,
        "A record whose timestamp is further behind the broker's clock is refused; CreateTime only.",
    ),
    row(
        ("message.timestamp.type", "log.message.timestamp.type", Text),
        "CreateTime",
        Allowed::Words(&["CreateTime", "LogAppendTime"]),
        "CreateTime or LogAppendTime",
        "Whose clock a record's timestamp is of: the producer's, or the broker's at the append.",
    ),
    row(
        ("min.cleanable.dirty.ratio", "log.cleaner.min.cleanable.ratio", Double),
        "0.5",
        Allowed::Ratio,
        "a number from 0 to 1",
        "A compacted topic is cleaned when a larger share of its closed segments' bytes was not looked at yet.",
    ),
    row(
        ("min.compaction.lag.ms", "log.cleaner.min.compaction.lag.ms", Long),
        "0",
        numbers(0, i64::MAX),
        MILLISECONDS,
        "What was appended more recently is not compacted.",
    ),
    row(
        ("min.insync.replicas", "min.insync.replicas", Int),
        "1",
        only(1),
        "1: there is one node",
        "Replicas that must have a batch before it is acknowledged to acks=all.",
    ),
    row(
        ("preallocate", "log.preallocate", Boolean),
        "false",
        NO,
        "false: the journal is allocated ahead, segments are not",
        "Whether a segment takes its room on disk when it is made.",
    ),
    row(("remote.log.copy.disable", "remote.log.copy.disable", Boolean), "false", NO, NO_TIERS, "Not used."),
    row(("remote.log.delete.on.disable", "remote.log.delete.on.disable", Boolean), "false", NO, NO_TIERS, "Not used."),
    row(
        ("remote.storage.enable", "remote.log.storage.system.enable", Boolean),
        "false",
        NO,
        NO_TIERS,
        "Whether old segments go elsewhere: no.",
    ),
    from_settings(
        ("retention.bytes", "log.retention.bytes", Long),
        numbers(-1, i64::MAX),
        "-1 (no limit) or a number of bytes",
        "Bytes of a partition beyond which its oldest segments are removed.",
    ),
    from_settings(
        ("retention.ms", "log.retention.ms", Long),
        numbers(-1, i64::MAX),
        "-1 (no limit) or a number of milliseconds",
        "A segment is removed when its last batch was appended longer ago.",
    ),
    from_settings(
        ("segment.bytes", "log.segment.bytes", Int),
        numbers(SEGMENT_BYTES_MIN, INT_MAX),
        "1048576 to 2147483647 bytes",
        "A segment is closed before it grows beyond this.",
    ),
    row(
        ("segment.index.bytes", "log.index.size.max.bytes", Int),
        "10485760",
        // 16 bytes for each 4096 of a segment that is as large as can be.
        numbers(8 * 1024 * 1024, INT_MAX),
        "8388608 or more: no index here grows beyond that, and none is allocated ahead",
        "The largest size of a segment's index.",
    ),
    row(
        ("segment.jitter.ms", "log.roll.jitter.ms", Long),
        "0",
        only(0),
        "0: segments are closed on time",
        "By how much the closing of segments is spread.",
    ),
    from_settings(
        ("segment.ms", "log.roll.ms", Long),
        numbers(1, i64::MAX),
        "a positive number of milliseconds",
        "A segment is closed when its first batch was appended longer ago.",
    ),
    row(
        ("unclean.leader.election.enable", "unclean.leader.election.enable", Boolean),
        "false",
        NO,
        "false: there is one node, and no election",
        "Whether a replica that is behind may become leader.",
    ),
];
