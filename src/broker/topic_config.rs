//! Topic configs: which exist, what they may be, and what they mean for a partition.
//!
//! A config that we do not honour is refused, never silently stored. Names and ranges are Apache Kafka's.

mod definitions;
mod dynamic;

use std::collections::BTreeMap;

pub(crate) use self::definitions::ConfigType;
use self::definitions::{Allowed, DEFINITIONS, Definition, SEGMENT_BYTES, SEGMENT_BYTES_MIN};
pub(crate) use self::dynamic::Level;
use super::log::{Compaction, Durability, PartitionConfig};
use crate::config::BrokerSettings;

/// Set configs of a topic: only what differs from the defaults was ever stored.
pub(crate) type Overrides = BTreeMap<String, String>;

/// The codec's number in a batch's attributes that a `compression.type` stands for; none: as the producer chose.
fn codec(compression_type: &str) -> Option<i16> {
    match compression_type {
        "uncompressed" => Some(0),
        "gzip" => Some(1),
        "snappy" => Some(2),
        "lz4" => Some(3),
        "zstd" => Some(4),
        _ => None,
    }
}

/// Where a value comes from, in DescribeConfigs' numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConfigSource {
    /// Set on the topic (`DYNAMIC_TOPIC_CONFIG`).
    Topic = 1,
    /// Set on the broker at run time (`DYNAMIC_BROKER_CONFIG`).
    DynamicBroker = 2,
    /// Set on all brokers at run time (`DYNAMIC_DEFAULT_BROKER_CONFIG`).
    DynamicDefaultBroker = 3,
    /// From the broker's flags (`STATIC_BROKER_CONFIG`).
    StaticBroker = 4,
    /// Built in (`DEFAULT_CONFIG`).
    Default = 5,
}

/// A value, and where it is set under which name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) name: &'static str,
    pub(crate) value: String,
    pub(crate) source: ConfigSource,
}

/// One config with its value.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) name: &'static str,
    pub(crate) holds: Setting,
    /// What would hold without it, in order.
    pub(crate) beneath: Vec<Setting>,
    pub(crate) config_type: ConfigType,
    pub(crate) documentation: &'static str,
    /// It cannot be changed at run time.
    pub(crate) is_read_only: bool,
}

impl Config {
    /// Name and value, of a config that the broker was told at run time.
    pub(crate) fn set_at_run_time(&self) -> Option<String> {
        let is_set = matches!(self.holds.source, ConfigSource::DynamicBroker | ConfigSource::DynamicDefaultBroker);
        is_set.then(|| format!("{}={}", self.name, self.holds.value))
    }
}

/// Why a config was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("unknown topic config {name}; known are {known}")]
    Unknown { name: String, known: String },
    #[error("{name}={value} is not supported: it must be {expected}")]
    Value { name: String, value: String, expected: &'static str },
    #[error("{0} is no list: it can be set and deleted, not appended to or subtracted from")]
    NoList(String),
    #[error("min.compaction.lag.ms={min} must not be more than max.compaction.lag.ms={max}")]
    Lags { min: i64, max: i64 },
    #[error("Cannot update these configs dynamically: Set({0})")]
    NotDynamic(String),
}

/// A change of one config.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Set(String),
    /// Back to the default.
    Delete,
    /// Adds to a list what it does not hold.
    Append(String),
    /// Takes out of a list.
    Subtract(String),
}

/// The broker's defaults: what is built in or follows from its flags, and above that what was set at run time.
#[derive(Clone, Debug)]
pub(crate) struct Defaults {
    retention_ms: i64,
    retention_bytes: i64,
    segment_ms: i64,
    durability: Durability,
    /// Set at run time on this broker, by the topic's name of the config.
    on_broker: Overrides,
    /// Set at run time on all brokers, likewise.
    on_cluster: Overrides,
}

impl Defaults {
    /// A topic has a size and time limit unless it says otherwise.
    pub(crate) fn new(settings: &BrokerSettings) -> Self {
        let retention_ms = i64::try_from(settings.retention.as_millis()).unwrap_or(i64::MAX);
        let retention_bytes = i64::try_from(settings.retention_bytes_per_partition).unwrap_or(i64::MAX);
        // Only whole segments are cut, so a segment must be much younger than what is kept.
        let segment_ms = (retention_ms / 8).max(60_000);
        let (on_broker, on_cluster) = (Overrides::new(), Overrides::new());
        Defaults { retention_ms, retention_bytes, segment_ms, durability: settings.durability, on_broker, on_cluster }
    }

    /// What holds where nothing was set at run time.
    fn default_of(&self, definition: &Definition) -> String {
        match (definition.default, definition.name) {
            (Some(default), _) => default.to_owned(),
            (None, "retention.bytes") => self.retention_bytes.to_string(),
            (None, "retention.ms") => self.retention_ms.to_string(),
            (None, "segment.bytes") => SEGMENT_BYTES.min(self.retention_bytes / 8).max(SEGMENT_BYTES_MIN).to_string(),
            (None, _) => self.segment_ms.to_string(),
        }
    }

    /// Every config of a topic, in order of name.
    pub(crate) fn describe(&self, overrides: &Overrides) -> Vec<Config> {
        let config = |definition: &Definition| {
            let own = overrides.get(definition.name).cloned();
            let own = own.map(|value| Setting { name: definition.name, value, source: ConfigSource::Topic });
            let mut beneath = self.settings(definition);
            let holds = own.unwrap_or_else(|| beneath.remove(0));
            let Definition { name, config_type, documentation, .. } = *definition;
            Config { name, holds, beneath, config_type, documentation, is_read_only: false }
        };
        DEFINITIONS.iter().map(config).collect()
    }

    /// What the configs mean for the log.
    pub(crate) fn partition_config(&self, overrides: &Overrides) -> PartitionConfig {
        let values: BTreeMap<&str, String> =
            self.describe(overrides).into_iter().map(|config| (config.name, config.holds.value)).collect();
        let text = |name: &str| values.get(name).map_or("", String::as_str);
        // Overrides were validated when they were stored; a number that is none would come from another version.
        let number = |name: &str| text(name).parse::<i64>().unwrap_or(i64::MAX);
        let limit = |value: i64| (value >= 0).then_some(value);
        let policy = text("cleanup.policy");
        let dirty_ratio_min = text("min.cleanable.dirty.ratio").parse::<f64>().unwrap_or(0.5);
        let compaction = Compaction {
            and_retention: policy.contains("delete"),
            delete_retention_ms: number("delete.retention.ms"),
            lag_ms_min: number("min.compaction.lag.ms"),
            lag_ms_max: number("max.compaction.lag.ms"),
            dirty_ppm_min: (dirty_ratio_min * 1e6) as u32,
        };
        PartitionConfig {
            segment_bytes_max: number("segment.bytes").unsigned_abs(),
            segment_age_ms_max: number("segment.ms"),
            retention_bytes: limit(number("retention.bytes")).map(i64::unsigned_abs),
            retention_ms: limit(number("retention.ms")),
            batch_bytes_max: u32::try_from(number("max.message.bytes")).unwrap_or(u32::MAX),
            log_append_time: text("message.timestamp.type") == "LogAppendTime",
            timestamp_before_ms_max: number("message.timestamp.before.max.ms"),
            timestamp_after_ms_max: number("message.timestamp.after.max.ms"),
            compaction: policy.contains("compact").then_some(compaction),
        }
    }

    /// The codec that batches are stored in; none: the one that the producer chose.
    pub(crate) fn codec(&self, overrides: &Overrides) -> Option<i16> {
        let config = self.describe(overrides).into_iter().find(|config| config.name == "compression.type");
        codec(&config?.holds.value)
    }

    /// Changes one config. What comes out must then be looked at as a whole, by `check`.
    ///
    /// # Errors
    /// The config or its value is not possible.
    pub(crate) fn apply(&self, overrides: &mut Overrides, name: &str, operation: Operation) -> Result<(), ConfigError> {
        let Some(definition) = DEFINITIONS.iter().find(|definition| definition.name == name) else {
            if matches!(operation, Operation::Delete) {
                // What was never set is unset.
                return Ok(());
            }
            let known: Vec<_> = DEFINITIONS.iter().map(|definition| definition.name).collect();
            return Err(ConfigError::Unknown { name: name.to_owned(), known: known.join(", ") });
        };
        let beneath = || self.settings(definition).remove(0).value;
        self.change(overrides, definition, name, operation, beneath)
    }

    /// Changes one config, which goes by that name in errors, and where it is not set has the value from beneath.
    fn change(
        &self,
        overrides: &mut Overrides,
        definition: &Definition,
        name: &str,
        operation: Operation,
        beneath: impl FnOnce() -> String,
    ) -> Result<(), ConfigError> {
        let present = |overrides: &Overrides| overrides.get(definition.name).cloned().unwrap_or_else(beneath);
        let value = match operation {
            Operation::Delete => {
                overrides.remove(definition.name);
                return Ok(());
            }
            Operation::Set(value) => value,
            Operation::Append(_) | Operation::Subtract(_) if definition.config_type != ConfigType::List => {
                return Err(ConfigError::NoList(name.to_owned()));
            }
            // What it holds already is not held twice: `validate` sees to that.
            Operation::Append(more) => words(&present(overrides)).chain(words(&more)).collect::<Vec<_>>().join(","),
            Operation::Subtract(less) => {
                let present = present(overrides);
                let left: Vec<&str> = words(&present).filter(|word| !words(&less).any(|gone| gone == *word)).collect();
                left.join(",")
            }
        };
        let value = self.validate(definition, name, &value)?;
        overrides.insert(definition.name.to_owned(), value);
        Ok(())
    }

    /// Whether the configs fit together.
    ///
    /// # Errors
    /// They do not.
    pub(crate) fn check(&self, overrides: &Overrides) -> Result<(), ConfigError> {
        // Also of a topic that is not compacted: it may become so.
        let lag = |name: &str| {
            let config = self.describe(overrides).into_iter().find(|config| config.name == name);
            config.and_then(|config| config.holds.value.parse::<i64>().ok())
        };
        match (lag("min.compaction.lag.ms"), lag("max.compaction.lag.ms")) {
            (Some(min), Some(max)) if min > max => Err(ConfigError::Lags { min, max }),
            _ => Ok(()),
        }
    }

    /// The value as it is stored; in errors the config goes by that name.
    fn validate(&self, definition: &Definition, name: &str, value: &str) -> Result<String, ConfigError> {
        let value = value.trim();
        let stored = match definition.allowed {
            Allowed::Numbers { min, max } => {
                value.parse().is_ok_and(|number: i64| (min..=max).contains(&number)).then(|| value.to_owned())
            }
            Allowed::Flush => {
                let min = if self.durability == Durability::Fsync { 1 } else { i64::MAX };
                value.parse().is_ok_and(|number: i64| number >= min).then(|| value.to_owned())
            }
            Allowed::Ratio => {
                value.parse().is_ok_and(|ratio: f64| (0.0..=1.0).contains(&ratio)).then(|| value.to_owned())
            }
            Allowed::Words(allowed) if definition.config_type == ConfigType::Boolean => {
                let value = value.to_ascii_lowercase();
                allowed.contains(&value.as_str()).then_some(value)
            }
            Allowed::Words(allowed) => allowed.contains(&value).then(|| value.to_owned()),
            Allowed::SomeOf(allowed) => {
                let mut given: Vec<&str> = Vec::new();
                for word in words(value) {
                    if !given.contains(&word) {
                        given.push(word);
                    }
                }
                let fits = !given.is_empty() && given.iter().all(|word| allowed.contains(word));
                fits.then(|| given.join(","))
            }
        };
        let (name, value) = (name.to_owned(), value.to_owned());
        stored.ok_or(ConfigError::Value { name, value, expected: definition.expected })
    }
}

fn words(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn defaults() -> Defaults {
        let settings = BrokerSettings {
            retention: std::time::Duration::from_secs(86_400),
            retention_bytes_per_partition: 1 << 30,
            ..BrokerSettings::local("nowhere".into())
        };
        Defaults { durability: Durability::Fsync, ..Defaults::new(&settings) }
    }

    fn set(name: &str, value: &str) -> Result<Overrides, ConfigError> {
        let mut overrides = Overrides::new();
        defaults().apply(&mut overrides, name, Operation::Set(value.to_owned()))?;
        defaults().check(&overrides)?;
        Ok(overrides)
    }

    #[test]
    fn unknown_and_impossible_configs_are_refused_by_name_with_the_reason() {
        assert!(set("retention.hours", "1").unwrap_err().to_string().contains("retention.ms"));
        let impossible = [
            ("min.insync.replicas", "2", "one node"),
            ("compression.type", "lzo", "producer"),
            ("compression.zstd.level", "5", "its default"),
            ("retention.ms", "soon", "milliseconds"),
            ("retention.ms", "", "milliseconds"),
            ("unclean.leader.election.enable", "true", "no election"),
            ("remote.storage.enable", "true", "tiered"),
            ("min.cleanable.dirty.ratio", "1.1", "0 to 1"),
            ("min.cleanable.dirty.ratio", "NaN", "0 to 1"),
            ("cleanup.policy", "compact,forget", "delete, compact or both"),
            ("cleanup.policy", "", "delete, compact or both"),
            ("segment.bytes", "1000", "1048576"),
            ("flush.messages", "0", "synced"),
            ("index.interval.bytes", "8192", "not supported: it must be 4096: the distance"),
        ];
        for (name, value, why) in impossible {
            let error = set(name, value).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(why), "{error}");
        }
        let os = Defaults { durability: Durability::Os, ..defaults() };
        assert!(os.apply(&mut Overrides::new(), "flush.messages", Operation::Set("1".into())).is_err());
    }

    #[test]
    fn every_default_is_itself_allowed_and_the_table_is_in_order() {
        let all = defaults().describe(&Overrides::new());
        for config in &all {
            let value = &config.holds.value;
            assert_eq!(set(config.name, value).unwrap().get(config.name), Some(value), "{}", config.name);
            assert!(!config.documentation.is_empty());
        }
        assert!(all.is_sorted_by_key(|config| config.name));
    }

    #[test]
    fn topics_of_streams_connect_and_schema_registry_can_be_made() {
        let wanted: [&[(&str, &str)]; 6] = [
            &[("cleanup.policy", "compact"), ("message.timestamp.type", "CreateTime")],
            &[
                ("cleanup.policy", "compact,delete"),
                ("retention.ms", "172800000"),
                ("message.timestamp.type", "CreateTime"),
            ],
            &[("cleanup.policy", "delete"), ("segment.bytes", "52428800"), ("retention.ms", "-1")],
            &[("cleanup.policy", "compact"), ("min.compaction.lag.ms", "86400000")],
            &[("cleanup.policy", "compact"), ("min.insync.replicas", "1"), ("unclean.leader.election.enable", "False")],
            &[("cleanup.policy", " delete , compact "), ("min.cleanable.dirty.ratio", "0.01"), ("segment.ms", "100")],
        ];
        for configs in wanted {
            for (name, value) in configs {
                set(name, value).unwrap();
            }
        }
    }

    #[test]
    fn lists_are_appended_to_and_subtracted_from_and_lags_must_fit() {
        let defaults = defaults();
        let mut overrides = Overrides::new();
        let policy = "cleanup.policy";
        defaults.apply(&mut overrides, policy, Operation::Append("compact".into())).unwrap();
        assert_eq!(overrides[policy], "delete,compact");
        assert!(defaults.partition_config(&overrides).is_cut_by_retention());
        defaults.apply(&mut overrides, policy, Operation::Subtract("delete".into())).unwrap();
        assert_eq!(overrides[policy], "compact");
        assert!(!defaults.partition_config(&overrides).is_cut_by_retention());
        assert!(defaults.apply(&mut overrides, policy, Operation::Subtract("compact".into())).is_err());
        assert!(defaults.apply(&mut overrides, "retention.ms", Operation::Append("1".into())).is_err());
        defaults.apply(&mut overrides, "max.compaction.lag.ms", Operation::Set("10".into())).unwrap();
        defaults.apply(&mut overrides, "min.compaction.lag.ms", Operation::Set("11".into())).unwrap();
        assert_eq!(defaults.check(&overrides), Err(ConfigError::Lags { min: 11, max: 10 }));
        defaults.apply(&mut overrides, "min.compaction.lag.ms", Operation::Delete).unwrap();
        assert_eq!(defaults.check(&overrides), Ok(()));
    }

    #[test]
    fn a_topic_is_limited_unless_it_says_otherwise() {
        let config = defaults().partition_config(&Overrides::new());
        assert_eq!((config.retention_ms, config.retention_bytes), (Some(86_400_000), Some(1 << 30)));
        assert_eq!(config.compaction, None);
        let unlimited =
            Overrides::from([("retention.ms".into(), "-1".into()), ("retention.bytes".into(), "-1".into())]);
        let config = defaults().partition_config(&unlimited);
        assert_eq!((config.retention_ms, config.retention_bytes), (None, None));
    }
}
