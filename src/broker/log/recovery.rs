//! Start-up: checkpoint, then the journal on top, by what was promised. Nothing is served before all that is kept is
//! synced and a new checkpoint says so.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Mutex, RwLock};

use bytes::Bytes;

use super::batch::{BatchHeader, CheckedBatch};
use super::checkpoint::{self, Checkpoint};
use super::core::{Core, StateMap, graveyard, identity, journal_directory};
use super::disk::{Disk, DiskFile};
use super::housekeeper::Job;
use super::journal_files::JournalFiles;
use super::journal_scan::JournalScan;
use super::journal_witness;
use super::partition::Partition;
use super::queue::{Origin, PendingBatch, Queue};
use super::records::{NUMBER_MAX, Record, decode_group};
use super::segment_recovery::open_store;
use super::{Durability, LogSettings, OpenError, RecoveryReport, lock, read_lock};

/// What later groups say about partitions, known before anything is opened.
#[derive(Default)]
pub(super) struct Foresight {
    created: HashSet<u64>,
    deleted: HashSet<u64>,
    log_starts: HashMap<u64, i64>,
    ends: HashMap<u64, i64>,
}

impl Foresight {
    /// Where the log will start in the end: what lies below may be gone already.
    pub fn log_start(&self, number: u64) -> i64 {
        self.log_starts.get(&number).copied().unwrap_or(0)
    }

    /// The offset behind the last batch, as far as the journal tells.
    pub fn end(&self, number: u64) -> i64 {
        self.ends.get(&number).copied().unwrap_or(0)
    }
}

/// Makes the log's own directory durable, which may have been made a moment ago, with all that lead to it.
fn sync_names(disk: &dyn Disk, directory: &Path) -> Result<(), OpenError> {
    for ancestor in directory.ancestors().skip(1) {
        let ancestor = if ancestor.as_os_str().is_empty() { Path::new(".") } else { ancestor };
        // One that may not be looked into was not made by us, and is older than this start.
        if let Ok(open) = disk.open_directory(ancestor) {
            open.sync_all().map_err(OpenError::io("sync", ancestor))?;
        }
    }
    disk.sync_directory(directory).map_err(OpenError::io("sync", directory))
}

/// Opens what is in `directory`, or begins there.
pub(super) fn recover(
    disk: Arc<dyn Disk>,
    directory: &Path,
    settings: LogSettings,
    jobs: Sender<Job>,
) -> Result<(Arc<Core>, RecoveryReport), OpenError> {
    let journal = journal_directory(directory);
    let graveyard = graveyard(directory);
    for needed in [directory, &journal, &graveyard] {
        disk.create_directories(needed).map_err(OpenError::io("create", needed))?;
    }
    sync_names(&*disk, directory)?;
    let checkpoint = Checkpoint::read(&*disk, directory)?;
    let scan = JournalScan::scan(&*disk, &journal, checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.sequence))?;
    match &checkpoint {
        None => journal_witness::check_checkpoint_is_there(&*disk, directory, &scan.paths)?,
        Some(checkpoint) => scan.check_needed(&journal, checkpoint.needed_journal_number)?,
    }
    scan.make_durable(&*disk, &journal)?;
    let mode = checkpoint.as_ref().map_or(settings.durability, |checkpoint| checkpoint.durability);
    let mut report = RecoveryReport {
        clean_stop: checkpoint.as_ref().is_none_or(|checkpoint| checkpoint.clean && scan.groups.is_empty()),
        cut_bytes: scan.cut_bytes,
        ..RecoveryReport::default()
    };
    let next_journal = scan.next_number.max(checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.next_journal_number));
    // Names beyond are none of ours. No life gets from half of the way to the end.
    if next_journal > NUMBER_MAX / 2 {
        let what = format!("the next file would be number {next_journal}, which no log gets to");
        return Err(OpenError::damaged(&journal, 0, what));
    }
    let core = Arc::new(Core {
        directory: directory.to_owned(),
        journal_files: JournalFiles::new(disk.clone(), &journal, settings.journal_bytes_max, next_journal),
        disk,
        settings,
        queue: Arc::new(Queue::default()),
        state: RwLock::new(checkpoint.as_ref().map_or_else(StateMap::new, |checkpoint| checkpoint.state.clone())),
        partitions: RwLock::default(),
        names_changed: AtomicBool::new(true),
        next_partition_number: AtomicU64::new(checkpoint.as_ref().map_or(1, |known| known.next_partition_number)),
        written_sequence: AtomicU64::new(scan.last_sequence),
        applied_sequence: AtomicU64::new(scan.last_sequence),
        unsynced_bytes: AtomicU64::new(0),
        jobs: Mutex::new(jobs),
        cleaner: Mutex::default(),
    });
    let foresight = look_ahead(&scan)?;
    check_partitions(&core, checkpoint.as_ref(), &foresight)?;
    open_checkpointed(&core, checkpoint, &foresight, mode, &mut report)?;
    replay(&core, &scan, &foresight, mode, &mut report)?;
    finish(&core, &scan)?;
    report.partitions = read_lock(&core.partitions).len();
    Ok((core, report))
}

/// Those with lower numbers that are not known were deleted.
fn check_partitions(core: &Core, checkpoint: Option<&Checkpoint>, foresight: &Foresight) -> Result<(), OpenError> {
    let first_new = checkpoint.map_or(0, |checkpoint| checkpoint.next_partition_number);
    let held = checkpoint.iter().flat_map(|checkpoint| &checkpoint.partitions).map(|snapshot| snapshot.record.number);
    let told: HashSet<u64> = held.chain(foresight.created.iter().chain(&foresight.deleted).copied()).collect();
    journal_witness::check_partitions(&*core.disk, &core.directory, |number| {
        number < first_new || told.contains(&number)
    })
}

fn look_ahead(scan: &JournalScan) -> Result<Foresight, OpenError> {
    let mut foresight = Foresight::default();
    for place in &scan.groups {
        for record in decode(scan, place)? {
            match record {
                Record::Delete(number) => {
                    foresight.deleted.insert(number);
                }
                Record::LogStart { number, offset } => {
                    let known = foresight.log_starts.entry(number).or_insert(offset);
                    *known = offset.max(*known);
                }
                Record::Batch { number, bytes, .. } => {
                    let header = BatchHeader::read(&bytes).filter(|it| it.fits(0, bytes.len() as u64).is_some());
                    let end = header.map_or(0, |header| header.last_offset() + 1);
                    let known = foresight.ends.entry(number).or_insert(end);
                    *known = end.max(*known);
                }
                Record::Create(record) => {
                    foresight.created.insert(record.number);
                }
                Record::State(_) => {}
            }
        }
    }
    Ok(foresight)
}

fn decode(scan: &JournalScan, place: &super::journal_scan::GroupPlace) -> Result<Vec<Record>, OpenError> {
    let payload = scan.payload(place)?;
    decode_group(&payload)
        .ok_or_else(|| OpenError::damaged(scan.path_of(place), place.position, "its records make no sense"))
}

fn open_checkpointed(
    core: &Arc<Core>,
    checkpoint: Option<Checkpoint>,
    foresight: &Foresight,
    mode: Durability,
    report: &mut RecoveryReport,
) -> Result<(), OpenError> {
    for mut snapshot in checkpoint.into_iter().flat_map(|checkpoint| checkpoint.partitions) {
        if foresight.deleted.contains(&snapshot.record.number) {
            continue;
        }
        let path = core.directory.join(&snapshot.record.directory);
        snapshot.log_start = snapshot.log_start.max(foresight.log_start(snapshot.record.number));
        let record = snapshot.record.clone();
        let store = open_store(&core.disk, &path, snapshot, mode, foresight.end(record.number), report)?;
        let partition = Partition::new(record, path, core.disk.clone(), core.queue.clone(), store);
        super::write_lock(&core.partitions).insert(partition.id(), partition);
    }
    Ok(())
}

fn replay(
    core: &Arc<Core>,
    scan: &JournalScan,
    foresight: &Foresight,
    mode: Durability,
    report: &mut RecoveryReport,
) -> Result<(), OpenError> {
    let by_number = |number: u64| core.all_partitions().into_iter().find(|known| known.number() == number);
    let mut known: HashMap<u64, Partition> =
        core.all_partitions().into_iter().map(|partition| (partition.number(), partition)).collect();
    // Lower numbers that are unknown are those of partitions that were deleted before the checkpoint.
    let first_new = core.next_partition_number.load(Ordering::Acquire);
    for place in &scan.groups {
        let mut runs: BTreeMap<u64, Vec<PendingBatch>> = BTreeMap::new();
        for record in decode(scan, place)? {
            match record {
                Record::Batch { number, .. } if foresight.deleted.contains(&number) => {}
                Record::Batch { number, .. } if number < first_new && !known.contains_key(&number) => {}
                Record::Batch { number, now_ms, bytes } => {
                    let damaged = |what: &str| OpenError::damaged(scan.path_of(place), place.position, what);
                    let partition = known.get(&number).ok_or_else(|| damaged("a batch of an unknown partition"))?;
                    let header =
                        BatchHeader::read(&bytes).filter(|header| header.fits(0, bytes.len() as u64).is_some());
                    let header = header.ok_or_else(|| damaged("a batch makes no sense"))?;
                    let batch = CheckedBatch::split(&bytes, header).ok_or_else(|| damaged("a batch is cut off"))?;
                    let run = runs.entry(number).or_default();
                    run.push(PendingBatch { partition: partition.clone(), batch, now_ms, origin: Origin::Client });
                }
                Record::State(changes) => core.apply_state(changes),
                Record::Create(record) => {
                    let number = record.number;
                    let next = &core.next_partition_number;
                    next.fetch_max(number + 1, Ordering::AcqRel);
                    if foresight.deleted.contains(&number) || by_number(number).is_some() {
                        continue;
                    }
                    if core.all_partitions().iter().any(|other| other.directory() == record.directory) {
                        let what = format!("another partition has the directory {}, too", record.directory);
                        return Err(OpenError::damaged(scan.path_of(place), place.position, what));
                    }
                    let created = recreate(core, record, foresight, mode, report)?;
                    known.insert(number, created);
                }
                // Known from the look ahead.
                Record::Delete(_) | Record::LogStart { .. } => {}
            }
        }
        for (number, run) in runs {
            if let Some(partition) = known.get(&number) {
                report.replayed_batches += store_missing(partition, run)?;
            }
        }
    }
    Ok(())
}

fn recreate(
    core: &Arc<Core>,
    record: super::records::PartitionRecord,
    foresight: &Foresight,
    mode: Durability,
    report: &mut RecoveryReport,
) -> Result<Partition, OpenError> {
    let path = core.directory.join(&record.directory);
    super::core::make_directory(&*core.disk, &path, record.number).map_err(OpenError::io("create", &path))?;
    let snapshot = super::store::PartitionSnapshot {
        log_start: foresight.log_start(record.number),
        end_offset: 0,
        first_dirty: 0,
        segments: Vec::new(),
        producers: Default::default(),
        record: record.clone(),
    };
    let store = open_store(&core.disk, &path, snapshot, mode, foresight.end(record.number), report)?;
    let partition = Partition::new(record, path, core.disk.clone(), core.queue.clone(), store);
    super::write_lock(&core.partitions).insert(partition.id(), partition.clone());
    Ok(partition)
}

/// Stores what the segments do not hold yet. What lies below the log start is gone for good, and only remembered.
fn store_missing(partition: &Partition, run: Vec<PendingBatch>) -> Result<u64, OpenError> {
    let mut missing = Vec::with_capacity(run.len());
    {
        let mut store = lock(&partition.0.store);
        for pending in run {
            let header = &pending.batch.header;
            if header.base_offset < store.end_offset {
                continue;
            }
            if header.last_offset() < store.log_start && missing.is_empty() {
                store.apply(&pending.batch, pending.now_ms);
                // What follows does not continue a segment that ended before the hole.
                store.last_is_closed = true;
                continue;
            }
            missing.push(pending);
        }
    }
    let count = missing.len() as u64;
    partition.store_batches(&mut missing.as_slice()).map_err(OpenError::io("write", &partition.0.path))?;
    Ok(count)
}

/// Makes what was kept durable, begins a new journal, and clears away what is left over.
fn finish(core: &Arc<Core>, scan: &JournalScan) -> Result<(), OpenError> {
    let directory = &core.directory;
    for partition in core.all_partitions() {
        let log_start = {
            let mut store = lock(&partition.0.store);
            if store.end_offset < store.log_start {
                // `os`: the raised log start was synced, the batches before it were lost with the machine.
                store.end_offset = store.log_start;
                store.last_is_closed = true;
            }
            store.log_start
        };
        let cleared = core.apply_log_start(&partition, log_start);
        cleared.map_err(|(path, source)| OpenError::Io { action: "remove", path, source })?;
        lock(&partition.0.store).directory_dirty = true;
        partition.catch_up();
    }
    clear_orphans(core)?;
    checkpoint::take(core, false)?;
    let journal = journal_directory(directory);
    for path in &scan.paths {
        core.disk.remove_file(path).map_err(OpenError::io("remove", path))?;
    }
    clear_directory(&*core.disk, &journal)?;
    core.disk.sync_directory(&journal).map_err(OpenError::io("sync", &journal))?;
    clear_directory(&*core.disk, &graveyard(directory))
}

/// Directories of partitions that nobody knows: deleted, or never created durably.
fn clear_orphans(core: &Arc<Core>) -> Result<(), OpenError> {
    let live: HashSet<u64> = core.all_partitions().iter().map(Partition::number).collect();
    let directory = &core.directory;
    for entry in core.disk.list(directory).map_err(OpenError::io("list", directory))? {
        let path = directory.join(&entry.name);
        // Without its identity it is none of ours, and stays.
        if entry.is_directory && identity(&*core.disk, &path).is_some_and(|number| !live.contains(&number)) {
            core.disk.remove_directory(&path).map_err(OpenError::io("remove", &path))?;
        }
    }
    Ok(())
}

fn clear_directory(disk: &dyn Disk, directory: &Path) -> Result<(), OpenError> {
    for entry in disk.list(directory).map_err(OpenError::io("list", directory))? {
        let path = directory.join(&entry.name);
        match disk.remove(&path, entry.is_directory) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(OpenError::io("remove", &path)(error)),
            _ => {}
        }
    }
    Ok(())
}

/// Reads a whole batch of a file at `position`; none when there is none that is whole and valid.
pub(super) fn whole_batch(file: &dyn DiskFile, position: u64, length: u64) -> Option<CheckedBatch> {
    let mut head = [0; super::batch::HEADER_BYTES];
    if position + head.len() as u64 > length {
        return None;
    }
    file.read_exact_at(&mut head, position).ok()?;
    let header = BatchHeader::read(&head)?;
    let total = header.fits(0, length - position)?;
    let mut bytes = vec![0; total];
    file.read_exact_at(&mut bytes, position).ok()?;
    let batch = CheckedBatch::split(&Bytes::from(bytes), header)?;
    (batch.computed_crc() == header.crc).then_some(batch)
}
