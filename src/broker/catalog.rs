//! Topics: names, ids, partition counts and configs, durable in the log's state.
//!
//! Changes are made one after another and to their end, also when the client that asked goes away: half a change would
//! leave directories that a later topic of the same name trips over. Must not know the protocol.

mod dynamic;
mod error;
mod names;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use uuid::Uuid;

pub use self::error::CatalogError;
pub(crate) use self::names::{CONSUMER_OFFSETS, TRANSACTION_STATE, is_internal, valid_name};
use super::log::{AppendError, Log, Partition, PartitionId};
use super::topic_config::{Config, ConfigError, Defaults, Operation, Overrides};
use crate::config::BrokerSettings;

/// Partitions of one topic, at most.
pub(crate) const TOPIC_PARTITIONS_MAX: i32 = 1000;
/// Partitions of all topics, at most.
pub(crate) const PARTITIONS_MAX: usize = 4000;
const PREFIX: &str = "topic/";
/// Of every partition: there is never another leader, so the epoch never moves.
pub(crate) const LEADER_EPOCH: i32 = 0;

/// A topic as it is now; a change makes a new one.
#[derive(Clone)]
pub(crate) struct Topic {
    pub(crate) name: String,
    pub(crate) id: Uuid,
    pub(crate) partitions: Vec<Partition>,
    pub(crate) overrides: Overrides,
    /// Looked up for each batch, so it is kept beside the overrides and defaults that it follows from.
    codec: Option<i16>,
}

impl Topic {
    /// The partition of that number.
    pub(crate) fn partition(&self, index: i32) -> Option<&Partition> {
        usize::try_from(index).ok().and_then(|index| self.partitions.get(index))
    }

    /// The codec that its batches are stored in; none: the one that the producer chose.
    pub(crate) fn codec(&self) -> Option<i16> {
        self.codec
    }
}

#[derive(Serialize, Deserialize)]
struct Stored {
    id: Uuid,
    partitions: i32,
    configs: Overrides,
}

struct Topics {
    by_name: BTreeMap<String, Arc<Topic>>,
    by_id: HashMap<Uuid, Arc<Topic>>,
    /// What topics have that do not say otherwise.
    defaults: Defaults,
}

struct Inner {
    log: Log,
    default_partitions: i32,
    auto_create: bool,
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
        let defaults = dynamic::stored(&log, Defaults::new(settings))?;
        let topics = Topics { by_name: BTreeMap::new(), by_id: HashMap::new(), defaults };
        let inner = Inner {
            log,
            default_partitions: settings.default_partitions.clamp(1, TOPIC_PARTITIONS_MAX),
            auto_create: settings.auto_create_topics,
            topics: RwLock::new(topics),
            changes: Mutex::default(),
        };
        for (key, value) in inner.log.state(PREFIX.as_bytes()) {
            let name = String::from_utf8_lossy(&key[PREFIX.len().min(key.len())..]).into_owned();
            let stored: Stored = serde_json::from_slice(&value)
                .map_err(|error| CatalogError::Unreadable(format!("topic {name}"), error.to_string()))?;
            let topic = inner.make(name, stored.id, stored.partitions, stored.configs)?;
            inner.write(|topics| topics.insert(topic));
        }
        inner.clear_orphans().await;
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

    /// The configs of a topic, or those that a topic of that name and these overrides would have.
    pub(crate) fn configs(&self, name: &str, overrides: &Overrides) -> Vec<Config> {
        self.0.defaults_of(name).describe(overrides)
    }

    /// The overrides that these settings make, on top of none.
    pub(crate) fn overrides<'a>(
        &self,
        settings: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Result<Overrides, ConfigError> {
        let defaults = self.0.read().defaults.clone();
        let mut overrides = Overrides::new();
        for (name, value) in settings {
            defaults.apply(&mut overrides, name, Operation::Set(value.to_owned()))?;
        }
        defaults.check(&overrides)?;
        Ok(overrides)
    }

    /// How many partitions -1 stands for.
    pub(crate) fn default_partitions(&self) -> i32 {
        self.0.default_partitions
    }

    /// Whether asking for a topic creates it.
    pub(crate) fn creates_when_asked(&self) -> bool {
        self.0.auto_create
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
            // What an earlier change could not clean up must not stand in the way.
            inner.clear_orphans().await;
            let id = uuid::Builder::from_random_bytes(rand::random()).into_uuid();
            inner.make_and_store(name, id, partitions, overrides).await?;
            Ok(id)
        })
        .await
    }

    /// Deletes a topic: first durably forgotten, then its partitions removed, later if that cannot be now.
    pub(crate) async fn delete(&self, name: String) -> Result<Uuid, CatalogError> {
        self.change(move |inner| async move {
            let topic = inner.known(&name)?;
            inner.log.put_state_synced(vec![(key(&name), None)]).await?;
            inner.write(|topics| topics.remove(&topic));
            inner.clear_orphans().await;
            Ok(topic.id)
        })
        .await
    }

    /// Replaces a topic's overrides by what `change` makes of them, or only says whether it could.
    pub(crate) async fn alter(
        &self,
        name: String,
        validate_only: bool,
        change: impl FnOnce(&Defaults, &mut Overrides) -> Result<(), ConfigError> + Send + 'static,
    ) -> Result<(), CatalogError> {
        self.change(move |inner| async move {
            let mut topic = Topic::clone(&*inner.known(&name)?);
            let defaults = inner.defaults_of(&name);
            let changed = change(&defaults, &mut topic.overrides);
            changed
                .and_then(|()| defaults.check(&topic.overrides))
                .map_err(|error| CatalogError::Config(error.to_string()))?;
            if validate_only { Ok(()) } else { inner.store(topic).await }
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
            inner.make_and_store(name, topic.id, count, topic.overrides.clone()).await
        })
        .await
    }

    /// Removes partitions that belong to no topic: what a change that failed half-way left behind.
    pub(crate) async fn clear_orphans(&self) {
        let cleared = self.change(move |inner| async move {
            inner.clear_orphans().await;
            Ok(())
        });
        // Only a broker that stops keeps it from being done; the next start does it.
        let _ = cleared.await;
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
        let config = self.defaults_of(&name).partition_config(&overrides);
        let wanted: Vec<_> = (0..partitions)
            .map(|partition| (PartitionId { topic_id: id, partition }, format!("{name}-{partition}")))
            .collect();
        let partitions = self.log.create_partitions(&wanted, config)?;
        Ok(self.settled(Topic { name, id, partitions, overrides, codec: None }))
    }

    /// Makes a topic, visible and durable, or nothing at all.
    async fn make_and_store(
        self: &Arc<Self>,
        name: String,
        id: Uuid,
        partitions: i32,
        overrides: Overrides,
    ) -> Result<(), CatalogError> {
        let done = match self.make_aside(name, id, partitions, overrides).await {
            Ok(topic) => self.store(topic).await,
            Err(error) => Err(error),
        };
        if done.is_err() {
            self.clear_orphans().await;
        }
        done
    }

    /// To be called by a change only: a topic that is being made is not known yet.
    async fn clear_orphans(&self) {
        for (id, directory) in self.log.partitions() {
            let known =
                self.read().by_id.get(&id.topic_id).is_some_and(|topic| topic.partition(id.partition).is_some());
            if known {
                continue;
            }
            if let Err(error) = self.log.delete_partition(id).await {
                tracing::warn!("cannot remove {directory}, which belongs to no topic: {error}; it is tried again");
                return;
            }
        }
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
            .map_err(|error| CatalogError::Unreadable(format!("topic {}", topic.name), error.to_string()))?;
        self.log.put_state_synced(vec![(key(&topic.name), Some(Bytes::from(value)))]).await?;
        let topic = self.settled(topic);
        self.write(|topics| topics.insert(topic));
        Ok(())
    }

    /// What a topic has that does not say otherwise. Nothing that is set for all topics at run time reaches our own:
    /// a limit of records' times, for one, would keep groups from being remembered.
    fn defaults_of(&self, name: &str) -> Defaults {
        let defaults = self.read().defaults.clone();
        if is_internal(name) { defaults.without_dynamic() } else { defaults }
    }

    /// Lets a topic's partitions, and itself, have what its overrides and the defaults come to.
    fn settled(&self, mut topic: Topic) -> Topic {
        let defaults = self.defaults_of(&topic.name);
        let config = defaults.partition_config(&topic.overrides);
        for partition in &topic.partitions {
            partition.set_config(config.clone());
        }
        topic.codec = defaults.codec(&topic.overrides);
        topic
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use rdkafka::ClientConfig;
    use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
    use rdkafka::client::DefaultClientContext;

    use super::super::Broker;
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn what_a_half_made_topic_left_behind_does_not_block_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let settings = BrokerSettings::limited(dir.path().to_owned());
        let broker = Broker::start(settings).await.unwrap();
        let log = broker.node.log.clone();
        let config = broker.node.catalog.0.defaults_of("t").partition_config(&Overrides::new());
        let half_made = PartitionId { topic_id: Uuid::from_u128(7), partition: 1 };
        tokio::task::spawn_blocking(move || log.create_partition(half_made, "t-1", config)).await.unwrap().unwrap();
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", broker.address().to_string()).create().unwrap();
        let topic = NewTopic::new("t", 3, TopicReplication::Fixed(1));
        let created = admin.create_topics([&topic], &AdminOptions::new()).await.unwrap();
        assert_eq!(created, vec![Ok("t".to_owned())]);
        assert_eq!(broker.node.log.partitions().len(), 3);
        broker.stop().await.unwrap();
    }
}
