//! Topics: names, ids, partition counts and configs, durable in the log's state.
//!
//! Changes are made one after another and to their end, also when the client that asked goes away: half a change would
//! leave directories that a later topic of the same name trips over. Must not know the protocol.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use uuid::Uuid;

use super::log::{AppendError, Log, OpenError, Partition, PartitionId};
use super::topic_config::{Config, Defaults, Overrides};
use crate::config::BrokerSettings;

/// Partitions of one topic, at most.
pub(crate) const TOPIC_PARTITIONS_MAX: i32 = 1000;
/// Partitions of all topics, at most.
pub(crate) const PARTITIONS_MAX: usize = 4000;
/// Kafka's limit of a topic name.
const NAME_BYTES_MAX: usize = 249;
const PREFIX: &str = "topic/";

/// Why a topic could not be opened or changed.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The name breaks Kafka's rules.
    #[error("{0:?} is no topic name: 1 to 249 of a-z, A-Z, 0-9, dot, underscore and hyphen, and not . or ..")]
    InvalidName(String),
    /// There is one already.
    #[error("topic {0} exists already")]
    Exists(String),
    /// A name that differs in dots and underscores only would collide in metric names.
    #[error("topic {0} collides with {1}, which differs only in dots and underscores")]
    Collides(String, String),
    /// There is none.
    #[error("there is no topic {0}")]
    Unknown(String),
    /// The number of partitions is out of range.
    #[error("{asked} partitions are not possible; between {min} and {max} are")]
    Partitions {
        /// What was asked for.
        asked: i32,
        /// The least.
        min: i32,
        /// The most.
        max: i32,
    },
    /// All partitions of the broker are used up.
    #[error("{0} partitions would exist, the limit of this broker is {PARTITIONS_MAX}; delete a topic")]
    TooManyPartitions(usize),
    /// What is stored cannot be read.
    #[error("the stored entry of topic {0} cannot be read ({1}); was it written by a newer finstream?")]
    Unreadable(String, String),
    /// The log could not make, open or remove a partition.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// The change could not be made durable.
    #[error(transparent)]
    State(#[from] AppendError),
}

/// A topic as it is now; a change makes a new one.
#[derive(Clone)]
pub(crate) struct Topic {
    pub(crate) name: String,
    pub(crate) id: Uuid,
    pub(crate) partitions: Vec<Partition>,
    pub(crate) overrides: Overrides,
}

impl Topic {
    /// The partition of that number.
    pub(crate) fn partition(&self, index: i32) -> Option<&Partition> {
        usize::try_from(index).ok().and_then(|index| self.partitions.get(index))
    }
}

#[derive(Serialize, Deserialize)]
struct Stored {
    id: Uuid,
    partitions: i32,
    configs: Overrides,
}

#[derive(Default)]
struct Topics {
    by_name: BTreeMap<String, Arc<Topic>>,
    by_id: HashMap<Uuid, Arc<Topic>>,
}

struct Inner {
    log: Log,
    defaults: Defaults,
    default_partitions: i32,
    topics: RwLock<Topics>,
    changes: Mutex<()>,
}

/// All topics. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Catalog(Arc<Inner>);

impl Catalog {
    /// Reads the topics from the log's state, opens their partitions, and removes partitions that belong to none: what
    /// a crash in the middle of a change left behind.
    pub(crate) async fn open(log: Log, settings: &BrokerSettings) -> Result<Catalog, CatalogError> {
        let mut inner = Inner {
            log,
            defaults: Defaults::new(settings),
            default_partitions: settings.default_partitions.clamp(1, TOPIC_PARTITIONS_MAX),
            topics: RwLock::default(),
            changes: Mutex::default(),
        };
        let mut topics = Topics::default();
        for (key, value) in inner.log.state(PREFIX.as_bytes()) {
            let name = String::from_utf8_lossy(&key[PREFIX.len().min(key.len())..]).into_owned();
            let stored: Stored = serde_json::from_slice(&value)
                .map_err(|error| CatalogError::Unreadable(name.clone(), error.to_string()))?;
            let topic = inner.make(name, stored.id, stored.partitions, stored.configs)?;
            topics.insert(topic);
        }
        for (id, _) in inner.log.partitions() {
            let known = topics.by_id.get(&id.topic_id).and_then(|topic| topic.partition(id.partition));
            if known.is_none() {
                inner.log.delete_partition(id).await?;
            }
        }
        inner.topics = RwLock::new(topics);
        Ok(Catalog(Arc::new(inner)))
    }

    /// The topic of that name.
    pub(crate) fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        self.0.read().by_name.get(name).cloned()
    }

    /// The topic of that id.
    pub(crate) fn topic_by_id(&self, id: Uuid) -> Option<Arc<Topic>> {
        self.0.read().by_id.get(&id).cloned()
    }

    /// All topics in order of name.
    pub(crate) fn topics(&self) -> Vec<Arc<Topic>> {
        self.0.read().by_name.values().cloned().collect()
    }

    /// The configs of a topic, or those that a topic of these overrides would have.
    pub(crate) fn configs(&self, overrides: &Overrides) -> Vec<Config> {
        self.0.defaults.describe(overrides)
    }

    /// How many partitions -1 stands for.
    pub(crate) fn default_partitions(&self) -> i32 {
        self.0.default_partitions
    }

    /// Creates a topic, or only says whether it could be. Returns its id, nil when it was only validated.
    pub(crate) async fn create(
        &self,
        name: String,
        partitions: i32,
        overrides: Overrides,
        validate_only: bool,
    ) -> Result<Uuid, CatalogError> {
        self.change(move |inner| async move {
            inner.check_new(&name, partitions)?;
            if validate_only {
                return Ok(Uuid::nil());
            }
            let topic = inner
                .make_aside(name, uuid::Builder::from_random_bytes(rand::random()).into_uuid(), partitions, overrides)
                .await?;
            let id = topic.id;
            inner.store(topic).await?;
            Ok(id)
        })
        .await
    }

    /// Deletes a topic: first durably forgotten, then its partitions removed.
    pub(crate) async fn delete(&self, name: String) -> Result<Uuid, CatalogError> {
        self.change(move |inner| async move {
            let topic = inner.known(&name)?;
            inner.log.put_state(vec![(key(&name), None)]).await?;
            inner.write(|topics| topics.remove(&topic));
            for partition in 0..topic.partitions.len() {
                let id = PartitionId { topic_id: topic.id, partition: partition as i32 };
                inner.log.delete_partition(id).await?;
            }
            Ok(topic.id)
        })
        .await
    }

    /// Replaces a topic's overrides by what `change` makes of them; they must be validated.
    pub(crate) async fn alter(
        &self,
        name: String,
        change: impl FnOnce(&mut Overrides) + Send + 'static,
    ) -> Result<(), CatalogError> {
        self.change(move |inner| async move {
            let mut topic = Topic::clone(&*inner.known(&name)?);
            change(&mut topic.overrides);
            inner.store(topic).await
        })
        .await
    }

    /// Raises a topic's number of partitions to `count`.
    pub(crate) async fn add_partitions(
        &self,
        name: String,
        count: i32,
        validate_only: bool,
    ) -> Result<(), CatalogError> {
        self.change(move |inner| async move {
            let topic = inner.known(&name)?;
            let present = topic.partitions.len();
            if count <= present as i32 || count > TOPIC_PARTITIONS_MAX {
                let (min, max) = (present as i32 + 1, TOPIC_PARTITIONS_MAX);
                return Err(CatalogError::Partitions { asked: count, min, max });
            }
            inner.check_total(count as usize - present)?;
            if validate_only {
                return Ok(());
            }
            let topic = inner.make_aside(name, topic.id, count, topic.overrides.clone()).await?;
            inner.store(topic).await
        })
        .await
    }

    /// Runs a change alone and to its end, in a task of its own.
    async fn change<T, F>(&self, change: impl FnOnce(Arc<Inner>) -> F + Send + 'static) -> Result<T, CatalogError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, CatalogError>> + Send,
    {
        let inner = self.0.clone();
        let task = tokio::spawn(async move {
            let _alone = inner.changes.lock().await;
            change(inner.clone()).await
        });
        finished(task.await)
    }
}

impl Inner {
    fn read(&self) -> std::sync::RwLockReadGuard<'_, Topics> {
        self.topics.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write<T>(&self, change: impl FnOnce(&mut Topics) -> T) -> T {
        change(&mut self.topics.write().unwrap_or_else(PoisonError::into_inner))
    }

    fn known(&self, name: &str) -> Result<Arc<Topic>, CatalogError> {
        self.read().by_name.get(name).cloned().ok_or_else(|| CatalogError::Unknown(name.to_owned()))
    }

    fn check_new(&self, name: &str, partitions: i32) -> Result<(), CatalogError> {
        if !valid_name(name) {
            return Err(CatalogError::InvalidName(name.to_owned()));
        }
        if !(1..=TOPIC_PARTITIONS_MAX).contains(&partitions) {
            return Err(CatalogError::Partitions { asked: partitions, min: 1, max: TOPIC_PARTITIONS_MAX });
        }
        let plain = |name: &str| name.replace('.', "_");
        for other in self.read().by_name.keys() {
            if other == name {
                return Err(CatalogError::Exists(name.to_owned()));
            }
            if plain(other) == plain(name) {
                return Err(CatalogError::Collides(name.to_owned(), other.clone()));
            }
        }
        self.check_total(partitions as usize)
    }

    fn check_total(&self, more: usize) -> Result<(), CatalogError> {
        let total = more + self.read().by_name.values().map(|topic| topic.partitions.len()).sum::<usize>();
        if total > PARTITIONS_MAX { Err(CatalogError::TooManyPartitions(total)) } else { Ok(()) }
    }

    /// Opens or creates the partitions of a topic; nothing is remembered yet.
    fn make(&self, name: String, id: Uuid, partitions: i32, overrides: Overrides) -> Result<Topic, CatalogError> {
        let config = self.defaults.partition_config(&overrides);
        let partitions = (0..partitions)
            .map(|partition| {
                let id = PartitionId { topic_id: id, partition };
                self.log.create_partition(id, &format!("{name}-{partition}"), config.clone())
            })
            .collect::<Result<Vec<_>, _>>()?;
        for partition in &partitions {
            partition.set_config(config.clone());
        }
        Ok(Topic { name, id, partitions, overrides })
    }

    /// As `make`, on a thread that may wait for the disk.
    async fn make_aside(
        self: &Arc<Self>,
        name: String,
        id: Uuid,
        partitions: i32,
        overrides: Overrides,
    ) -> Result<Topic, CatalogError> {
        let inner = self.clone();
        finished(tokio::task::spawn_blocking(move || inner.make(name, id, partitions, overrides)).await)
    }

    /// Makes a topic durable, then visible.
    async fn store(&self, topic: Topic) -> Result<(), CatalogError> {
        let stored =
            Stored { id: topic.id, partitions: topic.partitions.len() as i32, configs: topic.overrides.clone() };
        let value = serde_json::to_vec(&stored)
            .map_err(|error| CatalogError::Unreadable(topic.name.clone(), error.to_string()))?;
        self.log.put_state(vec![(key(&topic.name), Some(Bytes::from(value)))]).await?;
        let config = self.defaults.partition_config(&topic.overrides);
        for partition in &topic.partitions {
            partition.set_config(config.clone());
        }
        self.write(|topics| topics.insert(topic));
        Ok(())
    }
}

impl Topics {
    fn insert(&mut self, topic: Topic) {
        let topic = Arc::new(topic);
        self.by_id.insert(topic.id, topic.clone());
        self.by_name.insert(topic.name.clone(), topic);
    }

    fn remove(&mut self, topic: &Topic) {
        self.by_id.remove(&topic.id);
        self.by_name.remove(&topic.name);
    }
}

/// The result of a task; its panic is ours.
fn finished<T>(task: Result<Result<T, CatalogError>, tokio::task::JoinError>) -> Result<T, CatalogError> {
    match task.map_err(tokio::task::JoinError::try_into_panic) {
        Ok(result) => result,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // Only a runtime that shuts down cancels a task.
        Err(Err(_)) => Err(CatalogError::State(AppendError::Storage("the broker stops".to_owned()))),
    }
}

fn key(name: &str) -> Bytes {
    Bytes::from(format!("{PREFIX}{name}"))
}

/// Kafka's rules of topic names.
pub(crate) fn valid_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.chars().all(allowed) && name != "." && name != ".."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_names_that_would_leave_the_directory_are_refused() {
        for name in ["", ".", "..", "a/b", "../a", "a b", "ä", "a\0b", &"a".repeat(250)] {
            assert!(!valid_name(name), "{name:?}");
        }
        for name in ["a", "finance.transactions", "A_b-9", &"a".repeat(249)] {
            assert!(valid_name(name), "{name:?}");
        }
    }
}
