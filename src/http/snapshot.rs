//! The document that the page shows: everything at one moment, made once a second for all viewers.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use super::history::HistoryView;
use super::reads::{TopSymbol, TopUser};
use super::status::{Counters, Lag, StageStatus};
use super::verdict::Verdict;
use crate::clock::Micros;
use crate::progress::{PartitionSeen, TransactionSeen};

/// Everything at one moment. What is not known is null.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Snapshot {
    /// finstream's version.
    pub version: &'static str,
    /// The moment.
    #[schema(format = DateTime)]
    pub now: String,
    /// Seconds since the windows opened.
    pub uptime_seconds: f64,
    /// The roles of this process.
    pub roles: Vec<&'static str>,
    /// Every role of this process is ready.
    pub ready: bool,
    /// Role -> what it waits for.
    #[schema(value_type = BTreeMap<String, String>)]
    pub waiting_for: BTreeMap<&'static str, String>,
    /// How it goes, in a line.
    pub verdict: Verdict,
    /// Source, producer, broker, consumer, PostgreSQL.
    pub pipeline: Vec<Place>,
    /// Messages since the start of this process.
    pub counters: Counters,
    /// Messages a second, over the last 5 s.
    pub rates: Rates,
    /// How far PostgreSQL is behind the log.
    pub lag: Lag,
    /// Latencies since the start.
    pub stages: Vec<StageStatus>,
    /// Latencies of the last 10 s.
    pub recent_stages: Vec<StageStatus>,
    /// The topic's partitions.
    pub partitions: Vec<PartitionView>,
    /// The last 15 minutes, a column a second; an event has the newest column only.
    pub history: HistoryView,
    /// The busiest users.
    pub top_users: Top<TopUser>,
    /// The most traded symbols.
    pub top_symbols: Top<TopSymbol>,
    /// The last 20 transactions stored by this process, newest first.
    pub transactions: Vec<TransactionView>,
    /// Do the counters of this process add up?
    pub books: Books,
    /// Where there is more.
    pub links: Links,
}

/// A place on a message's way.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Place {
    /// `source`, `producer`, `broker`, `consumer` or `postgres`.
    pub place: &'static str,
    /// Whether this process runs it, or uses it.
    pub here: bool,
    /// Messages a second through it, over the last 5 s.
    pub rate_per_second: Option<f64>,
    /// Time spent in it, over the last 10 s.
    pub p50_us: Option<u64>,
    /// The same.
    pub p99_us: Option<u64>,
    /// Messages that wait in it.
    pub queue_messages: Option<u64>,
    /// Whether more time is spent here than in any other place.
    pub slowest: bool,
    /// What holds it up.
    pub note: Option<String>,
}

/// Messages a second.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Rates {
    /// Arrivals whose time came.
    pub scheduled: Option<f64>,
    /// Acknowledged by the broker.
    pub acknowledged: Option<f64>,
    /// Committed in PostgreSQL.
    pub stored: Option<f64>,
}

/// A partition of the topic.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct PartitionView {
    /// Its number.
    pub partition: i32,
    /// Offset of the first record that the log still has.
    pub log_start: Option<i64>,
    /// Offset behind the last record.
    pub log_end: Option<i64>,
    /// Offset behind the last record that PostgreSQL holds.
    pub committed: i64,
    /// Records in between.
    pub lag_messages: Option<u64>,
    /// Age of the oldest of them.
    pub lag_seconds: Option<f64>,
    /// Whether the consumer of this process owns it.
    pub owned: bool,
}

/// A table of PostgreSQL, read every few seconds while somebody looks.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Top<Row> {
    /// Its rows; those of before, while there is an error.
    pub rows: Vec<Row>,
    /// What gives them.
    pub sql: &'static str,
    /// What a person types for them.
    pub command: String,
    /// The same with psql; null where PostgreSQL is not known.
    pub psql: Option<String>,
    /// When they were read.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub as_of: Option<String>,
    /// Why there are none, or no new ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// One stored transaction and its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct TransactionView {
    /// Of the log.
    pub partition: i32,
    /// In the partition.
    pub offset: i64,
    /// Null of a foreign message.
    pub run_id: Option<String>,
    /// Its place in the run.
    pub sequence: Option<i64>,
    /// The business id.
    pub transaction_id: String,
    /// Whose.
    pub user_id: String,
    /// `purchase`, `declined` (an attempt of one), `refund` or `trade`.
    pub kind: &'static str,
    /// Decimal text.
    pub amount: String,
    /// ISO 4217.
    pub currency: String,
    /// When the arrival process wanted it sent.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub scheduled_at: Option<String>,
    /// When it was handed to the Kafka client.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub sent_at: Option<String>,
    /// When the producer of this process was told that it is stored.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub acknowledged_at: Option<String>,
    /// When the consumer got it.
    #[schema(format = DateTime)]
    pub received_at: String,
    /// When its batch was ready for PostgreSQL.
    #[schema(format = DateTime)]
    pub processed_at: String,
    /// When COMMIT returned.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub committed_at: Option<String>,
}

/// Do the counters of this process add up? The audit is the proof, this is a look.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Books {
    /// Handed to the Kafka client.
    pub produced: u64,
    /// Acknowledged by the broker; what is stored counts, whether or not its answer has come.
    pub acknowledged: u64,
    /// Committed in PostgreSQL; null where no consumer runs in this process.
    pub stored: Option<u64>,
    /// Refused on record, of what producers of finstream have sent; null as above.
    pub dead_letters: Option<u64>,
    /// Produced, and neither of these two yet; null as above.
    pub on_the_way: Option<u64>,
    /// In words.
    pub text: String,
}

/// Paths of this server.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct Links {
    /// For Prometheus.
    pub metrics: &'static str,
    /// For people who write programs.
    pub docs: &'static str,
    /// For programs that write programs.
    pub openapi: &'static str,
}

impl Default for Links {
    fn default() -> Self {
        Links { metrics: "/metrics", docs: "/docs", openapi: "/api/v1/openapi.json" }
    }
}

impl PartitionView {
    /// One that the consumer of this process owns.
    pub fn owned(seen: PartitionSeen) -> PartitionView {
        PartitionView {
            partition: seen.partition,
            log_start: seen.log_start,
            log_end: seen.log_end,
            committed: seen.committed,
            lag_messages: seen.log_end.map(|end| end.saturating_sub(seen.committed).max(0).unsigned_abs()),
            lag_seconds: seen.oldest_us.map(|age_us| age_us.max(0) as f64 / 1e6),
            owned: true,
        }
    }

    /// One of which PostgreSQL alone knows.
    pub fn of_others(partition: i32, committed: i64) -> PartitionView {
        PartitionView {
            partition,
            log_start: None,
            log_end: None,
            committed,
            lag_messages: None,
            lag_seconds: None,
            owned: false,
        }
    }
}

impl From<TransactionSeen> for TransactionView {
    fn from(seen: TransactionSeen) -> TransactionView {
        let text = |time: Option<Micros>| time.map(|time| time.to_string());
        TransactionView {
            partition: seen.partition,
            offset: seen.offset,
            run_id: seen.run_id,
            sequence: seen.sequence,
            transaction_id: seen.transaction_id,
            user_id: seen.user_id,
            kind: seen.kind,
            amount: seen.amount,
            currency: seen.currency,
            scheduled_at: text(seen.scheduled_at),
            sent_at: text(seen.sent_at),
            acknowledged_at: text(seen.acknowledged_at),
            received_at: seen.received_at.to_string(),
            processed_at: seen.processed_at.to_string(),
            committed_at: text(seen.committed_at),
        }
    }
}

impl Books {
    /// What the counters come to, of a process with these roles.
    pub fn of(counters: &Counters, roles: &[&'static str]) -> Books {
        let Counters { sent, acknowledged, unknown, stored, dead_letters, foreign_letters, .. } = *counters;
        if !roles.contains(&"consumer") {
            let text = match roles.contains(&"producer") {
                true => "this process produces; what is stored, the page of its consumer tells",
                false => "neither a producer nor a consumer runs in this process",
            };
            let (stored, dead_letters, on_the_way) = (None, None, None);
            return Books { produced: sent, acknowledged, stored, dead_letters, on_the_way, text: text.to_owned() };
        }
        let dead_letters = dead_letters.saturating_sub(foreign_letters);
        let arrived = stored + dead_letters;
        let on_the_way = sent.saturating_sub(arrived);
        let acknowledged =
            if arrived <= sent { acknowledged.max(arrived.min(sent - unknown.min(sent))) } else { acknowledged };
        let dead = if dead_letters > 0 { " + dead letters" } else { "" };
        let text = match (sent, stored) {
            (0, 0) => "nothing was produced or stored yet".to_owned(),
            (0, _) => "this process stores what others produce".to_owned(),
            _ if arrived > sent => {
                "more is stored than was produced here: earlier runs or other producers are among it".to_owned()
            }
            _ if on_the_way == 0 && acknowledged == sent && dead_letters == 0 => {
                "produced = acknowledged = stored".to_owned()
            }
            _ if on_the_way == 0 => format!("produced = stored{dead}"),
            _ if unknown > 0 => format!("produced = stored{dead} + on the way, or of unknown outcome"),
            _ => format!("produced = stored{dead} + on the way"),
        };
        let (stored, dead_letters, on_the_way) = (Some(stored), Some(dead_letters), Some(on_the_way));
        Books { produced: sent, acknowledged, stored, dead_letters, on_the_way, text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &[&str] = &["broker", "producer", "consumer"];

    fn counters(sent: u64, stored: u64, dead_letters: u64) -> Counters {
        let (unknown, foreign_letters) = (0, 0);
        Counters { scheduled: sent, sent, acknowledged: sent, unknown, stored, dead_letters, foreign_letters }
    }

    #[test]
    fn the_books_say_what_is_on_its_way_and_never_less_than_nothing() {
        assert_eq!(Books::of(&counters(5, 5, 0), ALL).text, "produced = acknowledged = stored");
        assert_eq!(Books::of(&counters(5, 3, 1), ALL).on_the_way, Some(1));
        let backlog = Books::of(&counters(5, 9, 0), ALL);
        assert_eq!(backlog.on_the_way, Some(0));
        assert!(backlog.text.contains("earlier runs"));
        // What a stranger has sent was not produced here.
        let letters = Counters { foreign_letters: 4, ..counters(9, 7, 5) };
        let books = Books::of(&letters, ALL);
        assert_eq!((books.dead_letters, books.on_the_way), (Some(1), Some(1)));
        assert_eq!(books.text, "produced = stored + dead letters + on the way");
        // An answer that comes after its message was stored.
        let books = Books::of(&Counters { acknowledged: 3, ..counters(9, 7, 0) }, ALL);
        assert_eq!(books.acknowledged, 7);
        let books = Books::of(&counters(9, 0, 0), &["producer"]);
        assert_eq!((books.stored, books.on_the_way), (None, None));
    }
}
