//! What is set on the broker at run time and holds for every topic that does not say otherwise (KIP-226).
//!
//! It lies in the log's state beside the topics, one entry a level, and stands above the flags.

use std::sync::Arc;

use bytes::Bytes;

use super::super::log::Log;
use super::super::topic_config::{Config, ConfigError, Defaults, Level, Operation, Overrides};
use super::{Catalog, CatalogError, Inner, Topic};

impl Catalog {
    /// The broker configs that topics take their defaults from.
    pub(crate) fn broker_configs(&self) -> Vec<Config> {
        self.0.read().defaults.describe_broker()
    }

    /// What is set for all brokers at run time.
    pub(crate) fn cluster_configs(&self) -> Vec<Config> {
        self.0.read().defaults.describe_cluster()
    }

    /// Changes what is set at one level, all or none, or only says whether it could; `anew` begins without any.
    pub(crate) async fn alter_broker(
        &self,
        level: Level,
        anew: bool,
        changes: Vec<(String, Operation)>,
        validate_only: bool,
    ) -> Result<(), CatalogError> {
        self.change(move |inner| async move {
            let defaults = inner.read().defaults.clone();
            let defaults = defaults.altered(level, anew, changes).map_err(refusal)?;
            if validate_only { Ok(()) } else { inner.store_defaults(level, defaults).await }
        })
        .await
    }
}

impl Inner {
    /// Makes defaults durable, then lets every topic have them.
    async fn store_defaults(&self, level: Level, defaults: Defaults) -> Result<(), CatalogError> {
        let overrides = defaults.at(level);
        let value = serde_json::to_vec(overrides)
            .map_err(|error| CatalogError::Unreadable(what(level).to_owned(), error.to_string()))?;
        let value = (!overrides.is_empty()).then(|| Bytes::from(value));
        self.log.put_state_synced(vec![(Bytes::from_static(key(level)), value)]).await?;
        let topics: Vec<Arc<Topic>> = self.write(|topics| {
            topics.defaults = defaults;
            topics.by_name.values().cloned().collect()
        });
        // Changes are made one after another, so no topic is made or altered meanwhile.
        for topic in topics {
            let topic = self.settled(Topic::clone(&topic));
            self.write(|topics| topics.insert(topic));
        }
        Ok(())
    }
}

/// The defaults with what was stored of each level.
pub(super) fn stored(log: &Log, mut defaults: Defaults) -> Result<Defaults, CatalogError> {
    for level in Level::ALL {
        for (_, value) in log.state(key(level)) {
            let overrides: Overrides = serde_json::from_slice(&value)
                .map_err(|error| CatalogError::Unreadable(what(level).to_owned(), error.to_string()))?;
            defaults = defaults.with(level, overrides);
        }
    }
    let set: Vec<String> = defaults.describe_broker().iter().filter_map(Config::set_at_run_time).collect();
    if !set.is_empty() {
        tracing::info!("set at run time, and above the flags: {}", set.join(", "));
    }
    Ok(defaults)
}

fn key(level: Level) -> &'static [u8] {
    match level {
        Level::Broker => b"broker_configs/broker",
        Level::Cluster => b"broker_configs/cluster",
    }
}

fn what(level: Level) -> &'static str {
    match level {
        Level::Broker => "what is set on the broker at run time",
        Level::Cluster => "what is set on all brokers at run time",
    }
}

fn refusal(error: ConfigError) -> CatalogError {
    let message = error.to_string();
    // Kafka finds this one before it looks whether it is about a broker.
    if matches!(error, ConfigError::NoList(_)) {
        CatalogError::Config(message)
    } else {
        CatalogError::BrokerConfig(message)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::CONSUMER_OFFSETS;
    use super::*;
    use crate::broker::log::{Durability, LogSettings};
    use crate::config::BrokerSettings;

    fn open(dir: &std::path::Path) -> Log {
        let settings = LogSettings { durability: Durability::Fsync, journal_bytes_max: 1 << 20 };
        Log::open(dir, settings).unwrap().0
    }

    async fn catalog(dir: &std::path::Path, log: &Log) -> Result<Catalog, CatalogError> {
        Catalog::open(log.clone(), &BrokerSettings::limited(dir.to_owned())).await
    }

    fn bytes_max(catalog: &Catalog, topic: &str) -> u32 {
        catalog.topic(topic).unwrap().partitions[0].config().batch_bytes_max
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_set_reaches_topics_without_their_own_but_not_those_of_the_broker_itself_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let log = open(dir.path());
        let made = catalog(dir.path(), &log).await.unwrap();
        let own = Overrides::from([("max.message.bytes".to_owned(), "3000".to_owned())]);
        for (name, overrides) in [("t", Overrides::new()), ("own", own), (CONSUMER_OFFSETS, Overrides::new())] {
            made.create(name.to_owned(), 1, overrides, false).await.unwrap();
        }
        let before = bytes_max(&made, "t");
        let set = |name: &str, value: &str| (name.to_owned(), Operation::Set(value.to_owned()));
        let changes = || vec![set("message.max.bytes", "2000"), set("compression.type", "zstd")];
        made.alter_broker(Level::Cluster, false, changes(), true).await.unwrap();
        assert_eq!((bytes_max(&made, "t"), made.cluster_configs().len()), (before, 0), "that was only validated");
        made.alter_broker(Level::Cluster, false, changes(), false).await.unwrap();
        made.create("later".to_owned(), 1, Overrides::new(), false).await.unwrap();
        let again = catalog(dir.path(), &log).await.unwrap();
        for catalog in [made, again] {
            let of = |topic: &str| (bytes_max(&catalog, topic), catalog.topic(topic).unwrap().codec());
            assert_eq!([of("t"), of("later"), of("own")], [(2000, Some(4)), (2000, Some(4)), (3000, Some(4))]);
            assert_eq!(of(CONSUMER_OFFSETS), (before, None));
        }
        log.close().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_stored_entry_that_cannot_be_read_stops_the_start_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let log = open(dir.path());
        let entry = (Bytes::from_static(key(Level::Broker)), Some(Bytes::from_static(b"{")));
        log.put_state_synced(vec![entry]).await.unwrap();
        let error = catalog(dir.path(), &log).await.err().unwrap().to_string();
        assert!(error.contains("what is set on the broker at run time cannot be read"), "{error}");
        log.close().await.unwrap();
    }
}
