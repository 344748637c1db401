//! What we do otherwise than Apache Kafka, on purpose. Anything else that differs is a fault.

/// One deliberate difference. `*` in a pattern stands for anything, `|` stands between patterns.
#[derive(Debug)]
pub struct Difference {
    pub scenario: &'static str,
    /// Step and field: `1 Metadata v12: topics[t].error_code`.
    pub path: &'static str,
    pub kafka: &'static str,
    pub ours: &'static str,
    pub reason: &'static str,
}

const fn differs(
    scenario: &'static str,
    path: &'static str,
    kafka: &'static str,
    ours: &'static str,
    reason: &'static str,
) -> Difference {
    Difference { scenario, path, kafka, ours, reason }
}

/// All of them; the first that fits counts.
pub const DIFFERENCES: &[Difference] = &[
    // ---- Which APIs there are.
    differs(
        "ApiVersions in each version",
        "* api_keys[Produce].max_version|* api_keys[OffsetCommit].max_version|* api_keys[OffsetFetch].max_version",
        "1*",
        "*",
        "their last versions name topics by id, which kafka-protocol 0.18 cannot read",
    ),
    differs(
        "ApiVersions in each version",
        "* api_keys[Fetch].max_version|* api_keys[ListOffsets].max_version",
        "1*",
        "*",
        "what their last versions add is between brokers and for tiered storage",
    ),
    differs(
        "ApiVersions in each version",
        "* api_keys[AddPartitionsToTxn].max_version|* api_keys[EndTxn].max_version|* api_keys[TxnOffsetCommit].max_version\
         |* api_keys[WriteTxnMarkers].max_version|* api_keys[ListTransactions].max_version",
        "5|2",
        "4|3|1",
        "transaction.version is 1: the second part of KIP-890 is not served, nor a pattern of ids in Java's dialect",
    ),
    differs(
        "ApiVersions in each version",
        "* api_keys[SaslHandshake]|* api_keys[SaslAuthenticate]|* api_keys[*Acls]|* api_keys[*DelegationToken]\
         |* api_keys[*UserScramCredentials]|* api_keys[*ClientQuotas]",
        "present",
        "absent",
        "a broker on loopback, without users, permissions and quotas",
    ),
    differs(
        "ApiVersions in each version",
        "* api_keys[AlterReplicaLogDirs]|* api_keys[DescribeLogDirs]|* api_keys[ElectLeaders]\
         |* api_keys[*PartitionReassignments]|* api_keys[DescribeQuorum]|* api_keys[UpdateFeatures]\
         |* api_keys[UnregisterBroker]|* api_keys[*RaftVoter]",
        "present",
        "absent",
        "one node: there is nothing to elect, to move or to vote on",
    ),
    differs(
        "ApiVersions in each version",
        "* api_keys[ConsumerGroup*]|* api_keys[*Share*]|* api_keys[api 88]|* api_keys[api 89]",
        "present",
        "absent",
        "groups are classic ones; consumers of the new protocol, share groups and streams groups are not served",
    ),
    differs(
        "ApiVersions in each version",
        "* api_keys[ListConfigResources]|* api_keys[DescribeTopicPartitions]",
        "present",
        "absent",
        "tools fall back to DescribeConfigs and Metadata",
    ),
    differs(
        "ApiVersions in each version",
        "* supported_features*|* finalized_features*",
        "*",
        "absent|[]|-1",
        "no feature is switched on by level here",
    ),
    differs(
        "ApiVersions of a client*",
        "*",
        "42 InvalidRequest|[]|*",
        "0|absent|present",
        "a client's name is not used for anything, so any will do",
    ),
    differs(
        "FindCoordinator of a share group",
        "*.error_code",
        "15 CoordinatorNotAvailable",
        "42 InvalidRequest",
        "there are no share groups",
    ),
    // ---- Lists in which something stands twice.
    differs(
        "FindCoordinator of one key twice|DescribeConfigs of one topic twice|OffsetFetch of several groups*\
         |DescribeGroups of several and of none",
        "*#2]",
        "present",
        "absent",
        "asked for twice, answered once: an answer must not outgrow its question a thousand times",
    ),
    differs(
        "Produce to one partition twice in a request|Produce to one topic twice in a request",
        "*",
        "*",
        "*",
        "Apache Kafka drops all mentions of a partition but the last without a word; here each is appended and answered",
    ),
    // ---- Frames that no client sends.
    differs(
        "an array of more than there is",
        "* -2 topics:",
        "an answer",
        "the connection is closed",
        "only -1 is null; other negative counts are malformed",
    ),
    differs(
        "a null where none may be",
        "* Metadata v*",
        "the connection is closed",
        "an answer",
        "it can only mean that nothing, or no name, is asked for",
    ),
    differs(
        "a text that is none",
        "*",
        "an answer",
        "the connection is closed",
        "bytes that are no UTF-8 are refused, where Java replaces them and so mixes up names",
    ),
    differs(
        "Produce of null where records belong|AlterConfigs of one topic twice",
        "*",
        "nothing, and the connection stays open",
        "an answer",
        "Apache Kafka fails inside and never answers; here it is refused",
    ),
    differs(
        "Metadata by an id before that is allowed",
        "*",
        "*",
        "*",
        "the field is there in versions 10 and 11, so it is answered",
    ),
    differs(
        "Metadata by an id of zeros",
        "*",
        "*",
        "*",
        "Apache Kafka fails inside (UNKNOWN_SERVER_ERROR) and forgets its brokers; here no topic has this id",
    ),
    differs(
        "IncrementalAlterConfigs with an operation that there is not",
        "*.error_code",
        "-1",
        "42 InvalidRequest",
        "Apache Kafka fails inside (UNKNOWN_SERVER_ERROR)",
    ),
    // ---- Topics and configs.
    differs(
        "CreateTopics that only validates",
        "*.topic_id",
        "<topicid *>",
        "00000000-*",
        "what is only validated has no id",
    ),
    differs(
        "DescribeConfigs of *",
        "*[min.insync.replicas].config_source",
        "3",
        "5",
        "there it is a broker's dynamic default since KIP-966; here nothing else than 1 is possible",
    ),
    differs(
        "DescribeConfigs of *",
        "*[segment.bytes].*|*[segment.ms].*|*[retention.bytes].*",
        "*",
        "*",
        "what is kept is bounded in bytes by a flag, and segments are small enough to be cut in time",
    ),
    differs(
        "DescribeConfigs of *",
        "*[file.delete.delay.ms].value",
        "\"60000\"",
        "\"0\"",
        "files are deleted at once: readers that have them open go on",
    ),
    differs(
        "DescribeConfigs of *",
        "*[message.timestamp.after.max.ms].value",
        "\"3600000\"",
        "*",
        "retention counts from the append, so a producer's clock that runs ahead does no harm",
    ),
    differs(
        "DescribeConfigs of what a broker tells",
        "group.min.session.timeout.ms",
        "Some(\"6000\"), type 3",
        "Some(\"100\"), type 3",
        "tests want groups that notice a death quickly",
    ),
    differs(
        "JoinGroup with the shortest session timeout of Apache Kafka and less",
        "2 JoinGroup*",
        "*",
        "*",
        "tests want groups that notice a death quickly: sessions may last 100 ms",
    ),
    differs(
        "*AlterConfigs out of range",
        "7 *.error_code",
        "0",
        "40 InvalidConfig",
        "an empty cleanup.policy keeps everything for ever: say retention.ms=-1 and retention.bytes=-1",
    ),
    differs("*AlterConfigs out of range", "9 *.error_code", "0", "40 InvalidConfig", "NaN is no ratio"),
    differs(
        "AlterConfigs of a broker replaces all",
        "* log.flush.interval.ms",
        "Some((\"null\",*",
        "*",
        "where it is not set, Apache Kafka tells nothing of it; here the value is told that topics have then",
    ),
    differs(
        "Brokers' configs that are not known",
        "1 *",
        "error 0",
        "error 42",
        "there it could be a plug-in's; here nobody would read it",
    ),
    differs(
        "Brokers' retention below none at all",
        "1 *",
        "error 0",
        "error 42",
        "Apache Kafka looks only whether it is a number; here what no topic may have is not set for all either",
    ),
    // ---- Produce.
    differs(
        "Produce of a batch cut short",
        "*.error_code",
        "87 InvalidRecord",
        "2 CorruptMessage",
        "what was cut off on its way is worth another try",
    ),
    differs(
        "Produce of two batches in one partition|two batches of an idempotent producer in one partition of a request",
        "*",
        "*",
        "*",
        "several batches in one partition of a request are appended together or not at all",
    ),
    differs(
        "Produce of a batch with bytes behind it",
        "*",
        "*",
        "*",
        "nothing may stand behind a batch; there a few bytes are dropped without a word",
    ),
    differs(
        "Produce of *",
        "*.error_code",
        "-1",
        "87 InvalidRecord",
        "Apache Kafka fails inside (UNKNOWN_SERVER_ERROR)",
    ),
    differs(
        "Produce of batches that contradict themselves",
        "13 *|14 *|15 *",
        "*",
        "*",
        "attributes that no producer may set are refused, not stored: the log's own kind of time, a delete horizon, unknown bits",
    ),
    differs(
        "Produce of batches that contradict themselves",
        "17 *",
        "*",
        "*",
        "the base offset that a client writes is replaced by the log's, whatever it is",
    ),
    differs(
        "Produce of batches that contradict themselves",
        "16 *.base_offset|18 Fetch *",
        "*",
        "*",
        "what the lines above leave behind",
    ),
    differs(
        "Produce of packed records that contradict their batch",
        "4 *",
        "*",
        "*",
        "headers of records are opaque to this broker: a wrong count of them is the reader's to find",
    ),
    differs(
        "Produce of times too early and too late",
        "5 *|10 *",
        "*",
        "*",
        "message.timestamp.after.max.ms has no limit unless it is set",
    ),
    differs("Produce *", "*.log_start_offset", "0", "-1", "nothing is told of the log beside a refusal"),
    differs(
        "Produce *",
        "*.record_errors*",
        "*",
        "*",
        "a batch is refused as a whole, without a list of its records (KIP-467)",
    ),
    differs("a producer without a sequence or an epoch", "6 *", "*", "*", "-2 is no producer's id"),
    // ---- Fetch and offsets.
    differs(
        "Fetch of one byte brings one batch",
        "5 *|6 *",
        "*",
        "*",
        "a negative limit is none at all; Apache Kafka fails inside (UNKNOWN_SERVER_ERROR)",
    ),
    differs(
        "Fetch of as many bytes as one batch and a half",
        "*.records[*]",
        "*",
        "absent",
        "batches are sent whole: what is cut off at the end is thrown away by every client",
    ),
    differs(
        "Fetch of committed records where there are no transactions",
        "15 *",
        "*",
        "*",
        "isolation levels other than 1 read uncommitted; Apache Kafka fails inside (UNKNOWN_SERVER_ERROR)",
    ),
    differs(
        "Fetch as a replica that there is not",
        "1 *",
        "*",
        "*",
        "there are no replicas: whoever fetches is a consumer",
    ),
    differs("OffsetForLeaderEpoch of other epochs", "7 *", "*", "*", "an epoch below zero ends nowhere"),
    // ---- Groups.
    differs(
        "OffsetCommit with an empty group id",
        "*.error_code",
        "0",
        "24 InvalidGroupId",
        "the empty group id is deprecated for commits, and would be everybody's",
    ),
];
