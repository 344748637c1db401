//! Topic configs: which exist, what they may be, and what they mean for a partition.
//!
//! A config that we do not honour is refused, never silently stored. Names and ranges are Apache Kafka's.

use std::collections::BTreeMap;

use super::log::PartitionConfig;
use crate::config::BrokerSettings;

/// Kafka's own default of `max.message.bytes`.
const MESSAGE_BYTES_MAX: i64 = 1_048_588;
/// Above this a batch could not be fetched or replayed within our other bounds.
const MESSAGE_BYTES_LIMIT: i64 = 64 * 1024 * 1024;
const SEGMENT_BYTES: i64 = 128 * 1024 * 1024;
const SEGMENT_BYTES_MIN: i64 = 1024 * 1024;
const SEGMENT_BYTES_LIMIT: i64 = i32::MAX as i64;

/// Set configs of a topic: only what differs from the defaults was ever stored.
pub(crate) type Overrides = BTreeMap<String, String>;

/// What kind of value a config has, in DescribeConfigs' numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConfigType {
    Text = 2,
    Int = 3,
    Long = 5,
    List = 7,
}

/// One config with its value.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) name: &'static str,
    pub(crate) value: String,
    pub(crate) default: String,
    pub(crate) is_default: bool,
    pub(crate) config_type: ConfigType,
}

/// Why a config was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("unknown topic config {name}; known are {known}")]
    Unknown { name: String, known: String },
    #[error("{name}={value} is not possible; it must be {expected}")]
    Value { name: String, value: String, expected: &'static str },
}

/// The broker's defaults.
#[derive(Clone, Debug)]
pub(crate) struct Defaults {
    retention_ms: i64,
    retention_bytes: i64,
    segment_ms: i64,
}

enum Allowed {
    Numbers { min: i64, max: i64 },
    Words(&'static [&'static str]),
}

struct Definition {
    name: &'static str,
    config_type: ConfigType,
    allowed: Allowed,
    expected: &'static str,
}

const fn numbers(
    name: &'static str,
    config_type: ConfigType,
    min: i64,
    max: i64,
    expected: &'static str,
) -> Definition {
    Definition { name, config_type, allowed: Allowed::Numbers { min, max }, expected }
}

static DEFINITIONS: [Definition; 9] = [
    Definition {
        name: "cleanup.policy",
        config_type: ConfigType::List,
        allowed: Allowed::Words(&["delete", "compact", "compact,delete", "delete,compact"]),
        expected: "delete, compact or both",
    },
    Definition {
        name: "compression.type",
        config_type: ConfigType::Text,
        allowed: Allowed::Words(&["producer"]),
        expected: "producer: batches are stored as they arrive",
    },
    numbers("max.message.bytes", ConfigType::Int, 0, MESSAGE_BYTES_LIMIT, "0 to 67108864 bytes"),
    Definition {
        name: "message.timestamp.type",
        config_type: ConfigType::Text,
        allowed: Allowed::Words(&["CreateTime", "LogAppendTime"]),
        expected: "CreateTime or LogAppendTime",
    },
    numbers("min.insync.replicas", ConfigType::Int, 1, 1, "1: there is one node"),
    numbers("retention.bytes", ConfigType::Long, -1, i64::MAX, "-1 (no limit) or a number of bytes"),
    numbers("retention.ms", ConfigType::Long, -1, i64::MAX, "-1 (no limit) or a number of milliseconds"),
    numbers("segment.bytes", ConfigType::Int, SEGMENT_BYTES_MIN, SEGMENT_BYTES_LIMIT, "1048576 to 2147483647 bytes"),
    numbers("segment.ms", ConfigType::Long, 1, i64::MAX, "a positive number of milliseconds"),
];

impl Defaults {
    /// A topic has a size and time limit unless it says otherwise.
    pub(crate) fn new(settings: &BrokerSettings) -> Self {
        let retention_ms = i64::try_from(settings.retention.as_millis()).unwrap_or(i64::MAX);
        let retention_bytes = i64::try_from(settings.retention_bytes_per_partition).unwrap_or(i64::MAX);
        // Only whole segments are cut, so a segment must be much younger than what is kept.
        let segment_ms = (retention_ms / 8).max(60_000);
        Defaults { retention_ms, retention_bytes, segment_ms }
    }

    fn default_of(&self, name: &str) -> String {
        match name {
            "cleanup.policy" => "delete".to_owned(),
            "compression.type" => "producer".to_owned(),
            "max.message.bytes" => MESSAGE_BYTES_MAX.to_string(),
            "message.timestamp.type" => "CreateTime".to_owned(),
            "min.insync.replicas" => "1".to_owned(),
            "retention.bytes" => self.retention_bytes.to_string(),
            "retention.ms" => self.retention_ms.to_string(),
            "segment.bytes" => SEGMENT_BYTES.min(self.retention_bytes / 8).max(SEGMENT_BYTES_MIN).to_string(),
            _ => self.segment_ms.to_string(),
        }
    }

    /// Every config of a topic, in order of name.
    pub(crate) fn describe(&self, overrides: &Overrides) -> Vec<Config> {
        let config = |definition: &Definition| {
            let default = self.default_of(definition.name);
            let value = overrides.get(definition.name).cloned();
            Config {
                name: definition.name,
                is_default: value.is_none(),
                value: value.unwrap_or_else(|| default.clone()),
                default,
                config_type: definition.config_type,
            }
        };
        DEFINITIONS.iter().map(config).collect()
    }

    /// What the configs mean for the log.
    pub(crate) fn partition_config(&self, overrides: &Overrides) -> PartitionConfig {
        let text = |name: &str| overrides.get(name).cloned().unwrap_or_else(|| self.default_of(name));
        // Overrides were validated when they were stored; a number that is none falls back to the default.
        let number =
            |name: &str| text(name).parse::<i64>().or_else(|_| self.default_of(name).parse()).unwrap_or(i64::MAX);
        let limit = |value: i64| (value >= 0).then_some(value);
        PartitionConfig {
            segment_bytes_max: number("segment.bytes").unsigned_abs(),
            segment_age_ms_max: number("segment.ms"),
            retention_bytes: limit(number("retention.bytes")).map(i64::unsigned_abs),
            retention_ms: limit(number("retention.ms")),
            batch_bytes_max: u32::try_from(number("max.message.bytes")).unwrap_or(u32::MAX),
            log_append_time: text("message.timestamp.type") == "LogAppendTime",
            timestamp_before_ms_max: i64::MAX,
            timestamp_after_ms_max: i64::MAX,
            compaction: text("cleanup.policy").contains("compact").then(Default::default),
        }
    }
}

/// Checks one config; the value is stored as it is returned.
pub(crate) fn validate(name: &str, value: Option<&str>) -> Result<String, ConfigError> {
    let Some(definition) = DEFINITIONS.iter().find(|definition| definition.name == name) else {
        let known: Vec<_> = DEFINITIONS.iter().map(|definition| definition.name).collect();
        return Err(ConfigError::Unknown { name: name.to_owned(), known: known.join(", ") });
    };
    let value = value.unwrap_or_default().trim();
    let fits = match definition.allowed {
        Allowed::Numbers { min, max } => value.parse().is_ok_and(|number: i64| (min..=max).contains(&number)),
        Allowed::Words(words) => words.contains(&value),
    };
    if fits {
        return Ok(value.to_owned());
    }
    Err(ConfigError::Value { name: name.to_owned(), value: value.to_owned(), expected: definition.expected })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn defaults() -> Defaults {
        Defaults { retention_ms: 86_400_000, retention_bytes: 1 << 30, segment_ms: 10_800_000 }
    }

    #[test]
    fn unknown_and_impossible_configs_are_refused_by_name() {
        assert!(validate("retention.hours", Some("1")).unwrap_err().to_string().contains("retention.ms"));
        assert!(validate("min.insync.replicas", Some("2")).is_err());
        assert!(validate("compression.type", Some("zstd")).is_err());
        assert!(validate("retention.ms", Some("soon")).is_err());
        assert!(validate("retention.ms", None).is_err());
    }

    #[test]
    fn every_default_is_itself_allowed() {
        for config in defaults().describe(&Overrides::new()) {
            assert_eq!(validate(config.name, Some(&config.value)).unwrap(), config.value, "{}", config.name);
        }
    }

    #[test]
    fn a_topic_is_limited_unless_it_says_otherwise() {
        let config = defaults().partition_config(&Overrides::new());
        assert_eq!((config.retention_ms, config.retention_bytes), (Some(86_400_000), Some(1 << 30)));
        let unlimited =
            Overrides::from([("retention.ms".into(), "-1".into()), ("retention.bytes".into(), "-1".into())]);
        let config = defaults().partition_config(&unlimited);
        assert_eq!((config.retention_ms, config.retention_bytes), (None, None));
    }
}
