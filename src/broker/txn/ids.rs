//! All transactional ids that are known, each with what is being written of it, within bounds.

use std::collections::HashMap;

use super::metadata::{Metadata, NONE_EPOCH, Partitions, TIMEOUT_MS_MAX, TransactionState, TxnError};

/// Ids, at most.
const IDS_MAX: usize = 10_000;
/// What all of them hold.
const BYTES_MAX: usize = 64 << 20;
/// An id with its place in the map, about, besides its text.
const ID_BYTES: usize = 96;
/// Ids that are forgotten at once, at most: each takes a record.
const FORGOTTEN_MAX: usize = 1_000;

/// How far an end that was decided has been carried out: what is durable is not written again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// The decision itself is durable.
    pub is_decided: bool,
    /// The partitions that have the marker, or need none.
    pub told: Partitions,
}

/// One id.
#[derive(Debug)]
struct Entry {
    /// As it is durable.
    metadata: Metadata,
    /// Where it is about to go; nothing else may move it meanwhile.
    changing: Option<TransactionState>,
    progress: Progress,
}

/// What time has brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    /// Transactions that took too long, as they are to be fenced.
    pub overdue: Vec<(String, Metadata)>,
    /// Ends that were decided and are not carried out.
    pub unfinished: Vec<(String, Metadata)>,
    /// Ids that nobody used for long.
    pub expired: Vec<String>,
    /// When there is something to do next, if nothing changes.
    pub next_ms: Option<i64>,
}

/// All ids.
#[derive(Debug, Default)]
pub(super) struct Ids {
    entries: HashMap<String, Entry>,
    bytes: usize,
}

impl Ids {
    /// As it is durable, whatever is being written.
    pub fn get(&self, id: &str) -> Option<&Metadata> {
        // One that is not written yet has no epoch: nobody has heard of it.
        self.entries.get(id).map(|entry| &entry.metadata).filter(|metadata| metadata.producer.epoch != NONE_EPOCH)
    }

    /// Where it is about to go.
    pub fn changing(&self, id: &str) -> Option<TransactionState> {
        self.entries.get(id)?.changing
    }

    /// An id that may move on.
    ///
    /// # Errors
    /// `InvalidProducerIdMapping` for one that is not known, `Concurrent` for one that is being written.
    pub fn settled(&self, id: &str) -> Result<&Metadata, TxnError> {
        match self.entries.get(id) {
            None => Err(TxnError::InvalidProducerIdMapping),
            Some(Entry { changing: Some(_), .. }) => Err(TxnError::Concurrent),
            Some(entry) => Ok(&entry.metadata),
        }
    }

    /// All of them, as they are durable.
    pub fn all(&self) -> impl Iterator<Item = (&str, &Metadata)> {
        let is_known = |(_, entry): &(&String, &Entry)| entry.metadata.producer.epoch != NONE_EPOCH;
        self.entries.iter().filter(is_known).map(|(id, entry)| (id.as_str(), &entry.metadata))
    }

    /// Whether an id may become that.
    ///
    /// # Errors
    /// `Full`; what does not grow is always welcome.
    pub fn check_room(&self, id: &str, next: &Metadata) -> Result<(), TxnError> {
        let (known, next) = (self.entries.get(id).map(|entry| entry_bytes(id, &entry.metadata)), entry_bytes(id, next));
        let grows = next > known.unwrap_or_default();
        let too_many = known.is_none() && self.entries.len() >= IDS_MAX;
        let too_large = grows && self.bytes + next - known.unwrap_or_default() > BYTES_MAX;
        if too_many || too_large { Err(TxnError::Full) } else { Ok(()) }
    }

    /// An id that is not known yet.
    pub fn insert(&mut self, id: String, metadata: Metadata) {
        self.bytes += entry_bytes(&id, &metadata);
        self.remove(&id);
        self.entries.insert(id, Entry { metadata, changing: None, progress: Progress::default() });
    }

    /// From now on it is being written.
    pub fn begin(&mut self, id: &str, to: TransactionState) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.changing = Some(to);
        }
    }

    /// It was written, and is that now.
    pub fn set(&mut self, id: &str, metadata: Metadata) {
        if let Some(entry) = self.entries.get_mut(id) {
            self.bytes += entry_bytes(id, &metadata);
            self.bytes = self.bytes.saturating_sub(entry_bytes(id, &entry.metadata));
            entry.metadata = metadata;
            entry.progress = Progress::default();
        }
    }

    /// How far its end has been carried out.
    pub fn progress(&self, id: &str) -> Progress {
        self.entries.get(id).map(|entry| entry.progress.clone()).unwrap_or_default()
    }

    /// Its end, which was decided, has been carried out so far.
    pub fn note_progress(&mut self, id: &str, progress: Progress) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.progress = progress;
        }
    }

    /// It may move on again. One that was never written is not there any more.
    pub fn end(&mut self, id: &str) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.changing = None;
            if entry.metadata.producer.epoch == NONE_EPOCH {
                self.remove(id);
            }
        }
    }

    pub fn remove(&mut self, id: &str) {
        if let Some(entry) = self.entries.remove(id) {
            self.bytes = self.bytes.saturating_sub(entry_bytes(id, &entry.metadata));
        }
    }

    /// What is to be done at that time.
    pub fn due(&self, now_ms: i64) -> Due {
        let mut due = Due::default();
        for (id, entry) in self.entries.iter().filter(|(_, entry)| entry.changing.is_none()) {
            let metadata = &entry.metadata;
            let times_out = metadata.times_out_at_ms();
            if metadata.is_prepared() {
                due.unfinished.push((id.clone(), metadata.clone()));
            } else if times_out.is_some_and(|at| at <= now_ms) {
                due.overdue.push((id.clone(), metadata.fenced(now_ms)));
            } else if metadata.expires_at_ms().is_some_and(|at| at <= now_ms) && due.expired.len() < FORGOTTEN_MAX {
                due.expired.push(id.clone());
            }
            due.next_ms = due.next_ms.into_iter().chain(times_out).min();
        }
        due
    }

    /// Those that would make room: idle for longer than any transaction takes, the longest first.
    pub fn idle(&self, now_ms: i64) -> Vec<String> {
        let idle_since = |(id, entry): (&String, &Entry)| {
            let is_idle = entry.changing.is_none() && entry.metadata.expires_at_ms().is_some();
            (is_idle && now_ms - entry.metadata.update_ms > i64::from(TIMEOUT_MS_MAX))
                .then(|| (entry.metadata.update_ms, id.clone()))
        };
        let mut idle: Vec<(i64, String)> = self.entries.iter().filter_map(idle_since).collect();
        idle.sort_unstable();
        idle.into_iter().take(FORGOTTEN_MAX).map(|(_, id)| id).collect()
    }
}

fn entry_bytes(id: &str, metadata: &Metadata) -> usize {
    ID_BYTES + id.len() + metadata.bytes()
}
