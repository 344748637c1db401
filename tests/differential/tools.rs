//! Apache Kafka's own command-line tools against our broker: each is run by `java -cp` from the fetched jars, and must
//! end as it should and say what it should.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// Small and quick to start: most of a tool's time is Java's.
const JAVA_OPTIONS: [&str; 5] =
    ["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-Dlog4j2.level=ERROR"];

/// One run of a tool. In arguments, `{b}` stands for HOST:PORT and `{dir}` for a folder.
struct Tool {
    class: &'static str,
    arguments: &'static str,
    /// Whether it ends with 0.
    succeeds: bool,
    /// What its output holds, on either stream.
    says: &'static [&'static str],
}

const fn tool(class: &'static str, arguments: &'static str, says: &'static [&'static str]) -> Tool {
    Tool { class, arguments, succeeds: true, says }
}

const fn refused(class: &'static str, arguments: &'static str, says: &'static [&'static str]) -> Tool {
    Tool { class, arguments, succeeds: false, says }
}

const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";
const CONFIGS: &str = "kafka.admin.ConfigCommand";
const GROUPS: &str = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
const OFFSETS: &str = "org.apache.kafka.tools.GetOffsetShell";
const TRANSACTIONS: &str = "org.apache.kafka.tools.TransactionsCommand";

/// What is done to topics, step by step.
const ON_TOPICS: &[Tool] = &[
    tool(
        TOPICS,
        "--bootstrap-server {b} --create --topic tools --partitions 3 --replication-factor 1",
        &["Created topic tools."],
    ),
    refused(TOPICS, "--bootstrap-server {b} --create --topic tools", &["already exists"]),
    tool(TOPICS, "--bootstrap-server {b} --alter --topic tools --partitions 4", &[]),
    tool(
        TOPICS,
        "--bootstrap-server {b} --describe --topic tools",
        &["PartitionCount: 4", "ReplicationFactor: 1", "Isr:"],
    ),
    tool(
        CONFIGS,
        "--bootstrap-server {b} --alter --entity-type topics --entity-name tools --add-config \
         retention.ms=86400000,cleanup.policy=[compact,delete]",
        &["Completed updating config for topic tools."],
    ),
    tool(
        CONFIGS,
        "--bootstrap-server {b} --describe --entity-type topics --entity-name tools",
        &["retention.ms=86400000", "cleanup.policy=compact,delete", "DYNAMIC_TOPIC_CONFIG"],
    ),
    tool(
        CONFIGS,
        "--bootstrap-server {b} --alter --entity-type topics --entity-name tools --delete-config cleanup.policy",
        &["Completed updating config for topic tools."],
    ),
    refused(
        CONFIGS,
        "--bootstrap-server {b} --alter --entity-type topics --entity-name tools --add-config retention.ms=soon",
        &["InvalidConfigurationException"],
    ),
    tool(
        CONFIGS,
        "--bootstrap-server {b} --alter --entity-type brokers --entity-name 0 --add-config \
         log.retention.ms=7200000,log.flush.interval.messages=1234",
        &["Completed updating config for broker 0."],
    ),
    tool(
        CONFIGS,
        "--bootstrap-server {b} --alter --entity-type brokers --entity-default --add-config log.retention.ms=3600000",
        &["Completed updating default config for brokers in the cluster."],
    ),
    tool(
        CONFIGS,
        "--bootstrap-server {b} --describe --entity-type brokers --entity-name 0",
        &["log.retention.ms=7200000", "DYNAMIC_BROKER_CONFIG:log.retention.ms=7200000, DYNAMIC_DEFAULT_BROKER_CONFIG"],
    ),
    tool(
        CONFIGS,
        "--bootstrap-server {b} --describe --entity-type brokers --entity-default",
        &["log.retention.ms=3600000"],
    ),
    refused(
        CONFIGS,
        "--bootstrap-server {b} --alter --entity-type brokers --entity-name 0 --add-config num.partitions=2",
        &["Cannot update these configs dynamically: Set(num.partitions)"],
    ),
    tool(
        CONFIGS,
        "--bootstrap-server {b} --alter --entity-type brokers --entity-name 0 --delete-config \
         log.retention.ms,log.flush.interval.messages",
        &["Completed updating config for broker 0."],
    ),
    tool(
        CONFIGS,
        "--bootstrap-server {b} --alter --entity-type brokers --entity-default --delete-config log.retention.ms",
        &["Completed updating default config for brokers in the cluster."],
    ),
    tool(
        "org.apache.kafka.tools.BrokerApiVersionsCommand",
        "--bootstrap-server {b}",
        &["ApiVersions(18): 0 to 4 [usable: 4]", "Produce(0): 0 to "],
    ),
    tool("org.apache.kafka.tools.ClusterTool", "cluster-id --bootstrap-server {b}", &["Cluster ID: "]),
    tool(
        "org.apache.kafka.tools.EndToEndLatency",
        "--bootstrap-server {b} --topic tools --num-records 100 --producer-acks all --record-size 100",
        &["Avg latency:", "Percentiles:"],
    ),
    tool(TOPICS, "--bootstrap-server {b} --delete --topic tools", &[]),
    refused(TOPICS, "--bootstrap-server {b} --describe --topic tools", &["does not exist"]),
];

/// What is written and read, step by step.
const ON_RECORDS: &[Tool] = &[
    tool(TOPICS, "--bootstrap-server {b} --create --topic perf --partitions 2", &["Created topic perf."]),
    tool(
        "org.apache.kafka.tools.ProducerPerformance",
        "--bootstrap-server {b} --topic perf --num-records 20000 --record-size 100 --throughput -1 --command-property acks=all",
        &["20000 records sent"],
    ),
    tool(
        "org.apache.kafka.tools.ConsumerPerformance",
        "--bootstrap-server {b} --topic perf --num-records 20000 --timeout 60000 --group perf",
        &["data.consumed.in.nMsg", ", 20000,"],
    ),
    tool(OFFSETS, "--bootstrap-server {b} --topic perf --time earliest", &["perf:0:0", "perf:1:0"]),
    tool(TOPICS, "--bootstrap-server {b} --create --topic verified --partitions 1", &["Created topic verified."]),
    tool(
        "org.apache.kafka.tools.VerifiableProducer",
        "--bootstrap-server {b} --topic verified --max-messages 100 --acks -1",
        &["producer_send_success", "\"sent\":100,\"acked\":100"],
    ),
    tool(
        "org.apache.kafka.tools.VerifiableConsumer",
        "--bootstrap-server {b} --topic verified --group-id verified --max-messages 100 --reset-policy earliest",
        &["partitions_assigned", "records_consumed", "offsets_committed", "\"success\":true", "shutdown_complete"],
    ),
    tool(OFFSETS, "--bootstrap-server {b} --topic verified --time latest", &["verified:0:100"]),
    tool("org.apache.kafka.tools.ConsoleProducer", "--bootstrap-server {b} --topic verified", &[]),
    tool(
        "org.apache.kafka.tools.consumer.ConsoleConsumer",
        "--bootstrap-server {b} --topic verified --partition 0 --offset 100 --max-messages 2 --timeout-ms 60000",
        &["a line", "another line", "Processed a total of 2 messages"],
    ),
    tool(GROUPS, "--bootstrap-server {b} --list", &["verified", "perf"]),
    tool(GROUPS, "--bootstrap-server {b} --describe --group verified", &["CURRENT-OFFSET", "100 ", " 102 ", " 2 "]),
    tool(GROUPS, "--bootstrap-server {b} --describe --state --group verified", &["Empty"]),
    tool(
        GROUPS,
        "--bootstrap-server {b} --reset-offsets --to-earliest --topic verified --group verified --execute",
        &["NEW-OFFSET", "verified"],
    ),
    tool(GROUPS, "--bootstrap-server {b} --delete-offsets --group verified --topic verified", &["Successful"]),
    tool(
        GROUPS,
        "--bootstrap-server {b} --delete --group verified",
        &["Deletion of requested consumer groups", "successful"],
    ),
    tool(
        "org.apache.kafka.tools.DeleteRecordsCommand",
        "--bootstrap-server {b} --offset-json-file {dir}/delete-records.json",
        &["partition: verified-0", "low_watermark: 10"],
    ),
    tool("org.apache.kafka.tools.GroupsCommand", "--bootstrap-server {b} --list", &["perf", "Classic"]),
];

/// Where there are transactions.
const ON_TRANSACTIONS: &[Tool] = &[
    tool(TOPICS, "--bootstrap-server {b} --create --topic transactional --partitions 1", &["Created topic"]),
    tool(
        "org.apache.kafka.tools.ProducerPerformance",
        "--bootstrap-server {b} --topic transactional --num-records 1000 --record-size 100 --throughput -1 \
         --transactional-id tools --transaction-duration-ms 100",
        &["1000 records sent"],
    ),
    tool(TRANSACTIONS, "--bootstrap-server {b} list", &["tools", "CompleteCommit"]),
    tool(TRANSACTIONS, "--bootstrap-server {b} describe --transactional-id tools", &["CompleteCommit"]),
    tool(
        TRANSACTIONS,
        "--bootstrap-server {b} describe-producers --topic transactional --partition 0",
        &["ProducerId"],
    ),
];

/// Runs all, topics beside records; returns how many, and what went wrong.
pub fn run_all(address: SocketAddr, with_transactions: bool) -> (usize, Vec<String>) {
    let fetched = Command::new(format!("{ROOT}/scripts/kafka/fetch.sh")).output().unwrap();
    let java = String::from_utf8(fetched.stdout).unwrap().trim().to_owned();
    assert!(
        fetched.status.success(),
        "Java or Kafka's jars cannot be had: {}",
        String::from_utf8_lossy(&fetched.stderr)
    );
    let dir = tempfile::tempdir().unwrap();
    let deletions = r#"{"partitions":[{"topic":"verified","partition":0,"offset":10}],"version":1}"#;
    std::fs::write(dir.path().join("delete-records.json"), deletions).unwrap();
    let transactions = if with_transactions { ON_TRANSACTIONS } else { &[] };
    let faults = std::thread::scope(|scope| {
        let run = |tools: &'static [Tool]| {
            let (java, dir) = (&java, dir.path());
            scope.spawn(move || tools.iter().filter_map(|tool| tool.fault(java, dir, address)).collect::<Vec<_>>())
        };
        let running = [run(ON_TOPICS), run(ON_RECORDS), run(transactions)];
        running.into_iter().flat_map(|running| running.join().unwrap()).collect()
    });
    (ON_TOPICS.len() + ON_RECORDS.len() + transactions.len(), faults)
}

impl Tool {
    /// What is wrong with how it ended or with what it said.
    fn fault(&self, java: &str, dir: &Path, address: SocketAddr) -> Option<String> {
        let began = Instant::now();
        let arguments = self.arguments.replace("{b}", &address.to_string()).replace("{dir}", dir.to_str().unwrap());
        let mut child = Command::new(java)
            .args(JAVA_OPTIONS)
            .args(["-cp", &format!("{ROOT}/.local-deps/kafka/lib/*"), self.class])
            .args(arguments.split_whitespace())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Who reads nothing of it has closed it.
        let _ = child.stdin.take().unwrap().write_all(b"a line\nanother line\n");
        let output = child.wait_with_output().unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let name = self.class.rsplit('.').next().unwrap();
        println!("{:4.1} s  {name} {}", began.elapsed().as_secs_f64(), self.arguments);
        let missing: Vec<_> = self.says.iter().filter(|words| !said.contains(**words)).collect();
        let is_right = output.status.success() == self.succeeds && missing.is_empty();
        (!is_right)
            .then(|| format!("{name} {arguments}\n  ended with {}, did not say {missing:?}:\n{said}", output.status))
    }
}
