//! The floor: what appending and one shared sync cost on this disk, without a network, a protocol or a log around it.
//!
//! Messages arrive on a schedule and wait in memory; whoever writes takes all that wait, writes it, syncs once and
//! calls them done. Each message is timed from the moment at which it was due. Knows nothing of Kafka or finstream.

use std::fs::{File, OpenOptions};
use std::io::{IoSlice, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::pace::{Pace, histogram};

/// What is preallocated in all; a file is written from its beginning again when it is full.
const PREALLOCATED_BYTES: u64 = 256 * 1024 * 1024;
/// With files behind a journal: they are synced after this many bytes.
const CHECKPOINT_BYTES: u64 = 64 * 1024 * 1024;
/// Threads that write and sync files of their own, at most.
const WRITERS_MAX: usize = 16;
/// Groups that wait for the files behind a journal; then the journal waits.
const GROUPS_BEHIND_MAX: usize = 8;

/// Where the bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// All partitions into one preallocated file, one `fdatasync` a group.
    Journal,
    /// The same, and behind it a file a partition, written without a sync and synced every 64 MiB: each byte twice.
    JournalAndFiles,
    /// One growing file a partition, each with an `fdatasync` of its own, several at once.
    Files,
    /// The same with preallocated files.
    PreallocatedFiles,
}

impl Layout {
    pub const ALL: [(&'static str, Layout); 4] = [
        ("journal", Layout::Journal),
        ("journal+files", Layout::JournalAndFiles),
        ("files", Layout::Files),
        ("preallocated-files", Layout::PreallocatedFiles),
    ];
}

/// One measurement.
#[derive(Clone, Debug)]
pub struct Settings {
    pub layout: Layout,
    /// Messages a second; none: as fast as it goes with `waiting_max` messages under way.
    pub rate: Option<f64>,
    pub message_bytes: usize,
    pub partitions: usize,
    pub warm_up: Duration,
    pub measured: Duration,
    /// Messages that wait at once, at most, where there is no rate: librdkafka's own bound is 100,000.
    pub waiting_max: usize,
}

/// What was seen after the warm-up.
pub struct Outcome {
    pub messages_per_second: f64,
    /// Microseconds from the scheduled moment to the end of the sync.
    pub latency: Histogram<u64>,
    pub syncs_per_second: f64,
}

/// What waits for one writer.
#[derive(Default)]
struct Waiting {
    /// Bytes of each of the writer's partitions.
    bytes: Vec<Vec<u8>>,
    due: Vec<Instant>,
    /// Taken by the writer and not synced yet.
    under_way: usize,
    ended: bool,
}

struct Lane {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
    synced: Condvar,
}

/// What one writer counted.
struct Counted {
    latency: Histogram<u64>,
    messages: u64,
    syncs: u64,
}

/// Measures in a folder of its own below `dir`, which is gone afterwards.
pub fn measure(dir: &Path, settings: &Settings) -> Outcome {
    let folder = tempfile::Builder::new().prefix("finstream-floor-").tempdir_in(dir).unwrap();
    let writers = match settings.layout {
        Layout::Journal | Layout::JournalAndFiles => 1,
        Layout::Files | Layout::PreallocatedFiles => settings.partitions.min(WRITERS_MAX),
    };
    let lanes: Vec<Lane> = (0..writers)
        .map(|writer| {
            let partitions = (writer..settings.partitions).step_by(writers).count();
            let waiting = Waiting { bytes: vec![Vec::new(); partitions], ..Waiting::default() };
            Lane { waiting: Mutex::new(waiting), arrived: Condvar::new(), synced: Condvar::new() }
        })
        .collect();
    let sinks: Vec<Sink> =
        lanes.iter().enumerate().map(|(writer, lane)| Sink::create(folder.path(), settings, writer, lane)).collect();

    let begins = Instant::now() + settings.warm_up;
    let ends = begins + settings.measured;
    let counted: Vec<Counted> = thread::scope(|scope| {
        let writing: Vec<_> = lanes
            .iter()
            .zip(sinks)
            .map(|(lane, sink)| scope.spawn(move || write_groups(lane, sink, begins, ends)))
            .collect();
        arrive(&lanes, settings, ends);
        writing.into_iter().map(|handle| handle.join().unwrap()).collect()
    });

    let mut latency = histogram();
    for part in &counted {
        latency.add(&part.latency).unwrap();
    }
    let per_second = |total: u64| total as f64 / settings.measured.as_secs_f64();
    Outcome {
        messages_per_second: per_second(counted.iter().map(|part| part.messages).sum()),
        latency,
        syncs_per_second: per_second(counted.iter().map(|part| part.syncs).sum()),
    }
}

/// Puts messages into the lanes when they are due, one partition after the other.
fn arrive(lanes: &[Lane], settings: &Settings, ends: Instant) {
    let message = vec![b'x'; settings.message_bytes];
    let mut pace = settings.rate.map(|rate| Pace::new(Instant::now(), rate));
    let mut partition = 0;
    loop {
        let due = match &mut pace {
            Some(pace) => pace.wait_for_next(),
            None => Instant::now(),
        };
        if due >= ends {
            break;
        }
        let lane = &lanes[partition % lanes.len()];
        let mut waiting = lane.waiting.lock().unwrap();
        if pace.is_none() {
            let share = settings.waiting_max / lanes.len();
            while waiting.due.len() + waiting.under_way >= share {
                waiting = lane.synced.wait(waiting).unwrap();
            }
        }
        waiting.bytes[partition / lanes.len()].extend_from_slice(&message);
        waiting.due.push(due);
        let first = waiting.due.len() == 1;
        drop(waiting);
        if first {
            lane.arrived.notify_one();
        }
        partition = (partition + 1) % settings.partitions;
    }
    for lane in lanes {
        lane.waiting.lock().unwrap().ended = true;
        lane.arrived.notify_one();
    }
}

/// One writer: takes what waits, writes and syncs it, counts it if it was due after the warm-up.
fn write_groups(lane: &Lane, mut sink: Sink, begins: Instant, ends: Instant) -> Counted {
    let mut counted = Counted { latency: histogram(), messages: 0, syncs: 0 };
    let mut bytes = vec![Vec::new(); lane.waiting.lock().unwrap().bytes.len()];
    let mut due = Vec::new();
    loop {
        let mut waiting = lane.waiting.lock().unwrap();
        waiting.under_way = 0;
        lane.synced.notify_one();
        while waiting.due.is_empty() && !waiting.ended {
            waiting = lane.arrived.wait(waiting).unwrap();
        }
        if waiting.due.is_empty() {
            sink.finish();
            return counted;
        }
        std::mem::swap(&mut bytes, &mut waiting.bytes);
        std::mem::swap(&mut due, &mut waiting.due);
        waiting.under_way = due.len();
        drop(waiting);

        let syncs = sink.store(&mut bytes);
        let done = Instant::now();
        if done >= begins && done < ends {
            counted.syncs += syncs;
            counted.messages += due.len() as u64;
        }
        for due in due.drain(..).filter(|due| *due >= begins) {
            counted.latency.saturating_record((done - due).as_micros() as u64);
        }
    }
}

/// Who writes the files behind a journal.
struct Behind {
    groups: SyncSender<Vec<Vec<u8>>>,
    thread: JoinHandle<()>,
}

/// The files of one writer.
enum Sink {
    Journal { file: File, position: u64, behind: Option<Behind> },
    Files { files: Vec<File>, positions: Vec<u64>, bytes_max: Option<u64> },
}

impl Sink {
    fn create(folder: &Path, settings: &Settings, writer: usize, lane: &Lane) -> Sink {
        let partitions = lane.waiting.lock().unwrap().bytes.len();
        let create = |name: String| OpenOptions::new().write(true).create_new(true).open(folder.join(name)).unwrap();
        let partition_files = || (0..partitions).map(|number| create(format!("{writer}-{number}.log"))).collect();
        match settings.layout {
            Layout::Journal => {
                let file = preallocated(create("journal".into()), PREALLOCATED_BYTES);
                Sink::Journal { file, position: 0, behind: None }
            }
            Layout::JournalAndFiles => {
                let file = preallocated(create("journal".into()), PREALLOCATED_BYTES);
                let (groups, arrived) = sync_channel(GROUPS_BEHIND_MAX);
                let files = partition_files();
                let thread = thread::spawn(move || write_behind(&arrived, files));
                Sink::Journal { file, position: 0, behind: Some(Behind { groups, thread }) }
            }
            Layout::Files => Sink::Files { files: partition_files(), positions: vec![0; partitions], bytes_max: None },
            Layout::PreallocatedFiles => {
                let files: Vec<File> = partition_files();
                let bytes = PREALLOCATED_BYTES / settings.partitions as u64;
                let files = files.into_iter().map(|file| preallocated(file, bytes)).collect();
                Sink::Files { files, positions: vec![0; partitions], bytes_max: Some(bytes) }
            }
        }
    }

    /// Writes and syncs what is in `bytes`, and empties it; how many syncs that took.
    fn store(&mut self, bytes: &mut [Vec<u8>]) -> u64 {
        match self {
            Sink::Journal { file, position, behind } => {
                let total: u64 = bytes.iter().map(|part| part.len() as u64).sum();
                if *position + total > PREALLOCATED_BYTES {
                    *position = 0;
                }
                let parts: Vec<&[u8]> = bytes.iter().map(Vec::as_slice).filter(|part| !part.is_empty()).collect();
                write_vectored(file, &parts, *position);
                *position += total;
                file.sync_data().unwrap();
                if let Some(behind) = behind {
                    behind.groups.send(bytes.iter_mut().map(std::mem::take).collect()).unwrap();
                }
                bytes.iter_mut().for_each(Vec::clear);
                1
            }
            Sink::Files { files, positions, bytes_max } => {
                let mut syncs = 0;
                for ((part, file), position) in bytes.iter_mut().zip(files).zip(positions) {
                    if part.is_empty() {
                        continue;
                    }
                    if bytes_max.is_some_and(|max| *position + part.len() as u64 > max) {
                        *position = 0;
                    }
                    file.write_all_at(part, *position).unwrap();
                    file.sync_data().unwrap();
                    *position += part.len() as u64;
                    part.clear();
                    syncs += 1;
                }
                syncs
            }
        }
    }

    /// Waits for the files behind a journal.
    fn finish(self) {
        if let Sink::Journal { behind: Some(Behind { groups, thread }), .. } = self {
            drop(groups);
            thread.join().unwrap();
        }
    }
}

/// The files behind a journal; ends with its journal.
fn write_behind(groups: &Receiver<Vec<Vec<u8>>>, mut files: Vec<File>) {
    let mut since_sync = 0;
    for group in groups {
        for (part, file) in group.iter().zip(&mut files) {
            file.write_all(part).unwrap();
            since_sync += part.len() as u64;
        }
        if since_sync >= CHECKPOINT_BYTES {
            files.iter().for_each(|file| file.sync_data().unwrap());
            since_sync = 0;
        }
    }
}

/// Written with zeros, not only reserved: the first write to a reserved block changes the file system's own records.
fn preallocated(file: File, bytes: u64) -> File {
    let zeros = vec![0; 1024 * 1024];
    for position in (0..bytes).step_by(zeros.len()) {
        let count = (bytes - position).min(zeros.len() as u64);
        file.write_all_at(&zeros[..count as usize], position).unwrap();
    }
    file.sync_all().unwrap();
    file
}

fn write_vectored(file: &File, parts: &[&[u8]], mut position: u64) {
    let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
    let mut rest = slices.as_mut_slice();
    while !rest.is_empty() {
        // Linux takes at most 1024 parts in one call.
        let count = rest.len().min(1024);
        let written = rustix::io::pwritev(file, &rest[..count], position).unwrap();
        position += written as u64;
        IoSlice::advance_slices(&mut rest, written);
    }
}
