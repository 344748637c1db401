//! Takes groups along from the earlier form, in the log's state, into `__consumer_offsets`, once.
//!
//! Written and durable first, removed then: a crash in the middle repeats it, and nothing has changed meanwhile, because
//! nobody is served before it is done.

use bytes::Bytes;

use super::earlier::{self, GROUP_PREFIX, OFFSET_PREFIX};
use super::store::{Record, Store, StoreError, group_record, offset_record};
use crate::broker::log::Log;

/// Entries that are removed from the state at once.
const REMOVED_MAX: usize = 10_000;

/// Entries that can be taken along, and what becomes of them.
#[derive(Default)]
struct Found {
    keys: Vec<Bytes>,
    records: Vec<Record>,
}

/// Takes along what there is; entries that cannot be read stay where they are.
pub(super) async fn migrate(log: &Log, store: &Store) -> Result<(), StoreError> {
    let found = find(log, store.now_ms());
    if found.records.is_empty() {
        return Ok(());
    }
    let count = found.records.len();
    store.put_many(&found.records).await?;
    for keys in found.keys.chunks(REMOVED_MAX) {
        log.put_state_synced(keys.iter().map(|key| (key.clone(), None)).collect()).await?;
    }
    tracing::info!("{count} groups and committed offsets were moved to the topic __consumer_offsets");
    Ok(())
}

fn find(log: &Log, now_ms: i64) -> Found {
    let mut found = Found::default();
    for (key, value) in log.state(GROUP_PREFIX.as_bytes()) {
        let group = earlier::group_of(&key).zip(earlier::read_group(value, now_ms));
        match group.map(|(id, record)| group_record(&id, &record)) {
            Some(Ok(record)) => found.push(key, record),
            _ => unreadable(&key, "a group, whose members must join again"),
        }
    }
    for (key, value) in log.state(OFFSET_PREFIX.as_bytes()) {
        let offset = earlier::offset_of(&key).zip(earlier::read_offset(value, now_ms));
        match offset.map(|((group, place), committed)| offset_record(&group, &place, &committed)) {
            Some(Ok(record)) => found.push(key, record),
            _ => unreadable(&key, "a committed offset, which counts as not committed"),
        }
    }
    found
}

impl Found {
    fn push(&mut self, key: Bytes, record: Record) {
        self.keys.push(key);
        self.records.push(record);
    }
}

fn unreadable(key: &[u8], what: &str) {
    tracing::error!(key = %String::from_utf8_lossy(key), "an entry of the earlier form cannot be read: {what}");
}
