//! What waits for the writer: batches and changes of all partitions, in one bounded queue.
//!
//! The one lock that all appends share, held for a push only. Lock order: a partition's front, then this.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::batch::CheckedBatch;
use super::partition::Partition;
use super::records::Change;
use super::{AppendError, lock, wait};

/// Clients' appends are refused (`Busy`) while this much waits.
const WAITING_BYTES_MAX: usize = 64 << 20;
/// Changes and what coordinators append are small, and the way forward of all topics, groups and transactions: they may
/// go beyond, to this. A client takes whatever room there is, again and again; these are tried once.
const WAITING_BYTES_WITH_CHANGES_MAX: usize = 2 * WAITING_BYTES_MAX;
/// The writer takes no more than this at once, so that a group does not fill a journal file.
pub(super) const GROUP_BYTES_MAX: usize = 16 << 20;
/// What an entry itself takes in memory, about: tiny batches must count, too.
const ENTRY_BYTES: usize = 256;
/// While the disk is full, appends let the writer look for room this often.
const ROOM_PAUSE: Duration = Duration::from_secs(1);

/// Whose batch it is, which decides what it may be refused for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A client's, which tries again.
    Client,
    /// What a coordinator remembers, or the marker that ends a transaction. `behind`: how often what waited had been
    /// refused when that was queued without which this must not be.
    Coordinator { behind: Option<u64> },
}

impl Origin {
    fn waiting_bytes_max(self) -> usize {
        match self {
            Origin::Client => WAITING_BYTES_MAX,
            Origin::Coordinator { .. } => WAITING_BYTES_WITH_CHANGES_MAX,
        }
    }
}

/// A batch that has got its offsets.
pub(super) struct PendingBatch {
    pub partition: Partition,
    pub batch: CheckedBatch,
    pub now_ms: i64,
    pub origin: Origin,
}

/// Who waits for a change, if anyone.
pub(super) enum Completion {
    Nobody,
    Task(oneshot::Sender<Result<(), AppendError>>),
    Thread(std::sync::mpsc::SyncSender<Result<(), AppendError>>),
}

impl Completion {
    pub fn complete(self, result: Result<(), AppendError>) {
        // Whoever waited may have gone; the change holds all the same.
        match self {
            Completion::Nobody => {}
            Completion::Task(sender) => drop(sender.send(result)),
            Completion::Thread(sender) => drop(sender.send(result)),
        }
    }
}

/// One thing for the writer to do.
pub(super) enum Entry {
    Batch(PendingBatch),
    Change(Change, Completion),
}

impl Entry {
    fn bytes(&self) -> usize {
        match self {
            Entry::Batch(pending) => ENTRY_BYTES + pending.batch.total_bytes(),
            Entry::Change(change, _) => ENTRY_BYTES + change.bytes(),
        }
    }
}

/// How the writer shall end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// Write what waits.
    Drain,
    /// Leave what waits; nobody was promised anything.
    Abandon,
}

/// What the writer gets.
pub(super) enum Taken {
    Entries(Vec<Entry>),
    /// The disk was full; see whether it still is.
    LookForRoom,
    Stop,
}

#[derive(Default)]
struct Waiting {
    entries: VecDeque<Entry>,
    bytes: usize,
    stop: Option<Stop>,
    full: Option<Full>,
    /// How often what waited was refused.
    refusals: u64,
    /// What the writer waits for in the middle of a group.
    stalled: Option<String>,
    /// Somebody writes what was taken; the next to be written comes behind it.
    has_turn: bool,
    /// Until then only the writer takes what waits.
    for_writer_until: Option<Instant>,
}

impl Waiting {
    /// Whether so many bytes may wait as well, where this much may wait. A single batch or change always may.
    fn check_room(&self, bytes: usize, bytes_max: usize) -> Result<(), AppendError> {
        if self.bytes > 0 && self.bytes + bytes > bytes_max {
            return Err(AppendError::Busy { waiting_bytes: self.bytes });
        }
        Ok(())
    }
}

struct Full {
    why: String,
    /// There is too little room for what coordinators append, too.
    for_coordinators: bool,
    next_look: Instant,
    look: bool,
}

impl Full {
    /// Has the writer look for room, if it has not done so a moment ago.
    fn ask_for_a_look(&mut self, wake: &Condvar) {
        if !self.look && Instant::now() >= self.next_look {
            self.look = true;
            wake.notify_one();
        }
    }
}

/// The queue, and whether the log still takes changes at all.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    wake: Condvar,
    poisoned: OnceLock<String>,
}

impl Queue {
    /// Why nothing can be written any more, after a failed write or sync.
    pub fn poisoned(&self) -> Option<&str> {
        self.poisoned.get().map(String::as_str)
    }

    fn closed(&self, waiting: &Waiting) -> Option<AppendError> {
        if let Some(why) = self.poisoned() {
            return Some(AppendError::Storage(why.to_owned()));
        }
        waiting.stop.map(|_| AppendError::Storage("the log is closed".to_owned()))
    }

    fn refusal(&self, waiting: &mut Waiting, origin: Origin) -> Option<AppendError> {
        if let Some(closed) = self.closed(waiting) {
            return Some(closed);
        }
        if let Origin::Coordinator { behind: Some(refusals) } = origin
            && refusals != waiting.refusals
        {
            return Some(AppendError::Storage("what it depends on could not be written; try again".to_owned()));
        }
        let full = waiting.full.as_mut()?;
        full.ask_for_a_look(&self.wake);
        let is_refused = origin == Origin::Client || full.for_coordinators;
        is_refused.then(|| AppendError::Storage(full.why.clone()))
    }

    /// Whether the log is to be closed.
    pub fn is_stopping(&self) -> bool {
        lock(&self.waiting).stop.is_some()
    }

    /// Whether nothing waits.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        lock(&self.waiting).entries.is_empty()
    }

    /// Queues the batches of one append, all or none, and tells how often what waited was refused before. Call
    /// [`Queue::wake_writer`] next, once no lock is held that the writer takes: woken before, it would only wait for that.
    pub fn push_batches(&self, batches: Vec<PendingBatch>, origin: Origin) -> Result<u64, AppendError> {
        let bytes: usize = batches.iter().map(|pending| ENTRY_BYTES + pending.batch.total_bytes()).sum();
        let mut waiting = lock(&self.waiting);
        if let Some(refusal) = self.refusal(&mut waiting, origin) {
            return Err(refusal);
        }
        waiting.check_room(bytes, origin.waiting_bytes_max())?;
        waiting.bytes += bytes;
        waiting.entries.extend(batches.into_iter().map(Entry::Batch));
        Ok(waiting.refusals)
    }

    /// How often what waited was refused.
    pub fn refusals(&self) -> u64 {
        lock(&self.waiting).refusals
    }

    pub fn wake_writer(&self) {
        self.wake.notify_one();
    }

    /// Whether so many bytes would be taken now, about: said before the work that goes with it.
    pub fn has_room(&self, bytes: usize, origin: Origin) -> Result<(), AppendError> {
        lock(&self.waiting).check_room(bytes, origin.waiting_bytes_max())
    }

    /// Queues a change; its completion hears of a refusal too. A full disk does not keep changes out: some free space.
    pub fn push_change(&self, change: Change, completion: Completion) {
        let bytes = ENTRY_BYTES + change.bytes();
        let mut waiting = lock(&self.waiting);
        let busy = || waiting.check_room(bytes, WAITING_BYTES_WITH_CHANGES_MAX).err();
        if let Some(refusal) = self.closed(&waiting).or_else(busy) {
            drop(waiting);
            completion.complete(Err(refusal));
            return;
        }
        waiting.bytes += bytes;
        waiting.entries.push_back(Entry::Change(change, completion));
        drop(waiting);
        self.wake_writer();
    }

    /// Waits for something to do, without any timer. Whoever takes entries has the turn until [`Queue::end_turn`].
    pub fn take(&self) -> Taken {
        let mut waiting = lock(&self.waiting);
        loop {
            if waiting.has_turn {
                waiting = wait(&self.wake, waiting);
                continue;
            }
            if waiting.stop == Some(Stop::Abandon) {
                return Taken::Stop;
            }
            // First: what coordinators append may never let the queue be empty.
            if let Some(full) = waiting.full.as_mut().filter(|full| full.look) {
                full.look = false;
                full.next_look = Instant::now() + ROOM_PAUSE;
                return Taken::LookForRoom;
            }
            if !waiting.entries.is_empty() {
                waiting.has_turn = true;
                return Taken::Entries(take_group(&mut waiting));
            }
            if waiting.stop.is_some() {
                return Taken::Stop;
            }
            waiting = wait(&self.wake, waiting);
        }
    }

    /// All that waits, with the turn to write it: if these are batches of no more than so many bytes, nobody has the
    /// turn, and there is no reason to leave it to the writer.
    pub fn take_batches(&self, bytes_max: usize) -> Option<Vec<Entry>> {
        let mut waiting = lock(&self.waiting);
        if waiting.has_turn || waiting.bytes > bytes_max || waiting.stop.is_some() || waiting.full.is_some() {
            return None;
        }
        if waiting.for_writer_until.is_some_and(|until| Instant::now() < until) {
            return None;
        }
        if waiting.entries.is_empty() || waiting.entries.iter().any(|entry| matches!(entry, Entry::Change(..))) {
            return None;
        }
        waiting.has_turn = true;
        waiting.for_writer_until = None;
        waiting.bytes = 0;
        Some(waiting.entries.drain(..).collect())
    }

    /// Puts what was taken back before all that came since.
    pub fn give_back(&self, entries: Vec<Entry>) {
        let mut waiting = lock(&self.waiting);
        waiting.bytes += entries.iter().map(Entry::bytes).sum::<usize>();
        entries.into_iter().rev().for_each(|entry| waiting.entries.push_front(entry));
    }

    /// What was taken is written, refused or given back.
    pub fn end_turn(&self) {
        let mut waiting = lock(&self.waiting);
        waiting.has_turn = false;
        if !waiting.entries.is_empty() || waiting.stop.is_some() {
            self.wake.notify_one();
        }
    }

    /// Takes the turn and nothing to write, if nobody has it.
    #[cfg(test)]
    pub fn try_hold(&self) -> bool {
        let mut waiting = lock(&self.waiting);
        !std::mem::replace(&mut waiting.has_turn, true)
    }

    /// Nobody else takes what waits before then.
    pub fn leave_to_writer_until(&self, until: Instant) {
        lock(&self.waiting).for_writer_until = Some(until);
    }

    /// From now on batches are refused because the disk is full; returns what waited.
    pub fn refuse(&self, why: String) -> Vec<Entry> {
        let mut waiting = lock(&self.waiting);
        let next_look = Instant::now() + ROOM_PAUSE;
        waiting.full = Some(Full { why, for_coordinators: true, next_look, look: false });
        waiting.refusals += 1;
        waiting.bytes = 0;
        waiting.entries.drain(..).collect()
    }

    /// There is room again.
    pub fn accept(&self) {
        lock(&self.waiting).full = None;
    }

    /// There is room for what coordinators append. Only once every partition has given up what was refused: offsets are
    /// given out again.
    pub fn accept_coordinators(&self) {
        if let Some(full) = &mut lock(&self.waiting).full {
            full.for_coordinators = false;
        }
    }

    /// What the writer waits for; none when it goes on.
    pub fn stalled(&self, why: Option<String>) {
        lock(&self.waiting).stalled = why;
    }

    /// Why appends are refused, or wait, until something outside changes. Whoever asks has it looked at again, also while
    /// nobody appends.
    pub fn obstacle(&self) -> Option<String> {
        let mut waiting = lock(&self.waiting);
        if let Some(full) = waiting.full.as_mut() {
            full.ask_for_a_look(&self.wake);
        }
        waiting.stalled.clone().or_else(|| waiting.full.as_ref().map(|full| full.why.clone()))
    }

    /// From now on everything is refused until a restart; returns what waited.
    pub fn poison(&self, why: &str) -> Vec<Entry> {
        let mut waiting = lock(&self.waiting);
        // The first reason is the one to tell.
        let _ = self.poisoned.set(why.to_owned());
        waiting.bytes = 0;
        waiting.entries.drain(..).collect()
    }

    pub fn stop(&self, stop: Stop) {
        lock(&self.waiting).stop.get_or_insert(stop);
        self.wake.notify_one();
    }

    /// Takes what is left behind after the writer has ended.
    pub fn clear(&self) -> Vec<Entry> {
        let mut waiting = lock(&self.waiting);
        waiting.bytes = 0;
        waiting.entries.drain(..).collect()
    }
}

fn take_group(waiting: &mut Waiting) -> Vec<Entry> {
    let mut bytes = 0;
    let mut count = 0;
    for entry in &waiting.entries {
        let more = entry.bytes();
        if count > 0 && bytes + more > GROUP_BYTES_MAX {
            break;
        }
        bytes += more;
        count += 1;
    }
    waiting.bytes = waiting.bytes.saturating_sub(bytes);
    waiting.entries.drain(..count).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
