//! The tests of librdkafka's suite that need a broker: which are run, and why the others are not.
//!
//! Names are those of its `test.c` (librdkafka 2.12). Tests against its mock cluster and tests without any broker are not
//! listed: they say nothing of ours. Neither is 0047, of which the suite says that it fails by itself.

/// What is done with a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    Run,
    /// Run, but only the parts of it whose name contains one of these.
    Parts(&'static [&'static str], &'static str),
    /// Run as against a broker of this version, which leaves a part out.
    As(&'static str, &'static str),
    Skip(&'static str),
}

impl Plan {
    /// Why the test is not run, if it is not.
    pub fn skipped(&self) -> Option<&'static str> {
        if let Plan::Skip(reason) = self { Some(reason) } else { None }
    }
}

/// One test.
#[derive(Clone, Copy, Debug)]
pub struct Test {
    pub name: &'static str,
    pub plan: Plan,
    /// Whether topics must not appear by being asked for.
    pub without_auto_creation: bool,
    /// Also in the run for CI.
    pub in_subset: bool,
}

impl Test {
    /// What the suite calls it in `TESTS`.
    pub fn number(&self) -> &'static str {
        &self.name[..4]
    }
}

const fn run(name: &'static str) -> Test {
    Test { name, plan: Plan::Run, without_auto_creation: false, in_subset: false }
}

const fn quick(name: &'static str) -> Test {
    Test { in_subset: true, ..run(name) }
}

const fn skip(name: &'static str, reason: &'static str) -> Test {
    Test { plan: Plan::Skip(reason), ..run(name) }
}

const fn without_auto_creation(name: &'static str) -> Test {
    Test { without_auto_creation: true, ..run(name) }
}

const TLS: &str = "needs TLS: the embedded broker serves plain connections on its own machine";
const SASL: &str = "needs SASL: the embedded broker asks nobody for a password";
const ACLS: &str = "needs an authorizer: the embedded broker has no users to tell apart";
const SMALL_SEGMENTS: &str =
    "asks for segment.bytes of 10,000 or 20,000: Apache Kafka 4 takes 1 MiB or more (KIP-1030), and so do we";

/// In order of number.
pub const TESTS: &[Test] = &[
    quick("0001_multiobj"),
    quick("0002_unkpart"),
    run("0003_msgmaxsize"),
    quick("0005_order"),
    quick("0007_autotopic"),
    quick("0008_reqacks"),
    quick("0011_produce_batch"),
    quick("0012_produce_consume"),
    quick("0013_null_msgs"),
    run("0014_reconsume_191"),
    run("0015_offsets_seek"),
    quick("0016_client_swname"),
    quick("0017_compression"),
    run("0018_cgrp_term"),
    quick("0019_list_groups"),
    run("0020_destroy_hang"),
    quick("0021_rkt_destroy"),
    run("0022_consume_batch"),
    run("0026_consume_pause"),
    skip(
        "0028_long_topicnames",
        "asks for a topic name of 255 bytes, which no Kafka takes; the suite itself leaves it out",
    ),
    run("0029_assign_offset"),
    run("0030_offset_commit"),
    quick("0031_get_offsets"),
    run("0033_regex_subscribe"),
    quick("0034_offset_reset"),
    quick("0035_api_version"),
    quick("0036_partial_fetch"),
    run("0038_performance"),
    quick("0039_event_dr"),
    run("0040_io_event"),
    run("0041_fetch_max_bytes"),
    run("0042_many_topics"),
    run("0044_partition_cnt"),
    run("0045_subscribe_update"),
    run("0045_resubscribe_with_regex"),
    run("0045_subscribe_many_updates"),
    without_auto_creation("0045_subscribe_update_topic_remove"),
    without_auto_creation("0045_subscribe_update_non_exist_and_partchange"),
    run("0048_partitioner"),
    run("0049_consume_conn_close"),
    run("0050_subscribe_adds"),
    run("0051_assign_adds"),
    quick("0052_msg_timestamps"),
    quick("0053_stats"),
    quick("0054_offset_time"),
    run("0055_producer_latency"),
    run("0056_balanced_group_mt"),
    quick("0057_invalid_topic"),
    run("0059_bsearch"),
    run("0060_op_prio"),
    run("0061_consumer_lag"),
    quick("0063_clusterid"),
    run("0064_interceptors"),
    run("0065_yield"),
    run("0067_empty_topic"),
    run("0068_produce_timeout"),
    run("0069_consumer_add_parts"),
    quick("0070_null_empty"),
    quick("0073_headers"),
    run("0075_retry"),
    run("0076_produce_retry"),
    skip("0077_compaction", SMALL_SEGMENTS),
    Test {
        plan: Plan::Parts(
            &[
                "Topics",
                "CreatePartitions",
                "do_test_DescribeConfigs:",
                "DeleteRecords",
                "ConsumerGroup",
                "DeleteGroups",
                "ListOffsets",
                "DescribeCluster",
                "unclean_destroy",
            ],
            "without its parts on ACLs and SCRAM users (there are no users to tell apart), and those that also set, at run time, \
             what this broker has not: Kerberos, background threads, settings of groups",
        ),
        ..run("0081_admin")
    },
    run("0082_fetch_max_bytes"),
    run("0083_cb_event"),
    run("0084_destroy_flags"),
    run("0085_headers"),
    run("0086_purge_remote"),
    run("0088_produce_metadata_timeout"),
    run("0089_max_poll_interval"),
    quick("0090_idempotence"),
    run("0091_max_poll_interval_timeout"),
    skip("0092_mixed_msgver", "skips itself: Apache Kafka 4 knows no old message formats, and neither do we"),
    run("0093_holb_consumer"),
    run("0094_idempotence_msg_timeout"),
    skip("0097_ssl_verify", TLS),
    skip("0098_consumer_txn", "needs a Java program and RapidJSON; skips itself without"),
    quick("0099_commit_metadata"),
    skip("0101_fetch_from_follower", "needs three brokers in three racks, and RapidJSON; skips itself without"),
    run("0102_static_group_rebalance"),
    run("0103_transactions"),
    without_auto_creation("0107_topic_recreate"),
    Test {
        plan: Plan::As("2.0.0", "without its part on a topic that is forbidden: that needs an authorizer"),
        ..run("0109_auto_create_topics")
    },
    quick("0110_batch_size"),
    without_auto_creation("0111_delay_create_topics"),
    run("0112_assign_unknown_part"),
    Test {
        plan: Plan::Parts(
            &[
                "a_assign",
                "b_subscribe",
                "c_subscribe",
                "d_change",
                "e_change",
                "f_assign",
                "g_incremental",
                "h_delete",
                "i_delete",
                "j_delete",
                "k_add",
                "l_unsubscribe",
                "m_unsubscribe",
                "n_wildcard",
                "s_subscribe",
                "t_max",
                "u_multiple",
                "v_commit",
                "x_incremental",
            ],
            "without its part o_java_interop, which needs a Java program",
        ),
        ..run("0113_cooperative_rebalance")
    },
    run("0114_sticky_partitioning"),
    skip("0115_producer_auth", ACLS),
    run("0118_commit_rebalance"),
    skip("0119_consumer_auth", ACLS),
    run("0122_buffer_cleaning_after_rebalance"),
    run("0123_connections_max_idle"),
    quick("0125_immediate_flush"),
    skip("0126_oauthbearer_oidc", SASL),
    run("0127_fetch_queue_backoff"),
    skip("0129_fetch_aborted_msgs", SMALL_SEGMENTS),
    quick("0130_store_offsets"),
    run("0132_strategy_ordering"),
    skip("0135_sasl_credentials", SASL),
    run("0137_barrier_batch_consume"),
    quick("0140_commit_metadata"),
    skip("0142_reauthentication", SASL),
    skip("0153_memberid", "skips itself: only for the consumer protocol of KIP-848"),
];
