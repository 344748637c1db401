//! What `__transaction_state` says at start-up. Decisions that were not carried out are the timers' first work.

use std::collections::HashMap;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use super::codec;
use super::coordinator::{Coordinator, Inner};
use super::ids::Ids;
use super::metadata::{Metadata, Partitions};
use super::timers;
use crate::broker::catalog::Catalog;
use crate::broker::group;
use crate::broker::internal_topic::{Content, InternalTopic, LoadError, TRANSACTION_STATE};
use crate::broker::log::AppendError;
use crate::broker::producer_ids::ProducerIds;
use crate::clock::SharedClock;

/// Why transactions cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// What was stored cannot be read.
    #[error("{0}")]
    Load(#[from] LoadError),
    /// A transaction that a crash left open cannot be ended.
    #[error("transactions that were cut off cannot be ended: {0}")]
    Repair(#[from] AppendError),
}

/// What the log says.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub ids: HashMap<String, Metadata>,
    /// What each id's last transaction that was to end had touched.
    pub ended: HashMap<String, Partitions>,
}

impl Coordinator {
    /// Reads all ids, ends what a crash left open in partitions, and starts the timer task.
    ///
    /// # Errors
    /// The topic cannot be read, or nothing can be written.
    pub(crate) async fn open(
        catalog: Catalog,
        groups: group::Coordinator,
        producer_ids: Arc<ProducerIds>,
        clock: SharedClock,
    ) -> Result<Coordinator, OpenError> {
        let topic = Arc::new(InternalTopic::open(catalog.clone(), TRANSACTION_STATE));
        let reading = topic.clone();
        let loaded = match tokio::task::spawn_blocking(move || load(&reading)).await {
            Ok(loaded) => loaded?,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        };
        let mut ids = Ids::default();
        loaded.ids.iter().for_each(|(id, metadata)| ids.insert(id.clone(), metadata.clone()));
        let inner = Arc::new(Inner {
            topic,
            catalog,
            groups,
            producer_ids,
            clock,
            ids: Mutex::new(ids),
            next_look_ms: AtomicI64::new(i64::MAX),
            deadlines_changed: Notify::new(),
            stopped: Notify::new(),
        });
        inner.repair(&loaded).await?;
        tokio::spawn(timers::keep_time(inner.clone()));
        Ok(Coordinator(inner))
    }
}

/// The last word on each id.
fn load(topic: &InternalTopic) -> Result<Loaded, LoadError> {
    let mut loaded = Loaded::default();
    let mut unreadable = None;
    topic.read_all(|entry| {
        // Keys of later versions are for those who know them; markers end nothing here.
        let Content::Record { key: Some(key), value } = entry.content else { return };
        let Some(id) = codec::decode_key(&key) else { return };
        let Some(value) = value else {
            loaded.ids.remove(&id);
            loaded.ended.remove(&id);
            return;
        };
        match codec::decode_value(&value) {
            Some(metadata) => {
                if metadata.is_prepared() {
                    loaded.ended.insert(id.clone(), metadata.partitions.clone());
                }
                loaded.ids.insert(id, metadata);
            }
            None => _ = unreadable.get_or_insert(entry.offset),
        }
    })?;
    let why = || "it holds what no version of a transaction's state is".to_owned();
    unreadable.map_or(Ok(loaded), |offset| Err(LoadError::Malformed(TRANSACTION_STATE, offset, why())))
}
