//! Indexes are only ever a help: whatever becomes of their files, answers are the same, and so are they in the end.

use std::path::{Path, PathBuf};

use finstream::broker::log::{Partition, PartitionConfig};

use crate::support::*;

/// What a partition answers, by offset and by time.
fn answers(partition: &Partition) -> Vec<(i64, Option<(i64, i64)>)> {
    let high_watermark = partition.high_watermark();
    let answer = |offset: i64| {
        let batches = partition.read(offset, 1, true).unwrap().batches;
        let base_offset = i64::from_be_bytes(batches[0..8].try_into().unwrap());
        (base_offset, partition.offset_for_timestamp(NOW_MS + 3 * offset).unwrap())
    };
    (0..high_watermark).step_by(7).map(answer).collect()
}

fn contents(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    files(directory, ".index").into_iter().map(|path| (path.clone(), std::fs::read(&path).unwrap())).collect()
}

#[tokio::test]
async fn a_lost_cut_flipped_or_lengthened_index_is_the_same_after_the_next_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let directory = dir.path().join("topic-0");
    let small = PartitionConfig { segment_bytes_max: 60_000, ..config() };
    let expected = {
        let log = open(dir.path());
        let partition = log.create_partition(id(0), "topic-0", small).unwrap();
        for index in 0..200 {
            let batch = BatchOf { value_bytes: 300, timestamp: NOW_MS + 9 * index, ..BatchOf::records(3) };
            put(&partition, batch.bytes()).await;
        }
        let expected = answers(&partition);
        log.close().await.unwrap();
        expected
    };
    let originals = contents(&directory);
    assert!(originals.len() > 3);
    let length = originals[0].1.len();
    let mut damages: Vec<Vec<u8>> = (0..length).step_by(5).map(|cut| originals[0].1[..cut].to_vec()).collect();
    for at in (0..length).step_by(3) {
        let mut flipped = originals[0].1.clone();
        flipped[at] ^= 1 << (at % 8);
        damages.push(flipped);
    }
    for more in [1, 16, 5_000] {
        damages.push([originals[0].1.clone(), vec![0x5a; more]].concat());
    }
    for damage in damages.into_iter().map(Some).chain([None]) {
        // All of them at once; the others by the same share or byte.
        for (path, original) in &originals {
            match &damage {
                None => std::fs::remove_file(path).unwrap(),
                Some(bytes) if path == &originals[0].0 => std::fs::write(path, bytes).unwrap(),
                Some(bytes) => {
                    let kept = bytes.len().min(original.len());
                    std::fs::write(path, [&original[..kept / 2], &bytes[kept / 2..]].concat()).unwrap();
                }
            }
        }
        let log = open(dir.path());
        assert_eq!(answers(&log.partition(id(0)).unwrap()), expected);
        log.close().await.unwrap();
        drop(log);
        assert_eq!(contents(&directory), originals);
    }
}

#[tokio::test]
async fn indexes_of_segments_that_are_gone_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    put(&create(&log, 0), BatchOf::records(1).bytes()).await;
    log.close().await.unwrap();
    drop(log);
    let names = ["00000000000000000777.index", "00000000000000000777.txnindex", "00000000000000000000-4.txnindex"];
    let strays = names.map(|name| dir.path().join("topic-0").join(name));
    strays.iter().for_each(|stray| std::fs::write(stray, [0; 32]).unwrap());
    open(dir.path());
    for stray in strays {
        assert!(!stray.exists(), "{}", stray.display());
    }
}
