//! Killed runs of files are continued.

use std::time::Duration;

use finstream::clock::Micros;
use finstream::config::ProducerSettings;
use finstream::ledger::{LedgerReader, LedgerWriter, RunRecord, SourceRecord};
use finstream::producer::ProducerError;
use finstream::source::{self, DerivedIds, Next};
use finstream::transaction::{HEADER_RUN, HEADER_SEQUENCE, MessageId, RunId, RunInfo};
use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::support::{PARTITIONS, TOPIC, acknowledged, cluster, from_file, log, produce, settings, stored};

/// Leaves the ledger and the log as a process killed in the middle of the file would: all but the last three messages
/// are intended, those for which `stored` holds are in the log (also without an intent), and no outcome is known.
fn crash(settings: &ProducerSettings, stored: impl Fn(i64) -> bool) -> RunId {
    let mut source = source::open(&settings.source).unwrap();
    let run = RunId(uuid::Uuid::now_v7());
    let record = RunRecord {
        run,
        info: RunInfo { started_at: "2020-01-01T00:00:00.000000Z".into(), ..RunInfo::default() },
        topic: TOPIC.into(),
        cluster_id: None,
        source: SourceRecord { finite: true, fingerprint: source.fingerprint(), count: None },
        finished: false,
    };
    let mut ledger = LedgerWriter::create(&settings.ledger_dir, &record).unwrap();
    let mut draft = source::Draft::default();
    for sequence in 0..source.total().unwrap() as i64 - 3 {
        assert_eq!(source.next_into(&mut draft).unwrap(), Next::Draft);
        ledger.intend(sequence, &draft.user_id, draft.currency, draft.amount).unwrap();
    }
    ledger.flush_intents().unwrap();
    append(settings, run, stored);
    run
}

/// Puts messages of the run into the log.
fn append(settings: &ProducerSettings, run: RunId, wanted: impl Fn(i64) -> bool) {
    let mut source = source::open(&settings.source).unwrap();
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", &settings.kafka.brokers).create().unwrap();
    let mut draft = source::Draft::default();
    let mut sequence = 0;
    while source.next_into(&mut draft).unwrap() == Next::Draft {
        if wanted(sequence) {
            let mut payload = Vec::new();
            let now = Micros(1_700_000_000_000_000);
            draft
                .transaction(MessageId { run, sequence }, &mut DerivedIds::default(), now, now)
                .encode_into(&mut payload);
            let headers = OwnedHeaders::new()
                .insert(Header { key: HEADER_RUN, value: Some(&run.to_string()) })
                .insert(Header { key: HEADER_SEQUENCE, value: Some(&sequence.to_string()) });
            let record = BaseRecord::to(TOPIC).key(&draft.user_id).payload(&payload).headers(headers);
            producer.send(record.timestamp(now.as_millis())).map_err(|(error, _): (KafkaError, _)| error).unwrap();
        }
        sequence += 1;
    }
    producer.flush(Duration::from_secs(10)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_file_run_is_continued_and_sends_only_what_is_absent_from_the_log() {
    let (cluster, dir) = (cluster(), tempfile::tempdir().unwrap());
    let settings = from_file(settings(cluster.bootstrap_servers(), dir.path()));
    let total = source::open(&settings.source).unwrap().total().unwrap();
    let run = crash(&settings, |sequence| sequence % 3 == 0);
    let report = produce(&settings).await.unwrap();
    assert_eq!(report.run, Some(run));
    assert!(report.continued && report.complete);
    assert_eq!((report.found, report.sent), (total.div_ceil(3), total - total.div_ceil(3)));
    let messages = log(&settings.kafka.brokers);
    assert_eq!(stored(&messages, run).len() as u64, total);
    assert_eq!(acknowledged(dir.path(), run), stored(&messages, run));
    assert!(LedgerReader::new(dir.path()).runs().unwrap()[0].finished);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_of_the_dead_process_that_is_appended_late_is_not_sent_a_second_time() {
    let (cluster, dir) = (cluster(), tempfile::tempdir().unwrap());
    let settings = from_file(settings(cluster.bootstrap_servers(), dir.path()));
    let run = crash(&settings, |sequence| sequence < 5);
    let straggler = settings.clone();
    // Within the time that the continuing process waits for just this.
    let late = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(2));
        append(&straggler, run, |sequence| sequence == 7);
    });
    let report = produce(&settings).await.unwrap();
    late.join().unwrap();
    assert_eq!((report.found, report.complete), (6, true));
    let total = source::open(&settings.source).unwrap().total().unwrap();
    assert_eq!(stored(&log(&settings.kafka.brokers), run).len() as u64, total);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_records_were_retired_is_refused_with_the_cure() {
    let (cluster, dir) = (cluster(), tempfile::tempdir().unwrap());
    let settings = from_file(settings(cluster.bootstrap_servers(), dir.path()));
    let run = crash(&settings, |sequence| sequence < 5);
    let mut ledger = LedgerWriter::continue_run(dir.path(), run).unwrap();
    for partition in 0..PARTITIONS {
        ledger.acknowledged(i64::from(partition), partition, 0).unwrap();
    }
    ledger.flush_outcomes().unwrap();
    drop(ledger);
    // The mock cluster keeps 5 MiB of a partition.
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", &settings.kafka.brokers).create().unwrap();
    let payload = vec![b'x'; 500_000];
    for _ in 0..15 {
        producer
            .send(BaseRecord::<(), _>::to(TOPIC).partition(1).payload(&payload))
            .map_err(|(error, _)| error)
            .unwrap();
        producer.flush(Duration::from_secs(10)).unwrap();
    }
    let error = produce(&settings).await.unwrap_err();
    assert!(matches!(error, ProducerError::Undecidable { .. }));
    let text = error.to_string();
    assert!(text.contains("partition 1 of finance.transactions begins at offset"), "{text}");
    assert!(text.contains("Move its ledger away to begin a new run"), "{text}");
    assert!(!LedgerReader::new(dir.path()).runs().unwrap()[0].finished);
}
