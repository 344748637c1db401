//! Any bytes as the files of a log's directory: it opens, or says why not; what it then serves is whole and in order;
//! it takes more, and opens again with the same content.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use tempfile::TempDir;
use uuid::Uuid;

use super::batch::{records, repaired, sealed};
use super::meter;
use crate::broker::log::{Durability, Log, LogSettings, Partition, PartitionConfig, PartitionId, ReadError};

/// Recovery may hold this many times the files' bytes …
const BYTES_PER_BYTE_MAX: usize = 64;
/// … and its windows into journal (1 MiB) and segments, and what two threads take to start.
const BYTES_MAX: usize = 2 << 20;
const JOURNAL_BYTES: u64 = 16 * 1024;
const READ_BYTES: usize = 4096;

/// The first byte of the input: the log is opened with `Durability::Os`.
const OS: u8 = 1;
/// The first byte of the input: CRCs are put right, to get behind them.
const REPAIR: u8 = 2;
/// A file in the input: kind, number, length; its bytes follow.
const FILE_HEAD_BYTES: usize = 1 + 8 + 2;
const KINDS: u8 = 8;
/// Said of journals whose numbers are used up.
const NUMBERS_END: &str = "which no log gets to";

/// A directory that vanishes, in memory where there is such a place.
pub(super) fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    #[allow(clippy::expect_used)]
    made.expect("a temporary directory can be made")
}

/// Where a file of that kind and number lies.
fn place(kind: u8, number: u64) -> PathBuf {
    let partition = kind / KINDS % 2;
    PathBuf::from(match kind % KINDS {
        0 => "checkpoint".to_owned(),
        1 => "checkpoint.tmp".to_owned(),
        2 => format!("journal/{number:020}.journal"),
        3 => format!("journal/{number:020}.spare"),
        4 => format!("topic-{partition}/partition"),
        5 => format!("topic-{partition}/{:020}.log", number as i64),
        6 => format!("topic-{partition}/{:020}.index", number as i64),
        _ => format!("deleted/{number}"),
    })
}

/// The kind and number that give that place; none for what is not made from inputs.
fn kind_of(place: &Path) -> Option<(u8, u64)> {
    let name = place.file_name()?.to_str()?;
    let number = name.split_once('.').and_then(|(number, _)| number.parse().ok()).unwrap_or(0);
    (0..2 * KINDS).find(|kind| self::place(*kind, number) == place).map(|kind| (kind, number))
}

/// Opens `data` as a log's directory.
///
/// # Panics
/// When a promise is broken.
pub fn run(data: &[u8]) {
    let Some((&flags, mut rest)) = data.split_first() else { return };
    let directory = directory();
    let mut files = Vec::new();
    while let Some((head, bytes)) = rest.split_first_chunk::<FILE_HEAD_BYTES>() {
        let [kind, number @ .., low, high] = *head;
        let length = usize::from(u16::from_le_bytes([low, high])).min(bytes.len());
        let (bytes, next) = bytes.split_at(length);
        let number = u64::from_le_bytes(number);
        files.push((kind, number, bytes.to_vec()));
        rest = next;
    }
    if flags & REPAIR != 0 {
        repair(&mut files);
    }
    for (kind, number, bytes) in files {
        let path = directory.path().join(place(kind, number));
        if let Some(parent) = path.parent() {
            let _ = std::fs::create_dir_all(parent);
        }
        let _ = std::fs::write(path, bytes);
    }
    let durability = if flags & OS != 0 { Durability::Os } else { Durability::Fsync };
    let settings = LogSettings { durability, journal_bytes_max: JOURNAL_BYTES };
    let bytes_max = data.len() * BYTES_PER_BYTE_MAX + BYTES_MAX;
    let open = || meter::within(bytes_max, "recovery", || Log::open(directory.path(), settings.clone()));
    let Ok((log, _)) = open() else { return };
    let before = look(&log);
    go_on(&log);
    drop(log);
    // The log has just said that all of this is in order.
    let (log, _) = match open() {
        Ok(opened) => opened,
        // One that began at the last number that is taken; there is no such log outside of inputs like this.
        Err(error) if error.to_string().contains(NUMBERS_END) => return,
        Err(error) => panic!("it opened once, and now: {error}"),
    };
    for (id, (log_start, end, content)) in before {
        let Some(partition) = log.partition(id) else { panic!("{id:?} is gone") };
        assert!(partition.high_watermark() >= end, "{id:?} ended at {end}, and now {}", partition.high_watermark());
        assert_eq!(partition.log_start_offset(), log_start, "{id:?} begins elsewhere");
        if let Ok(bytes) = content {
            assert!(served(&partition, log_start).is_ok_and(|now| now >= bytes), "{id:?} served {bytes} bytes");
        }
    }
}

type Seen = Vec<(PartitionId, (i64, i64, Result<usize, ReadError>))>;

/// Reads everything.
fn look(log: &Log) -> Seen {
    assert!(log.failure().is_none());
    let look_at = |(id, _)| {
        let partition = log.partition(id)?;
        let (log_start, end) = (partition.log_start_offset(), partition.high_watermark());
        for timestamp in [i64::MIN, 0, 1_700_000_000_001, i64::MAX] {
            let _ = partition.offset_for_timestamp(timestamp);
        }
        let _ = partition.offset_of_max_timestamp();
        let _ = partition.may_wait_for_disk(log_start);
        Some((id, (log_start, end, served(&partition, log_start))))
    };
    log.partitions().into_iter().filter_map(look_at).collect()
}

/// Appends to each partition and makes a new one, as far as they take it.
fn go_on(log: &Log) {
    let batch = Bytes::from(sealed(0, 3, Some((9, 0, 0)), &records(3, b"more")));
    for (id, _) in log.partitions() {
        let Some(partition) = log.partition(id) else { continue };
        let end = partition.high_watermark();
        let Ok(appended) = partition.append(batch.clone(), 0, 7) else { continue };
        assert!(appended.duplicate || appended.base_offset == end, "{id:?} goes on at {}", appended.base_offset);
    }
    log.enforce_retention(1_700_000_000_000);
    let _ = log.create_partition(id(9), "topic-9", config());
}

/// Walks what is served from `offset` on, and returns its bytes.
///
/// # Errors
/// What it is other than whole batches with ascending offsets.
///
/// # Panics
/// When nothing is served that should be.
pub(super) fn served(partition: &Partition, mut offset: i64) -> Result<usize, ReadError> {
    let (mut bytes, mut first) = (0, true);
    let end = partition.high_watermark();
    while offset < end {
        let read = partition.read(offset, READ_BYTES, true)?.batches;
        bytes += read.len();
        let mut rest: &[u8] = &read;
        while let Some(head) = rest.first_chunk::<61>() {
            let base_offset = i64::from_be_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|at: usize| head[at]));
            let total = i32::from_be_bytes([8, 9, 10, 11].map(|at: usize| head[at])) as usize;
            let total = total.wrapping_add(12);
            let delta = i32::from_be_bytes([23, 24, 25, 26].map(|at: usize| head[at]));
            let last_offset = base_offset.saturating_add(i64::from(delta));
            let is_whole = head[16] == 2 && delta >= 0 && total <= rest.len();
            let is_asked_for = last_offset >= offset && last_offset < end && (first || base_offset >= offset);
            if !is_whole || !is_asked_for {
                // Records go from file to socket: a header in the middle that has rotted since the last checkpoint is
                // for the reader's CRC to find.
                return Err(ReadError::Storage(format!("{base_offset}+{delta} is served for {offset} of {end}")));
            }
            first = false;
            offset = last_offset + 1;
            rest = &rest[total..];
        }
        if !rest.is_empty() {
            return Err(ReadError::Storage(format!("{} bytes are no batch", rest.len())));
        }
        assert!(!read.is_empty(), "nothing is served at {offset}, though {end} is the end");
    }
    Ok(bytes)
}

/// Puts right the CRCs of all files, and what the checkpoint says of the indexes.
fn repair(files: &mut [(u8, u64, Vec<u8>)]) {
    let mut indexes = Vec::new();
    for (kind, number, bytes) in files.iter_mut() {
        match *kind % KINDS {
            2 => repair_journal(*number, bytes),
            5 => *bytes = repaired(std::mem::take(bytes)),
            6 => indexes.push((*number, bytes.clone())),
            _ => {}
        }
    }
    for (_, _, bytes) in files.iter_mut().filter(|(kind, ..)| *kind % KINDS == 0) {
        repair_checkpoint(bytes, &indexes);
    }
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

fn repair_journal(number: u64, bytes: &mut [u8]) {
    put(bytes, 0, b"FSJRNL01");
    put(bytes, 8, &number.to_le_bytes());
    let Some(salt) = bytes.get(16..24).map(<[u8]>::to_vec) else { return };
    let crc = crc32c::crc32c(&bytes[..24]);
    put(bytes, 24, &crc.to_le_bytes());
    for at in (512..bytes.len()).step_by(512) {
        let group = &mut bytes[at..];
        if !group.starts_with(b"FSGR") || group.len() < 44 {
            continue;
        }
        put(group, 24, &salt);
        let payload_bytes = u64::from_le_bytes([32, 33, 34, 35, 36, 37, 38, 39].map(|at: usize| group[at]));
        let payload = usize::try_from(payload_bytes).ok().and_then(|length| group[44..].get(..length));
        if let Some(crc) = payload.map(crc32c::crc32c) {
            put(group, 40, &crc.to_le_bytes());
        }
        let crc = crc32c::crc32c(&group[8..44]);
        put(group, 4, &crc.to_le_bytes());
    }
}

/// What counts of an index stands 40 bytes behind the segment's base offset: entries, CRC.
fn repair_checkpoint(bytes: &mut [u8], indexes: &[(u64, Vec<u8>)]) {
    for (base_offset, index) in indexes {
        let head: Vec<u8> = base_offset.to_le_bytes().to_vec();
        let entries = ((index.len() / 16) as u32).to_le_bytes();
        let crc = crc32c::crc32c(&index[..index.len() / 16 * 16]).to_le_bytes();
        let places: Vec<usize> = (0..bytes.len().saturating_sub(47))
            .filter(|&at| bytes[at..].starts_with(&head) && bytes[at + 40..].starts_with(&entries))
            .collect();
        places.into_iter().for_each(|at| put(bytes, at + 44, &crc));
    }
    let body = bytes.get(20..).unwrap_or_default();
    let (length, crc) = (body.len() as u64, crc32c::crc32c(body));
    put(bytes, 0, b"FSCHKP0");
    if let Some(version) = bytes.get_mut(7) {
        *version = if (b'1'..=b'3').contains(version) { *version } else { b'3' };
    }
    put(bytes, 8, &length.to_le_bytes());
    put(bytes, 16, &crc.to_le_bytes());
}

fn id(number: i32) -> PartitionId {
    PartitionId { topic_id: Uuid::from_u128(7), partition: number }
}

fn config() -> PartitionConfig {
    PartitionConfig {
        segment_bytes_max: 900,
        segment_age_ms_max: i64::MAX,
        retention_bytes: None,
        retention_ms: None,
        batch_bytes_max: 1 << 20,
        log_append_time: false,
        compaction: None,
        timestamp_before_ms_max: i64::MAX,
        timestamp_after_ms_max: i64::MAX,
    }
}

/// Directories of logs that were stopped or fell, in both durabilities.
///
/// # Panics
/// When the log cannot be written here.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![vec![0]];
    for durability in [Durability::Fsync, Durability::Os] {
        for stopped in [true, false] {
            for lives in 1..3 {
                let directory = directory();
                for life in 0..lives {
                    live(directory.path(), durability, life, stopped || life + 1 < lives);
                }
                let os = if durability == Durability::Os { OS } else { 0 };
                seeds.extend([0, REPAIR].map(|repair| packed(os | repair, directory.path())));
            }
        }
    }
    seeds
}

#[allow(clippy::expect_used)]
fn live(directory: &Path, durability: Durability, life: i32, stops: bool) {
    let settings = LogSettings { durability, journal_bytes_max: JOURNAL_BYTES };
    let (log, _) = Log::open(directory, settings).expect("our own log opens");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        for number in 0..2 {
            let partition = log.create_partition(id(number), &format!("topic-{number}"), config()).expect("created");
            for index in 0..4 {
                let sequence = 3 * (4 * life + index);
                let batch = sealed(0, 3, Some((5, 0, sequence)), &records(3, &[b'v'; 40]));
                let appended = partition.append(batch.into(), 0, 1_700_000_000_000).expect("accepted");
                partition.durable(&appended).await.expect("durable");
            }
        }
        let state = vec![(Bytes::from_static(b"key"), Some(Bytes::from_static(b"value")))];
        log.put_state(state).await.expect("state");
        let first = log.partition(id(0)).expect("there");
        first.delete_records_before(i64::from(7 * life)).await.expect("deleted");
        if life == 1 {
            log.delete_partition(id(1)).await.expect("deleted");
        }
        if stops {
            log.close().await.expect("closed");
        }
    });
}

fn packed(flags: u8, directory: &Path) -> Vec<u8> {
    let mut out = vec![flags];
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(directory.join(&folder)).into_iter().flatten().flatten() {
            let place = folder.join(entry.file_name());
            if entry.path().is_dir() {
                folders.push(place);
            } else if let (Some((kind, number)), Ok(mut bytes)) = (kind_of(&place), std::fs::read(entry.path())) {
                // Journals are preallocated.
                let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
                bytes.truncate(if kind % KINDS == 2 { used.next_multiple_of(512) } else { bytes.len() });
                out.push(kind);
                out.extend(number.to_le_bytes());
                out.extend((bytes.len() as u16).to_le_bytes());
                out.extend(bytes);
            }
        }
    }
    out
}
