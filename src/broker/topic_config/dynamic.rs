//! Broker configs that are changed at run time: those from which topics take their defaults (KIP-226).
//!
//! They are known by the broker's names outside, and kept by the topic's inside. What is set for this broker stands above
//! what is set for all, and both above the flags; a topic's own stands above all of them.

use super::definitions::{DEFINITIONS, Definition};
use super::{Config, ConfigError, ConfigSource, Defaults, Operation, Overrides, Setting};

/// For which brokers something is set at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// For this one.
    Broker,
    /// For all.
    Cluster,
}

impl Level {
    /// Each, the one that stands above first.
    pub(crate) const ALL: [Level; 2] = [Level::Broker, Level::Cluster];

    fn source(self) -> ConfigSource {
        match self {
            Level::Broker => ConfigSource::DynamicBroker,
            Level::Cluster => ConfigSource::DynamicDefaultBroker,
        }
    }
}

impl Defaults {
    /// What is set at run time, by the topic's names.
    pub(crate) fn at(&self, level: Level) -> &Overrides {
        match level {
            Level::Broker => &self.on_broker,
            Level::Cluster => &self.on_cluster,
        }
    }

    /// As if that had been set at run time.
    pub(crate) fn with(mut self, level: Level, overrides: Overrides) -> Defaults {
        match level {
            Level::Broker => self.on_broker = overrides,
            Level::Cluster => self.on_cluster = overrides,
        }
        self
    }

    /// As if nothing had been set at run time.
    pub(crate) fn without_dynamic(self) -> Defaults {
        Level::ALL.into_iter().fold(self, |defaults, level| defaults.with(level, Overrides::new()))
    }

    /// The defaults after changes of one level; `anew` begins without what was set there.
    ///
    /// # Errors
    /// A config cannot be changed at run time, a value is not possible, or they do not fit together.
    pub(crate) fn altered(
        &self,
        level: Level,
        anew: bool,
        changes: Vec<(String, Operation)>,
    ) -> Result<Defaults, ConfigError> {
        let known = |name: &str| DEFINITIONS.iter().find(|config| config.synonym == name && config.is_dynamic());
        // What cannot be set is not set: to unset it changes nothing.
        let is_refused =
            |(name, operation): &&(String, Operation)| known(name).is_none() && !matches!(operation, Operation::Delete);
        let refused: Vec<&str> = changes.iter().filter(is_refused).map(|(name, _)| name.as_str()).collect();
        if !refused.is_empty() {
            return Err(ConfigError::NotDynamic(refused.join(", ")));
        }
        let mut overrides = if anew { Overrides::new() } else { self.at(level).clone() };
        let rest = self.clone().with(level, Overrides::new());
        for (name, operation) in changes {
            if let Some(definition) = known(&name) {
                let beneath = || rest.beneath(level, definition);
                self.change(&mut overrides, definition, &name, operation, beneath)?;
            }
        }
        let altered = rest.with(level, overrides);
        altered.check(&Overrides::new())?;
        Ok(altered)
    }

    /// Every broker config that topics take a default from.
    pub(crate) fn describe_broker(&self) -> Vec<Config> {
        let config = |definition: &Definition| {
            let mut beneath = self.settings(definition);
            self.broker_config(definition, beneath.remove(0), beneath)
        };
        DEFINITIONS.iter().map(config).collect()
    }

    /// What is set for all brokers at run time, and only that.
    pub(crate) fn describe_cluster(&self) -> Vec<Config> {
        let config =
            |definition| Some(self.broker_config(definition, self.set_at(Level::Cluster, definition)?, vec![]));
        DEFINITIONS.iter().filter_map(config).collect()
    }

    fn broker_config(&self, definition: &Definition, holds: Setting, beneath: Vec<Setting>) -> Config {
        let Definition { synonym: name, config_type, documentation, .. } = *definition;
        Config { name, holds, beneath, config_type, documentation, is_read_only: !definition.is_dynamic() }
    }

    /// The settings that a topic without its own has, in order of precedence; never none.
    pub(super) fn settings(&self, definition: &Definition) -> Vec<Setting> {
        let set = Level::ALL.into_iter().filter_map(|level| self.set_at(level, definition));
        let source = if definition.default.is_some() { ConfigSource::Default } else { ConfigSource::StaticBroker };
        let last = Setting { name: definition.synonym, value: self.default_of(definition), source };
        set.chain([last]).collect()
    }

    fn set_at(&self, level: Level, definition: &Definition) -> Option<Setting> {
        let value = self.at(level).get(definition.name)?.clone();
        Some(Setting { name: definition.synonym, value, source: level.source() })
    }

    /// What holds where a level does not say.
    fn beneath(&self, level: Level, definition: &Definition) -> String {
        let lower = match level {
            Level::Broker => self.set_at(Level::Cluster, definition),
            Level::Cluster => None,
        };
        lower.map_or_else(|| self.default_of(definition), |setting| setting.value)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::BrokerSettings;

    fn defaults() -> Defaults {
        Defaults::new(&BrokerSettings::limited("nowhere".into()))
    }

    fn set(defaults: &Defaults, level: Level, name: &str, value: &str) -> Result<Defaults, ConfigError> {
        defaults.altered(level, false, vec![(name.to_owned(), Operation::Set(value.to_owned()))])
    }

    fn topic(defaults: &Defaults, overrides: &Overrides, name: &str) -> Vec<(&'static str, String, ConfigSource)> {
        let config = defaults.describe(overrides).into_iter().find(|config| config.name == name).unwrap();
        std::iter::once(config.holds).chain(config.beneath).map(|at| (at.name, at.value, at.source)).collect()
    }

    #[test]
    fn a_topics_own_stands_above_the_brokers_and_that_above_all_brokers_and_that_above_the_flags() {
        let flags = topic(&defaults(), &Overrides::new(), "retention.ms");
        assert_eq!(flags, [("log.retention.ms", "3600000".into(), ConfigSource::StaticBroker)]);
        let all = set(&defaults(), Level::Cluster, "log.retention.ms", "2000").unwrap();
        let both = set(&all, Level::Broker, "log.retention.ms", " 1000 ").unwrap();
        let own = Overrides::from([("retention.ms".to_owned(), "500".to_owned())]);
        let wanted = [
            ("retention.ms", "500".into(), ConfigSource::Topic),
            ("log.retention.ms", "1000".into(), ConfigSource::DynamicBroker),
            ("log.retention.ms", "2000".into(), ConfigSource::DynamicDefaultBroker),
            ("log.retention.ms", "3600000".into(), ConfigSource::StaticBroker),
        ];
        assert_eq!(topic(&both, &own, "retention.ms"), wanted);
        assert_eq!(topic(&both, &Overrides::new(), "retention.ms"), wanted[1..]);
        assert_eq!(both.partition_config(&own).retention_ms, Some(500));
        assert_eq!(both.partition_config(&Overrides::new()).retention_ms, Some(1000));
        assert_eq!(all.partition_config(&Overrides::new()).retention_ms, Some(2000));
        assert_eq!(topic(&both.without_dynamic(), &Overrides::new(), "retention.ms"), flags);
    }

    #[test]
    fn what_cannot_be_changed_at_run_time_is_named_and_nothing_is_changed() {
        let operation = || Operation::Set("1".to_owned());
        let names = ["num.partitions", "log.retention.ms", "remote.log.copy.disable", "retention.ms", "no.such.config"];
        let changes = names.map(|name| (name.to_owned(), operation())).to_vec();
        let refused = defaults().altered(Level::Broker, false, changes).unwrap_err().to_string();
        let wanted = "num.partitions, remote.log.copy.disable, retention.ms, no.such.config";
        assert_eq!(refused, format!("Cannot update these configs dynamically: Set({wanted})"));
        let deletes = names.map(|name| (name.to_owned(), Operation::Delete)).to_vec();
        assert!(defaults().altered(Level::Broker, false, deletes).unwrap().at(Level::Broker).is_empty());
    }

    #[test]
    fn a_value_that_a_topic_may_not_have_is_none_for_all_topics_either() {
        let refused = [
            ("min.insync.replicas", "2", "one node"),
            ("compression.type", "lzo", "producer"),
            ("log.retention.ms", "soon", "milliseconds"),
            ("log.cleanup.policy", "", "delete, compact or both"),
            ("log.preallocate", "true", "segments are not"),
            ("log.cleaner.min.cleanable.ratio", "NaN", "0 to 1"),
        ];
        for (name, value, why) in refused {
            let error = set(&defaults(), Level::Cluster, name, value).unwrap_err().to_string();
            assert!(error.starts_with(name) && error.contains(why), "{error}");
        }
        let max = set(&defaults(), Level::Cluster, "log.cleaner.max.compaction.lag.ms", "10").unwrap();
        let min = set(&max, Level::Broker, "log.cleaner.min.compaction.lag.ms", "11");
        assert_eq!(min.unwrap_err(), ConfigError::Lags { min: 11, max: 10 });
    }

    #[test]
    fn a_list_is_appended_to_what_holds_beneath_and_all_is_replaced_anew() {
        let change = |name: &str, operation| vec![(name.to_owned(), operation)];
        let policy = "log.cleanup.policy";
        let appended = change(policy, Operation::Append("compact".to_owned()));
        let all = defaults().altered(Level::Cluster, false, appended).unwrap();
        assert_eq!(all.at(Level::Cluster)["cleanup.policy"], "delete,compact");
        let subtracted = change(policy, Operation::Subtract("delete".to_owned()));
        let broker = all.altered(Level::Broker, false, subtracted).unwrap();
        assert_eq!(broker.at(Level::Broker)["cleanup.policy"], "compact");
        let replaced = change("message.max.bytes", Operation::Set("2000".to_owned()));
        let broker = broker.altered(Level::Broker, true, replaced).unwrap();
        assert_eq!(broker.at(Level::Broker).keys().collect::<Vec<_>>(), ["max.message.bytes"]);
        assert_eq!(broker.at(Level::Cluster)["cleanup.policy"], "delete,compact");
        let no_list = change("log.retention.ms", Operation::Append("1".to_owned()));
        let no_list = defaults().altered(Level::Broker, false, no_list).unwrap_err();
        assert_eq!(no_list, ConfigError::NoList("log.retention.ms".to_owned()));
    }

    #[test]
    fn the_broker_shows_all_and_the_cluster_only_what_is_set() {
        let defaults = set(&defaults(), Level::Cluster, "message.max.bytes", "2000").unwrap();
        let cluster = defaults.describe_cluster();
        let [config] = &cluster[..] else { panic!("{cluster:?}") };
        assert_eq!((config.name, &config.holds.value[..], config.beneath.len()), ("message.max.bytes", "2000", 0));
        let broker = defaults.describe_broker();
        let config = broker.iter().find(|config| config.name == "message.max.bytes").unwrap();
        assert_eq!((config.holds.source, config.beneath.len()), (ConfigSource::DynamicDefaultBroker, 1));
        let fixed = broker.iter().filter(|config| config.is_read_only).map(|config| config.name);
        let wanted = [
            "follower.replication.throttled.replicas",
            "leader.replication.throttled.replicas",
            "remote.log.copy.disable",
            "remote.log.delete.on.disable",
            "remote.log.storage.system.enable",
        ];
        assert_eq!(fixed.collect::<Vec<_>>(), wanted);
    }
}
