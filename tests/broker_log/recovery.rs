//! What a start makes of the files that it finds.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use finstream::broker::log::{Durability, Log, OpenError, PartitionConfig, RecoveryReport};

use crate::support::*;

fn reopened(dir: &Path, durability: Durability) -> (Log, RecoveryReport) {
    Log::open(dir, settings(durability)).unwrap()
}

/// The journal file that holds groups.
fn journal(dir: &Path) -> PathBuf {
    files(&dir.join("journal"), ".journal").into_iter().find(|file| !groups(file).is_empty()).unwrap()
}

/// A log that crashed after `count` acknowledged batches, each a group of its own.
async fn crashed(dir: &Path, durability: Durability, count: usize) -> Vec<(i64, Bytes)> {
    let log = Log::open(dir, settings(durability)).unwrap().0;
    let partition = create(&log, 0);
    for index in 0..count {
        put(&partition, BatchOf { value_bytes: 100 + index, ..BatchOf::records(2) }.of(1, 0, 2 * index as i32).bytes())
            .await;
    }
    batches_from(&partition, 0)
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_crash_and_after_a_clean_stop() {
    for durability in [Durability::Fsync, Durability::Os] {
        let dir = tempfile::tempdir().unwrap();
        let expected = crashed(dir.path(), durability, 20).await;
        let (log, report) = reopened(dir.path(), durability);
        assert_eq!(report, RecoveryReport { partitions: 1, replayed_batches: 20, cut_bytes: 0, clean_stop: false });
        assert_eq!(batches_from(&log.partition(id(0)).unwrap(), 0), expected);
        log.close().await.unwrap();
        drop(log);
        let (log, report) = reopened(dir.path(), durability);
        assert_eq!(report, RecoveryReport { partitions: 1, replayed_batches: 0, cut_bytes: 0, clean_stop: true });
        let partition = log.partition(id(0)).unwrap();
        assert_eq!(batches_from(&partition, 0), expected);
        assert_eq!(put(&partition, BatchOf::records(1).bytes()).await.base_offset, 40);
    }
}

#[tokio::test]
async fn large_and_small_batches_of_one_group_are_there_after_a_crash() {
    for log_append_time in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let expected = {
            let log = open(dir.path());
            let config = PartitionConfig { log_append_time, ..config() };
            let partition = log.create_partition(id(0), "topic-0", config).unwrap();
            // Around the sizes at which a group's checksum is made in another way; several wait for one sync.
            let appended: Vec<_> = [10, 1_000, 2_000, 65_000, 66_000, 10, 500_000, 70_000]
                .map(|value_bytes| BatchOf { value_bytes, ..BatchOf::records(1) }.bytes())
                .into_iter()
                .map(|batch| partition.append(batch, 0, NOW_MS).unwrap())
                .collect();
            partition.durable(appended.last().unwrap()).await.unwrap();
            batches_from(&partition, 0)
        };
        assert_eq!(expected.len(), 8);
        let (log, report) = reopened(dir.path(), Durability::Fsync);
        assert_eq!((report.replayed_batches, report.cut_bytes), (8, 0));
        assert_eq!(batches_from(&log.partition(id(0)).unwrap(), 0), expected);
    }
}

#[tokio::test]
async fn a_retry_after_a_crash_is_not_stored_twice() {
    let dir = tempfile::tempdir().unwrap();
    crashed(dir.path(), Durability::Fsync, 3).await;
    for _ in 0..3 {
        let log = open(dir.path());
        let partition = log.partition(id(0)).unwrap();
        let again = BatchOf { value_bytes: 102, ..BatchOf::records(2) }.of(1, 0, 4);
        let appended = put(&partition, again.bytes()).await;
        assert_eq!((appended.base_offset, appended.duplicate, partition.high_watermark()), (4, true, 6));
    }
}

#[tokio::test]
async fn the_last_group_cut_at_every_byte_is_cut_and_the_others_stay() {
    let original = tempfile::tempdir().unwrap();
    let expected = crashed(original.path(), Durability::Fsync, 3).await;
    let &(position, _, bytes) = groups(&journal(original.path())).last().unwrap();
    // Nobody was told of the last batch, so it had not come to the segment.
    cut_segment(original.path(), &expected[..2]);
    for kept in 0..=bytes {
        let dir = tempfile::tempdir().unwrap();
        copy_directory(original.path(), dir.path());
        let file = std::fs::OpenOptions::new().write(true).open(journal(dir.path())).unwrap();
        // As the disk leaves it: preallocated, not written.
        file.write_all_at(&vec![0; bytes - kept], (position + kept) as u64).unwrap();
        let log = open(dir.path());
        let found = batches_from(&log.partition(id(0)).unwrap(), 0);
        // Trailing bytes of the batch may be zero themselves.
        assert!(found == expected || found == expected[..2], "{kept} of {bytes} bytes");
        assert_eq!(found.len() == 3, kept == bytes || found == expected);
        if found.len() == 2 {
            let partition = log.partition(id(0)).unwrap();
            assert_eq!(put(&partition, BatchOf::records(2).of(1, 0, 4).bytes()).await.base_offset, 4);
        }
    }
}

#[tokio::test]
async fn a_flipped_bit_in_a_group_that_was_promised_stops_the_start() {
    let original = tempfile::tempdir().unwrap();
    let expected = crashed(original.path(), Durability::Fsync, 4).await;
    let all = groups(&journal(original.path()));
    for (index, &(position, _, bytes)) in all.iter().enumerate() {
        for at in [0, 5, 9, 33, 43, 44, bytes / 2, bytes - 1] {
            let dir = tempfile::tempdir().unwrap();
            copy_directory(original.path(), dir.path());
            let path = journal(dir.path());
            let mut content = std::fs::read(&path).unwrap();
            content[position + at] ^= 4;
            std::fs::write(&path, content).unwrap();
            let opened = Log::open(dir.path(), settings(Durability::Fsync));
            if index + 1 < all.len() {
                let error = opened.err().expect("a promised group is bad");
                assert!(
                    matches!(&error, OpenError::Damaged { path: named, position: said, .. }
                    if *named == path && *said == position as u64),
                    "{error}"
                );
                assert!(error.to_string().contains("restore the directory"), "{error}");
            } else {
                // The segment says that it was promised.
                assert!(matches!(opened, Err(OpenError::Damaged { .. })));
                // After a power cut nothing does: it looks like one that was cut off in the middle.
                cut_segment(dir.path(), &expected[..3]);
                let log = open(dir.path());
                assert_eq!(batches_from(&log.partition(id(0)).unwrap(), 0), expected[..3]);
            }
        }
    }
}

/// What a power cut leaves of the page cache: only so much of the segment.
fn cut_segment(dir: &Path, batches: &[(i64, Bytes)]) {
    let bytes: usize = batches.iter().map(|(_, batch)| batch.len()).sum();
    let segment = dir.join("topic-0").join("00000000000000000000.log");
    std::fs::OpenOptions::new().write(true).open(segment).unwrap().set_len(bytes as u64).unwrap();
}

#[tokio::test]
async fn a_journal_that_was_removed_emptied_cut_or_zeroed_stops_the_start_and_nothing_is_lost() {
    let original = tempfile::tempdir().unwrap();
    let expected = crashed(original.path(), Durability::Fsync, 4).await;
    let whole = std::fs::read(journal(original.path())).unwrap();
    let third = groups(&journal(original.path()))[2].0;
    type Harm<'a> = &'a dyn Fn(&Path);
    let harms: [(&str, Harm<'_>); 5] = [
        ("removed", &|path| std::fs::remove_file(path).unwrap()),
        ("all of it removed", &|path| std::fs::remove_dir_all(path.parent().unwrap()).unwrap()),
        ("emptied", &|path| std::fs::write(path, b"").unwrap()),
        ("cut", &|path| std::fs::write(path, &whole[..third]).unwrap()),
        ("zeroed", &|path| std::fs::write(path, vec![0; whole.len()]).unwrap()),
    ];
    for (what, harm) in harms {
        let dir = tempfile::tempdir().unwrap();
        copy_directory(original.path(), dir.path());
        let path = journal(dir.path());
        harm(&path);
        // However often it is tried.
        for _ in 0..2 {
            let error = Log::open(dir.path(), settings(Durability::Fsync)).err().expect(what);
            assert!(error.to_string().contains("restore the directory"), "{what}: {error}");
        }
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &whole).unwrap();
        assert_eq!(batches_from(&open(dir.path()).partition(id(0)).unwrap(), 0), expected, "{what}");
    }
}

#[tokio::test]
async fn a_checkpoint_names_the_journal_file_that_it_needs() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let partition = create(&log, 0);
    // Several files, so that a checkpoint was taken while one was written.
    for index in 0..100 {
        let of = BatchOf { value_bytes: 30_000 + index, ..BatchOf::records(3) };
        put(&partition, of.bytes()).await;
    }
    partition.delete_records_before(partition.high_watermark()).await.unwrap();
    drop(partition);
    drop(log);
    // No segment tells of what the journal held: only changes of the state may be lost with it.
    files(&dir.path().join("topic-0"), ".log").iter().for_each(|segment| std::fs::write(segment, b"").unwrap());
    for file in files(&dir.path().join("journal"), ".journal") {
        std::fs::remove_file(file).unwrap();
    }
    let error = Log::open(dir.path(), settings(Durability::Fsync)).err().unwrap();
    assert!(
        matches!(&error, OpenError::Missing { path, .. } if path.starts_with(dir.path().join("journal"))),
        "{error}"
    );
}

#[tokio::test]
async fn a_journal_whose_header_is_bad_stops_the_start_only_if_a_later_file_knows_better() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let partition = create(&log, 0);
    let stale = tempfile::tempdir().unwrap();
    let big = BatchOf { value_bytes: 100_000, ..BatchOf::records(2) };
    // The image's checkpoint is older than its first journal file.
    std::fs::copy(dir.path().join("checkpoint"), stale.path().join("checkpoint")).unwrap();
    for _ in 0..3 {
        put(&partition, big.bytes()).await;
    }
    let lost = tempfile::tempdir().unwrap();
    copy_directory(stale.path(), lost.path());
    copy_directory(&dir.path().join("journal"), &lost.path().join("journal"));
    let first = journal(lost.path());
    let mut content = std::fs::read(&first).unwrap();
    for _ in 0..6 {
        put(&partition, big.bytes()).await;
    }
    drop(log);
    for later in files(&dir.path().join("journal"), ".journal")
        .into_iter()
        .skip_while(|file| file.file_name() <= first.file_name())
    {
        std::fs::copy(&later, lost.path().join("journal").join(later.file_name().unwrap())).unwrap();
    }
    std::fs::write(&first, vec![0; 1 << 20]).unwrap();
    let error = Log::open(lost.path(), settings(Durability::Fsync)).err().expect("a later file knows better");
    assert!(matches!(&error, OpenError::Damaged { path, position: 0, .. } if *path == first), "{error}");
    content[3] ^= 1;
    let journal = stale.path().join("journal");
    std::fs::create_dir_all(&journal).unwrap();
    std::fs::write(journal.join(first.file_name().unwrap()), content).unwrap();
    // No later file: by what can be known nothing was promised.
    let (log, _) = reopened(stale.path(), Durability::Fsync);
    assert!(log.partitions().is_empty());
}

#[tokio::test]
async fn segments_hold_nothing_that_matters_beyond_the_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let expected = crashed(dir.path(), Durability::Fsync, 20).await;
    // The machine lost what was in the page cache, or wrote something else there.
    let segment = &files(&dir.path().join("topic-0"), ".log")[0];
    std::fs::write(segment, vec![0xab; 5000]).unwrap();
    std::fs::write(dir.path().join("topic-0/00000000000000000033.log"), b"garbage").unwrap();
    let log = open(dir.path());
    assert_eq!(batches_from(&log.partition(id(0)).unwrap(), 0), expected);
    drop(log);
    // And once more, now that a checkpoint holds them: a shorter file is a loss.
    std::fs::OpenOptions::new().write(true).open(segment).unwrap().set_len(100).unwrap();
    let error = Log::open(dir.path(), settings(Durability::Fsync)).err().unwrap();
    assert!(matches!(error, OpenError::Damaged { position: 100, .. }), "{error}");
}

#[tokio::test]
async fn with_durability_os_a_torn_tail_is_cut_at_the_first_bad_batch() {
    let original = tempfile::tempdir().unwrap();
    let expected = crashed(original.path(), Durability::Os, 4).await;
    let name = "topic-0/00000000000000000000.log";
    let length = std::fs::metadata(original.path().join(name)).unwrap().len();
    for kept in (0..length).step_by(37) {
        let dir = tempfile::tempdir().unwrap();
        copy_directory(original.path(), dir.path());
        std::fs::OpenOptions::new().write(true).open(dir.path().join(name)).unwrap().set_len(kept).unwrap();
        let (log, report) = reopened(dir.path(), Durability::Os);
        let found = batches_from(&log.partition(id(0)).unwrap(), 0);
        assert_eq!(found, expected[..found.len()]);
        let whole: usize = found.iter().map(|(_, batch)| batch.len()).sum();
        assert_eq!(report.cut_bytes, kept - whole as u64);
    }
}

#[tokio::test]
async fn the_mode_may_change_between_lives() {
    let dir = tempfile::tempdir().unwrap();
    let mut count = 0;
    for life in 0..4 {
        let durability = if life % 2 == 0 { Durability::Os } else { Durability::Fsync };
        let (log, _) = reopened(dir.path(), durability);
        let partition = create(&log, 0);
        assert_eq!(batches_from(&partition, 0).len(), count);
        for _ in 0..5 {
            put(&partition, BatchOf::records(1).bytes()).await;
        }
        log.put_state(vec![(Bytes::from("life"), Some(Bytes::from(life.to_string())))]).await.unwrap();
        count += 5;
        drop(log);
    }
    let (log, _) = reopened(dir.path(), Durability::Fsync);
    assert_eq!(log.state(b"li"), [(Bytes::from("life"), Bytes::from("3"))]);
}

#[tokio::test]
async fn journal_files_are_used_again_and_stale_groups_never_count() {
    let dir = tempfile::tempdir().unwrap();
    let mut expected = Vec::new();
    for life in 0..3 {
        let log = open(dir.path());
        let partition = create(&log, 0);
        assert_eq!(batches_from(&partition, 0), expected, "life {life}");
        // Several times the journal's file size.
        for index in 0..60 {
            let of = BatchOf { value_bytes: 30_000 + index, timestamp: life * 1000, ..BatchOf::records(3) };
            put(&partition, of.bytes()).await;
        }
        expected = batches_from(&partition, 0);
        drop(log);
        let journals: u64 = std::fs::read_dir(dir.path().join("journal"))
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .sum();
        assert!(journals <= 12 << 20, "{journals} bytes of journals");
    }
}

#[tokio::test]
async fn a_lost_checkpoint_is_not_taken_for_an_empty_log() {
    let dir = tempfile::tempdir().unwrap();
    crashed(dir.path(), Durability::Fsync, 1).await;
    let path = dir.path().join("checkpoint");
    let content = std::fs::read(&path).unwrap();
    for length in (0..content.len()).step_by(7) {
        std::fs::write(&path, &content[..length]).unwrap();
        assert!(matches!(Log::open(dir.path(), settings(Durability::Fsync)), Err(OpenError::Damaged { .. })));
    }
    std::fs::remove_file(&path).unwrap();
    let is_missing = |opened| matches!(opened, Err(OpenError::Missing { path: named, .. }) if named == path);
    assert!(is_missing(Log::open(dir.path(), settings(Durability::Fsync))));
    std::fs::remove_dir_all(dir.path().join("journal")).unwrap();
    assert!(is_missing(Log::open(dir.path(), settings(Durability::Fsync))));
}
