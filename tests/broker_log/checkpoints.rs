//! Checkpoints of users' data: what an older finstream wrote is read, and what is written now does not change unnoticed.

use std::path::Path;

use finstream::broker::log::{Compaction, PartitionConfig};

use crate::golden::{SENT, unhex};
use crate::support::*;

/// From before there was compaction: one compacted partition with one segment of one batch, a producer, one key of state.
const WITHOUT_COMPACTION: &str = "465343484b503031df000000000000005c49bed40001090000000000000002000000000000000100000000000000010000000100000000000000070000000000000000000000000000000000000007000000746f7069632d30000010000000000080ee36000000000000000000100000010000000000000000020000000000000001000000000000000000000050000000000000000568e5cf8b0100000068e5cf8b0100000068e5cf8b0100000000000000000000010000004d0000000000000001000068e5cf8b010000010a0000000b0000000000000000000000010000000000000001000000010000006b010100000076";

/// The same with compaction, three times; from before it named the journal file that it needs.
const WITHOUT_NEEDED_FILE: &str = "465343484b5030322c01000000000000fbe24ad20001090000000000000002000000000000000100000000000000010000000100000000000000070000000000000000000000000000000000000007000000746f7069632d30000010000000000080ee3600000000000000000010000001ffffffffffffff7f80ee36000000000001005c2605000000000500000000000000ffffffffffffff7f90d0030000000000000000000200000000000000020000000000000001000000000000000000000050000000000000000568e5cf8b0100000068e5cf8b0100000068e5cf8b010000000000000000000003000000000000000000000000000000010000004d000000000000000100ffffffff0068e5cf8b010000010a0000000b000000000000000000000001000000000000000000000001000000010000006b010100000076";

/// As it is written now.
const WITH_NEEDED_FILE: &str = "465343484b503033340100000000000053023f2f00010900000000000000020000000000000001000000000000000000000000000000010000000100000000000000070000000000000000000000000000000000000007000000746f7069632d30000010000000000080ee3600000000000000000010000001ffffffffffffff7f80ee36000000000001005c2605000000000500000000000000ffffffffffffff7f90d0030000000000000000000200000000000000020000000000000001000000000000000000000050000000000000000568e5cf8b0100000068e5cf8b0100000068e5cf8b010000000000000000000003000000000000000000000000000000010000004d000000000000000100ffffffff0068e5cf8b010000010a0000000b000000000000000000000001000000000000000000000001000000010000006b010100000076";

/// Magic, length and CRC; mode, clean, last group, next numbers of partitions and journal files, needed journal file.
const BEFORE_PARTITIONS_BYTES: usize = 20 + 2 + 32;

fn lay_out(dir: &Path, checkpoint: &str, segment: &str) {
    let directory = dir.join("topic-0");
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("partition"), "1\n").unwrap();
    let mut batch = unhex(SENT);
    batch[12..16].copy_from_slice(&[0, 0, 0, 5]);
    std::fs::write(directory.join(segment), batch).unwrap();
    std::fs::write(dir.join("checkpoint"), unhex(checkpoint)).unwrap();
}

#[tokio::test]
async fn a_checkpoint_from_before_compaction_is_read_and_replaced_by_one_that_knows_it() {
    let dir = tempfile::tempdir().unwrap();
    lay_out(dir.path(), WITHOUT_COMPACTION, "00000000000000000000.log");
    for life in 0..2 {
        let log = open(dir.path());
        let partition = log.partition(id(0)).unwrap();
        assert_eq!((partition.log_start_offset(), partition.high_watermark()), (0, 2));
        let compacted = PartitionConfig { compaction: Some(Compaction::default()), ..config() };
        assert_eq!(partition.config(), compacted);
        assert_eq!(as_sent(&partition.read(0, 1000, true).unwrap().batches), as_sent(&unhex(SENT).into()));
        // It holds a record without a key, which a compacted partition takes no more.
        partition.set_config(config());
        assert!(partition.append(unhex(SENT).into(), 9, NOW_MS).unwrap().duplicate);
        assert_eq!(log.state(b"k").len(), 1);
        partition.set_config(compacted);
        log.close().await.unwrap();
        let written = std::fs::read(dir.path().join("checkpoint")).unwrap();
        assert!(written.starts_with(b"FSCHKP03"), "life {life}");
    }
}

#[tokio::test]
async fn a_checkpoint_is_written_as_it_was_read_and_no_flip_of_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    lay_out(dir.path(), WITH_NEEDED_FILE, "00000000000000000000-3.log");
    let expected = unhex(WITH_NEEDED_FILE);
    for before in [WITHOUT_NEEDED_FILE, WITH_NEEDED_FILE] {
        std::fs::write(dir.path().join("checkpoint"), unhex(before)).unwrap();
        open(dir.path()).close().await.unwrap();
        let written = std::fs::read(dir.path().join("checkpoint")).unwrap();
        assert_eq!(written[..8], expected[..8]);
        assert_eq!(written[BEFORE_PARTITIONS_BYTES..], expected[BEFORE_PARTITIONS_BYTES..]);
    }
    let written = std::fs::read(dir.path().join("checkpoint")).unwrap();
    {
        let log = open(dir.path());
        let partition = log.partition(id(0)).unwrap();
        let compaction =
            Compaction { and_retention: true, lag_ms_min: 5, dirty_ppm_min: 250_000, ..Compaction::default() };
        assert_eq!(partition.config().compaction, Some(compaction));
        assert_eq!(partition.config().timestamp_after_ms_max, 3_600_000);
        assert_eq!(partition.read(0, 1000, true).unwrap().batches.len(), 80);
        log.close().await.unwrap();
    }
    for at in (0..written.len()).step_by(3) {
        let mut flipped = written.clone();
        flipped[at] ^= 1;
        std::fs::write(dir.path().join("checkpoint"), flipped).unwrap();
        assert!(
            finstream::broker::log::Log::open(dir.path(), settings(finstream::broker::log::Durability::Fsync)).is_err(),
            "byte {at}"
        );
    }
}
