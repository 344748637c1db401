//! What is compared: an answer as a list of paths with values. What may differ between two right brokers (ids given out
//! at random, hosts, times, words of messages) becomes a name in the order of appearance, so that equality still shows.

use std::collections::HashMap;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;

use super::batch;
use super::value::Value;

/// A path inside of a scenario and what stands there.
pub type Fact = (String, String);

/// What a field holds, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Compared as it is.
    Plain,
    /// Not compared: words, throttling, what no client relies on.
    Words,
    /// Compared only as far as there is one.
    Time,
    Host,
    Port,
    Node,
    Cluster,
    TopicId,
    Producer,
    Member,
    Error,
    Api,
    Records,
}

fn kind(field: &str) -> Kind {
    match field {
        "throttle_time_ms"
        | "finalized_features_epoch"
        | "error_message"
        | "unknown_tagged_fields"
        | "documentation" => Kind::Words,
        "log_append_time_ms" | "last_timestamp" | "transaction_start_time_ms" => Kind::Time,
        "host" => Kind::Host,
        "port" => Kind::Port,
        "node_id" | "broker_id" | "leader_id" | "controller_id" | "replica_nodes" | "isr_nodes" => Kind::Node,
        "cluster_id" => Kind::Cluster,
        "topic_id" => Kind::TopicId,
        "producer_id" => Kind::Producer,
        "member_id" | "leader" => Kind::Member,
        "error_code" => Kind::Error,
        "api_key" => Kind::Api,
        "records" => Kind::Records,
        _ => Kind::Plain,
    }
}

/// Which fields tell the elements of a list apart; a list whose elements have one has no order.
const KEYS: [&str; 14] = [
    "name",
    "index",
    "topic",
    "topic_id",
    "partition_index",
    "partition",
    "resource_name",
    "group_id",
    "api_key",
    "key",
    "transactional_id",
    "producer_id",
    "group_instance_id",
    "member_id",
];

/// Names for what is random.
#[derive(Default)]
pub struct Symbols {
    names: HashMap<(Kind, String), String>,
    counts: HashMap<Kind, usize>,
}

impl Symbols {
    /// Gives a name before an answer does.
    pub fn learn(&mut self, kind: Kind, raw: &str, name: String) {
        self.names.insert((kind, raw.to_owned()), name);
    }

    fn name(&mut self, kind: Kind, raw: &str) -> String {
        if let Some(name) = self.names.get(&(kind, raw.to_owned())) {
            return name.clone();
        }
        let count = self.counts.entry(kind).or_default();
        *count += 1;
        let name = format!("<{} {count}>", format!("{kind:?}").to_lowercase());
        self.names.insert((kind, raw.to_owned()), name.clone());
        name
    }

    fn show(&mut self, kind: Kind, raw: &str) -> String {
        let is_none = matches!(raw, "" | "-1" | "00000000-0000-0000-0000-000000000000");
        match kind {
            _ if is_none => format!("{raw:?}").replace('"', if raw.is_empty() { "\"" } else { "" }),
            Kind::Plain | Kind::Words | Kind::Records => raw.to_owned(),
            Kind::Time => "<time>".to_owned(),
            Kind::Host => "<host>".to_owned(),
            Kind::Port => "<port>".to_owned(),
            Kind::Cluster => "<cluster>".to_owned(),
            // A field that is not there in a version is 0, which is our number and not theirs.
            Kind::Node => "<node>".to_owned(),
            Kind::TopicId | Kind::Producer | Kind::Member => self.name(kind, raw),
            Kind::Error => error(raw),
            Kind::Api => raw
                .parse()
                .ok()
                .and_then(|key: i16| ApiKey::try_from(key).ok())
                .map_or_else(|| format!("api {raw}"), |key| format!("{key:?}")),
        }
    }
}

fn error(code: &str) -> String {
    match code.parse().ok().and_then(ResponseError::try_from_code) {
        Some(error) => format!("{code} {error:?}"),
        None => code.to_owned(),
    }
}

/// Makes facts of one answer.
pub struct Teller<'a> {
    pub symbols: &'a mut Symbols,
    /// Fields of this scenario that are not compared.
    pub masks: &'a [&'a str],
    pub facts: &'a mut Vec<Fact>,
}

impl Teller<'_> {
    /// Facts of `value`, below `path`.
    pub fn tell(&mut self, path: &str, value: &Value) {
        self.field(path, "", value);
    }

    fn fact(&mut self, path: &str, value: impl Into<String>) {
        self.facts.push((path.to_owned(), value.into()));
    }

    fn field(&mut self, path: &str, field: &str, value: &Value) {
        let kind = kind(field);
        if kind == Kind::Words || self.masks.contains(&field) {
            return;
        }
        match value {
            Value::Null => self.fact(path, "null"),
            Value::Plain(raw) => {
                let shown = self.symbols.show(kind, raw);
                self.fact(path, shown);
            }
            Value::Text(raw) => {
                let shown = self.symbols.show(kind, raw);
                self.fact(path, if shown == *raw { format!("{raw:?}") } else { shown });
            }
            Value::Bytes(bytes) if kind == Kind::Records => self.records(path, bytes),
            Value::Bytes(bytes) => self.fact(path, format!("{:?}", bytes::Bytes::copy_from_slice(bytes))),
            Value::Struct(fields) => {
                for (name, value) in fields {
                    self.field(&format!("{path}{}{name}", if path.ends_with(' ') { "" } else { "." }), name, value);
                }
            }
            Value::List(items) => self.list(path, field, items),
        }
    }

    fn records(&mut self, path: &str, bytes: &[u8]) {
        if bytes.is_empty() {
            return self.fact(path, "empty");
        }
        let symbols = &mut *self.symbols;
        let lines = batch::describe(bytes, &mut |id| symbols.show(Kind::Producer, &id.to_string()));
        for (number, line) in lines.into_iter().enumerate() {
            self.fact(&format!("{path}[{number}]"), line);
        }
    }

    fn list(&mut self, path: &str, field: &str, items: &[Value]) {
        if items.is_empty() {
            return self.fact(path, "[]");
        }
        let mut seen: HashMap<String, usize> = HashMap::new();
        for (number, item) in items.iter().enumerate() {
            let key = self.key(item).unwrap_or_else(|| number.to_string());
            let count = seen.entry(key.clone()).or_default();
            *count += 1;
            let path = if *count == 1 { format!("{path}[{key}]") } else { format!("{path}[{key} #{count}]") };
            if let Value::Struct(_) = item {
                self.fact(&path, "present");
            }
            self.field(&path, field, item);
        }
    }

    fn key(&mut self, item: &Value) -> Option<String> {
        let none = ["", "00000000-0000-0000-0000-000000000000"];
        let keys = || KEYS.iter().filter_map(|field| Some((*field, item.field(field)?.as_text()?)));
        let (field, raw) = keys().find(|(_, raw)| !none.contains(raw)).or(keys().next())?;
        Some(self.symbols.show(kind(field), raw))
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::MetadataResponse;
    use kafka_protocol::messages::metadata_response::{MetadataResponsePartition, MetadataResponseTopic};
    use kafka_protocol::messages::{BrokerId, TopicName};
    use kafka_protocol::protocol::StrBytes;

    use super::*;

    #[test]
    fn random_ids_get_names_and_lists_are_told_by_key() {
        let partition = MetadataResponsePartition::default().with_leader_id(BrokerId(7)).with_error_code(5);
        let topic = MetadataResponseTopic::default()
            .with_name(Some(TopicName(StrBytes::from_static_str("t"))))
            .with_topic_id(uuid::Uuid::from_u128(9))
            .with_partitions(vec![partition.clone(), partition]);
        let message = MetadataResponse::default().with_topics(vec![topic]).with_controller_id(BrokerId(7));
        let (mut symbols, mut facts) = (Symbols::default(), Vec::new());
        Teller { symbols: &mut symbols, masks: &["is_internal"], facts: &mut facts }.tell("", &Value::of(&message));
        let value = |path: &str| facts.iter().find(|(told, _)| told == path).map(|(_, value)| value.as_str());
        assert_eq!(value(".topics[t].partitions[0 #2].leader_id"), Some("<node>"), "{facts:#?}");
        assert_eq!(value(".controller_id"), Some("<node>"));
        assert_eq!(value(".topics[t].topic_id"), Some("<topicid 1>"));
        assert_eq!(value(".topics[t].partitions[0].error_code"), Some("5 LeaderNotAvailable"));
        assert_eq!((value(".throttle_time_ms"), value(".topics[t].is_internal")), (None, None));
    }
}
