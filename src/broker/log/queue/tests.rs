//! What the queue takes, and what it refuses.

use std::path::Path;
use std::sync::{Arc, mpsc};

use bytes::{Bytes, BytesMut};
use kafka_protocol::records::{Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType};
use uuid::Uuid;

use super::super::core::Core;
use super::super::disk::OsDisk;
use super::super::journal::Journal;
use super::super::records::PartitionRecord;
use super::super::{Appended, Durability, EndTransaction, LogSettings, Marker, PartitionConfig, PartitionId};
use super::super::{recovery, writer};
use super::*;

const NOW_MS: i64 = 1_700_000_000_000;
const END: EndTransaction =
    EndTransaction { producer_id: 7, producer_epoch: 0, marker: Marker::Commit, coordinator_epoch: 0 };

/// A log without its threads, with partitions `t-0`, where clients write, and `t-1`, which a coordinator has.
fn log(directory: &Path, durability: Durability) -> (Arc<Core>, Partition, Partition) {
    let settings = LogSettings { durability, journal_bytes_max: 1 << 20 };
    let (jobs, _) = mpsc::channel();
    let (core, _) = recovery::recover(Arc::new(OsDisk), directory, settings, jobs).unwrap();
    for number in [0, 1] {
        let config = PartitionConfig {
            segment_bytes_max: 1 << 30,
            segment_age_ms_max: i64::MAX,
            retention_bytes: None,
            retention_ms: None,
            batch_bytes_max: 8 << 20,
            log_append_time: false,
            timestamp_before_ms_max: i64::MAX,
            timestamp_after_ms_max: i64::MAX,
            compaction: None,
        };
        let id = PartitionId { topic_id: Uuid::from_u128(7), partition: number };
        let record = PartitionRecord { number: number as u64 + 1, id, directory: format!("t-{number}"), config };
        core.queue.push_change(Change::Create(record), Completion::Nobody);
    }
    write(&core);
    let mut partitions = core.all_partitions();
    let second = partitions.remove(1);
    (core, partitions.remove(0), second)
}

/// One round of the writer.
fn write(core: &Arc<Core>) {
    let mut journal = Journal::new(&core.journal_files, core.sequence());
    assert!(writer::serve(core, &mut journal, core.queue.take()));
}

fn batch(value_bytes: usize) -> Bytes {
    let record = Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: 0,
        producer_id: -1,
        producer_epoch: -1,
        timestamp_type: TimestampType::Creation,
        offset: 0,
        sequence: -1,
        timestamp: NOW_MS,
        key: None,
        value: Some(Bytes::from(vec![7; value_bytes])),
        headers: Default::default(),
    };
    let mut out = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression: Compression::None };
    RecordBatchEncoder::encode(&mut out, [&record], &options).unwrap();
    out.freeze()
}

fn remember(partition: &Partition, value_bytes: usize, behind: Option<&Appended>) -> Result<Appended, AppendError> {
    partition.append_as_coordinator(batch(value_bytes), behind, 0, NOW_MS)
}

/// What the queue answers at once, if it does.
fn push(queue: &Queue, value: &Bytes) -> Option<Result<(), AppendError>> {
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    let changes = vec![(Bytes::from_static(b"key"), Some(value.clone()))];
    let change = Change::State { changes, synced: false };
    queue.push_change(change, Completion::Thread(sender));
    receiver.try_recv().ok()
}

#[test]
fn what_waits_is_bounded_and_taken_in_groups() {
    let queue = Queue::default();
    let value = Bytes::from(vec![0; 1 << 20]);
    let accepted = (0..1000).take_while(|_| push(&queue, &value).is_none()).count();
    assert_eq!(accepted, (WAITING_BYTES_WITH_CHANGES_MAX >> 20) - 1);
    assert!(matches!(push(&queue, &value), Some(Err(AppendError::Busy { .. }))));
    let mut taken = 0;
    while taken < accepted {
        let Taken::Entries(entries) = queue.take() else { panic!("nothing was taken") };
        assert!(entries.len() <= GROUP_BYTES_MAX >> 20);
        taken += entries.len();
        fail_quietly(entries);
        queue.end_turn();
    }
    assert_eq!(push(&queue, &value), None);
    queue.stop(Stop::Drain);
    assert!(matches!(push(&queue, &value), Some(Err(AppendError::Storage(_)))));
    assert!(matches!(queue.take(), Taken::Entries(_)));
    queue.end_turn();
    assert!(matches!(queue.take(), Taken::Stop));
}

fn fail_quietly(entries: Vec<Entry>) {
    crate::broker::log::writer::fail_all(entries, &AppendError::Deleted);
}

#[test]
fn a_disk_that_is_behind_for_clients_is_not_yet_for_coordinators() {
    let dir = tempfile::tempdir().unwrap();
    let (core, clients, coordinators) = log(dir.path(), Durability::Fsync);
    while clients.append(batch(1 << 20), 0, NOW_MS).is_ok() {}
    assert!(matches!(clients.append(batch(1 << 20), 0, NOW_MS), Err(AppendError::Busy { .. })));
    let mut last = clients.write_marker(END, 0, NOW_MS).unwrap();
    let mut more = 0;
    let refused = loop {
        match remember(&coordinators, 1 << 20, Some(&last)) {
            Ok(appended) => last = appended,
            Err(refused) => break refused,
        }
        more += 1;
    };
    assert!(matches!(refused, AppendError::Busy { .. }), "{refused}");
    assert!((60..=64).contains(&more), "{more} MiB more");
    core.queue.clear();
}

#[test]
fn nothing_is_queued_behind_what_was_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (core, clients, coordinators) = log(dir.path(), Durability::Fsync);
    let decision = remember(&coordinators, 100, None).unwrap();
    core.queue.refuse("the disk is full".to_owned());
    let full = remember(&coordinators, 100, None);
    assert!(full.is_err(), "its offset would be one that was refused");
    [&clients, &coordinators].into_iter().for_each(Partition::refuse_waiting);
    core.queue.accept_coordinators();
    assert!(clients.write_marker_behind(END, Some(&decision), 0, NOW_MS).is_err());
    assert!(remember(&coordinators, 100, Some(&decision)).is_err());
    assert!(core.queue.is_empty());
    assert!(clients.append(batch(100), 0, NOW_MS).is_err(), "clients wait until there is room for them");
    let again = remember(&coordinators, 100, None).unwrap();
    clients.write_marker_behind(END, Some(&again), 0, NOW_MS).unwrap();
    core.queue.accept();
    assert!(clients.write_marker_behind(END, Some(&decision), 0, NOW_MS).is_err());
    write(&core);
    assert_eq!((clients.high_watermark(), coordinators.high_watermark()), (1, 1));
}

#[test]
fn coordinators_that_never_stop_do_not_keep_the_writer_from_looking_for_room() {
    let queue = Queue::default();
    queue.refuse("the disk is full".to_owned());
    push(&queue, &Bytes::new());
    lock(&queue.waiting).full.as_mut().unwrap().next_look = Instant::now();
    assert!(queue.obstacle().is_some());
    assert!(matches!(queue.take(), Taken::LookForRoom));
    assert!(matches!(queue.take(), Taken::Entries(_)));
}

/// With `os` nothing promises that the rest of a group can be written.
#[cfg(target_os = "linux")]
#[test]
fn a_marker_is_not_written_before_the_decision_that_it_lies_behind() {
    let dir = tempfile::tempdir().unwrap();
    let (core, clients, coordinators) = log(dir.path(), Durability::Os);
    // Whatever is written there finds the disk full.
    std::os::unix::fs::symlink("/dev/full", dir.path().join("t-1/00000000000000000000.log")).unwrap();
    clients.append(batch(100), 0, NOW_MS).unwrap();
    let decision = remember(&coordinators, 100, None).unwrap();
    clients.write_marker_behind(END, Some(&decision), 0, NOW_MS).unwrap();
    write(&core);
    assert_eq!((clients.high_watermark(), coordinators.high_watermark()), (1, 0));
    assert!(core.queue.obstacle().is_some());
    assert_eq!(core.queue.poisoned(), None);
}
