//! The command line: clap types only. What a flag means together with others is decided in `config`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, CommandFactory, FromArgMatches, Parser, ValueEnum};
use uuid::Uuid;

mod commands;
pub mod parse;

pub use commands::{Command, CompletionsArgs, DeadLettersArgs, ManArgs, ResetArgs, SqlArgs, VerifyArgs};

use parse::{address, batch_wait, duration, host_port, number_or_max, rebalance_delay, share, size, window};

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default());

const EXAMPLES: &str = "\
Examples:
  finstream                                         everything, 1,000 transactions/s, until Ctrl-C
  finstream --rate 20000 --duration 30s             a measured run: drains, audits, prints a summary
  finstream --source yfinance:AAPL.csv --rate max   trades from a yfinance file
  finstream --role broker                           one role a terminal
  finstream --brokers kafka1:9092,kafka2:9092       the same pipeline on your cluster
  finstream sql 'select * from user_totals order by transactions desc limit 5'
  finstream verify                                  do the books balance?

Each flag has an environment variable: --batch-max is FINSTREAM_BATCH_MAX. All flags: --help.";

/// Finance transactions through a durable Kafka-API log into exact totals in PostgreSQL.
///
/// Without a subcommand finstream runs its roles: an embedded broker, a producer of transactions and a consumer that
/// keeps exact totals in PostgreSQL. Nothing needs to be set up.
#[derive(Debug, Parser)]
#[command(name = "finstream", version, after_help = EXAMPLES, disable_help_subcommand = true, styles = STYLES, max_term_width = 110)]
pub struct Cli {
    /// Flags that every command understands, before and after its name.
    #[command(flatten)]
    pub shared: SharedArgs,
    /// Flags of the pipeline itself.
    #[command(flatten)]
    pub pipeline: PipelineArgs,
    /// What to do instead of running the pipeline.
    #[command(subcommand)]
    pub command: Option<Command>,
}

impl Cli {
    /// Reads the process's command line; ends the process for `--help` and for bad usage (exit code 2).
    pub fn from_process() -> Cli {
        // One sentence says how the environment variables are called; a line for each would fill the screen.
        let matches = Cli::command().mut_args(|argument| argument.hide_env(true)).get_matches();
        Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }
}

/// Flags that every command understands.
#[derive(Clone, Debug, Args)]
pub struct SharedArgs {
    /// Log, private PostgreSQL and ledger
    #[arg(long, value_name = "DIR", default_value = "finstream-data", env = "FINSTREAM_DATA_DIR", global = true)]
    pub data_dir: PathBuf,

    /// An external Kafka-API cluster, not the embedded broker
    #[arg(long, value_name = "HOST:PORT,…", env = "FINSTREAM_BROKERS", global = true)]
    pub brokers: Option<String>,

    /// A librdkafka property; K=@FILE reads the value from a file
    ///
    /// Repeatable. Secrets (passwords, keys) are refused here, because other users can read a command line: give them as
    /// K=@FILE or one K=V a line in FINSTREAM_KAFKA_PROPERTY.
    #[arg(short = 'X', long = "kafka-property", value_name = "K=V", global = true)]
    pub kafka_properties: Vec<String>,

    /// An external PostgreSQL; @FILE reads the URL from a file
    ///
    /// postgresql://USER@HOST:PORT/DATABASE; the password comes from PGPASSWORD, PGPASSFILE or ~/.pgpass.
    #[arg(long, value_name = "URL", env = "FINSTREAM_DATABASE_URL", hide_env_values = true, global = true)]
    pub database_url: Option<String>,

    /// Topics are PREFIXtransactions and PREFIXaggregates
    #[arg(
        long,
        value_name = "P",
        default_value = "finance.",
        env = "FINSTREAM_TOPIC_PREFIX",
        global = true,
        hide_short_help = true
    )]
    pub topic_prefix: String,

    /// Partitions of topics that finstream creates
    #[arg(long, value_name = "N", default_value_t = 6, env = "FINSTREAM_PARTITIONS", global = true, hide_short_help = true,
          value_parser = clap::value_parser!(i32).range(1..=1000))]
    pub partitions: i32,

    /// Replication factor of topics that finstream creates [default: the broker's]
    #[arg(long, value_name = "N", env = "FINSTREAM_REPLICATION_FACTOR", global = true, hide_short_help = true,
          value_parser = clap::value_parser!(i32).range(1..=32_767))]
    pub replication_factor: Option<i32>,

    /// The schema of the totals
    #[arg(
        long,
        value_name = "NAME",
        default_value = "finstream",
        env = "FINSTREAM_DB_SCHEMA",
        global = true,
        hide_short_help = true
    )]
    pub db_schema: String,

    /// Consumer group
    #[arg(
        long,
        value_name = "ID",
        default_value = "finstream",
        env = "FINSTREAM_GROUP",
        value_parser = clap::builder::NonEmptyStringValueParser::new(),
        global = true,
        hide_short_help = true
    )]
    pub group: String,

    /// Folder with initdb and postgres, for the private PostgreSQL
    #[arg(long, value_name = "DIR", env = "FINSTREAM_PG_BIN", global = true, hide_short_help = true)]
    pub pg_bin: Option<PathBuf>,

    /// JSON on stdout
    #[arg(long, env = "FINSTREAM_JSON", global = true)]
    pub json: bool,

    /// Temporary data, removed at exit
    #[arg(long, env = "FINSTREAM_EPHEMERAL", global = true, hide_short_help = true, conflicts_with = "data_dir")]
    pub ephemeral: bool,
}

/// The roles of the pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Role {
    /// The embedded Kafka-API broker.
    Broker,
    /// Publishes a source at its arrival times.
    Producer,
    /// Keeps the totals in PostgreSQL.
    Consumer,
}

/// When the embedded broker acknowledges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DurabilityArg {
    /// After fdatasync: survives a power cut.
    Fsync,
    /// After the page-cache write: survives a killed process, as Apache Kafka's default does.
    Os,
}

/// How latency rows are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LatencyLayoutArg {
    /// A row a message.
    Rows,
    /// Arrays, a row for many messages.
    Packed,
}

/// A number, or as fast as it goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum NumberOrMax {
    /// Per second, or times faster.
    Number(f64),
    /// No limit.
    Max,
}

/// Flags of the pipeline itself.
#[derive(Clone, Debug, Args)]
pub struct PipelineArgs {
    /// broker, producer, consumer: one or more [default: all; with --brokers: producer,consumer]
    #[arg(
        long,
        value_name = "ROLE,…",
        value_delimiter = ',',
        hide_possible_values = true,
        env = "FINSTREAM_ROLE",
        help_heading = "Pipeline"
    )]
    pub role: Vec<Role>,

    /// Messages per second, or max [default: 1000]
    ///
    /// max is as fast as the slowest part goes: the producer waits for a consumer in its process that is far behind.
    #[arg(long, value_name = "N|max", value_parser = number_or_max, env = "FINSTREAM_RATE", help_heading = "Source")]
    pub rate: Option<NumberOrMax>,

    /// Arrivals: constant, poisson, bursty, market, ramp:A:B
    ///
    /// How messages lie in time, at --rate on average: evenly, at random, at random with bursts of ten times the rate, by an
    /// exchange's day (market[:FILE][:TIME]: a U-shape, or the volumes of a yfinance intraday FILE; the day lasts TIME), or
    /// evenly from A to B messages per second (ramp:A:B[:TIME], over --duration without a TIME). The same --seed gives the
    /// same times. What cannot be sent in time is sent late; its lateness counts from when it was due.
    #[arg(
        long,
        value_name = "PROCESS",
        default_value = "constant",
        env = "FINSTREAM_ARRIVAL",
        help_heading = "Source"
    )]
    pub arrival: String,

    /// synthetic, yfinance:FILE,… cards:FILE,… yahoo:SYM,…
    #[arg(long, value_name = "SOURCE", default_value = "synthetic", env = "FINSTREAM_SOURCE", help_heading = "Source")]
    pub source: String,

    /// Replay a file by its own time, X times faster, or max
    #[arg(long, value_name = "X|max", value_parser = number_or_max, conflicts_with = "rate", env = "FINSTREAM_SPEED", help_heading = "Source")]
    pub speed: Option<NumberOrMax>,

    /// Stop after N messages, drain, audit, print the summary
    #[arg(long, value_name = "N", env = "FINSTREAM_COUNT", help_heading = "Source",
          value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,

    /// Run for this long, then as after --count
    #[arg(long, value_name = "TIME", value_parser = duration, env = "FINSTREAM_DURATION", help_heading = "Source")]
    pub duration: Option<Duration>,

    /// Users of the synthetic source
    #[arg(long, value_name = "N", default_value_t = 10_000, env = "FINSTREAM_USERS", help_heading = "Source", hide_short_help = true,
          value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub users: u64,

    /// Zipf exponent of the users' activity; 0 is uniform
    #[arg(
        long,
        value_name = "S",
        default_value_t = 1.0,
        env = "FINSTREAM_ZIPF",
        help_heading = "Source",
        hide_short_help = true
    )]
    pub zipf: f64,

    /// Seed of everything random in a source
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        env = "FINSTREAM_SEED",
        help_heading = "Source",
        hide_short_help = true
    )]
    pub seed: u64,

    /// Share of refunds, each for an earlier purchase: 3% or 0.03
    #[arg(long, value_name = "SHARE", default_value = "3%", value_parser = share, env = "FINSTREAM_REFUNDS", help_heading = "Source",
          hide_short_help = true)]
    pub refunds: f64,

    /// Share of attempts that the issuer declines; they move no money
    #[arg(long, value_name = "SHARE", default_value = "2%", value_parser = share, env = "FINSTREAM_DECLINES", help_heading = "Source",
          hide_short_help = true)]
    pub declines: f64,

    /// Share of transactions that belong to fraud, labelled card_testing or impossible_travel
    #[arg(long, value_name = "SHARE", default_value = "0.1%", value_parser = share, env = "FINSTREAM_FRAUD", help_heading = "Source",
          hide_short_help = true)]
    pub fraud: f64,

    /// Share of transactions that come late: half a minute on average behind their event time
    ///
    /// Each adds to a window of before: with 1% a pipeline at full rate stores a tenth less.
    #[arg(long, value_name = "SHARE", default_value = "0.1%", value_parser = share, env = "FINSTREAM_LATE", help_heading = "Source",
          hide_short_help = true)]
    pub late: f64,

    /// Share of transactions that are sent a second time, under the same transaction id; both count
    #[arg(long, value_name = "SHARE", default_value = "0%", value_parser = share, env = "FINSTREAM_DUPLICATES", help_heading = "Source",
          hide_short_help = true)]
    pub duplicates: f64,

    /// Event times of the synthetic source by its own calendar, which begins on Monday, 2026-01-05
    ///
    /// Its users' habits follow that calendar always: where they pay depends on the hour and the weekday at their home. With
    /// this flag the event times do, too, so that weeks of business pass in minutes.
    #[arg(long = "calendar", env = "FINSTREAM_CALENDAR", help_heading = "Source", hide_short_help = true)]
    pub event_times_by_calendar: bool,

    /// At the end of a file, begin again
    #[arg(long = "loop", env = "FINSTREAM_LOOP", help_heading = "Source", hide_short_help = true)]
    pub repeat: bool,

    /// Columns of a card file, such as user=cc_num,amount=amt
    ///
    /// Fields: user, amount, time, merchant, category, id, currency, fraud. The first three are needed.
    #[arg(
        long,
        value_name = "FIELD=COLUMN,…",
        value_delimiter = ',',
        env = "FINSTREAM_MAP",
        help_heading = "Source",
        hide_short_help = true
    )]
    pub map: Vec<String>,

    /// Symbol of a file that names none [default: from the file's name]
    #[arg(long, value_name = "S", env = "FINSTREAM_SYMBOL", help_heading = "Source", hide_short_help = true)]
    pub symbol: Option<String>,

    /// Currency of a file that names none
    #[arg(
        long,
        value_name = "C",
        default_value = "USD",
        env = "FINSTREAM_CURRENCY",
        help_heading = "Source",
        hide_short_help = true
    )]
    pub currency: String,

    /// A fixed run id, for byte-identical tests
    #[arg(long, value_name = "UUID", env = "FINSTREAM_RUN_ID", help_heading = "Source", hide_short_help = true)]
    pub run_id: Option<Uuid>,

    /// Where the embedded broker listens; port 0 takes a free one
    #[arg(long, value_name = "ADDR", value_parser = address, env = "FINSTREAM_KAFKA_LISTEN", help_heading = "Broker", hide_short_help = true)]
    pub kafka_listen: Option<SocketAddr>,

    /// The address that the embedded broker tells clients [default: where it listens]
    #[arg(
        long,
        value_name = "HOST:PORT",
        value_parser = host_port,
        env = "FINSTREAM_KAFKA_ADVERTISE",
        help_heading = "Broker",
        hide_short_help = true
    )]
    pub kafka_advertise: Option<(String, u16)>,

    /// Make a topic when a client asks for one that is not there, as Apache Kafka does
    ///
    /// Such a topic has --partitions partitions. Producers ask; consumers do so only where their allow.auto.create.topics is
    /// true.
    #[arg(
        long,
        value_name = "true|false",
        hide_possible_values = true,
        default_value_t = true,
        action = clap::ArgAction::Set,
        env = "FINSTREAM_AUTO_CREATE_TOPICS",
        help_heading = "Broker",
        hide_short_help = true
    )]
    pub auto_create_topics: bool,

    /// How long a consumer group without members waits for more of them than the first
    ///
    /// Each that comes in that time prolongs it once, up to their rebalance timeout: so that an application that starts with many
    /// consumers is balanced once. Apache Kafka's group.initial.rebalance.delay.ms, which is 3s in its cluster setups.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = rebalance_delay, allow_hyphen_values = true, env = "FINSTREAM_GROUP_INITIAL_REBALANCE_DELAY", help_heading = "Broker", hide_short_help = true)]
    pub group_initial_rebalance_delay: Duration,

    /// Acknowledge after fdatasync, or a page-cache write
    #[arg(
        long,
        value_enum,
        value_name = "fsync|os",
        hide_possible_values = true,
        default_value = "fsync",
        env = "FINSTREAM_DURABILITY",
        help_heading = "Broker"
    )]
    pub durability: DurabilityArg,

    /// How long records are kept, in every topic that says nothing else
    ///
    /// Time counts from the append. Whole segments are removed (an eighth of this time, a minute at least), so records may
    /// stay for that much longer. A compacted topic (PREFIXaggregates) keeps the last record of each key for ever.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = duration, allow_hyphen_values = true, env = "FINSTREAM_RETENTION", help_heading = "Broker", hide_short_help = true)]
    pub retention: Duration,

    /// How much of the log of transactions is kept, all of its partitions together
    ///
    /// Each partition of any topic keeps this divided by --partitions, unless the topic sets retention.bytes itself: another
    /// topic with as many partitions keeps as much again. Whole segments are removed (an eighth of a partition's share, 1
    /// to 128 MiB), so each partition may hold one more. Compacted topics (PREFIXaggregates), the broker's journal and
    /// PostgreSQL are not bounded by it.
    #[arg(
        long,
        value_name = "SIZE",
        default_value = "10GiB",
        value_parser = size,
        allow_hyphen_values = true,
        env = "FINSTREAM_RETENTION_BYTES",
        help_heading = "Broker",
        hide_short_help = true
    )]
    pub retention_bytes: ByteSize,

    /// Let readers into the private PostgreSQL, such as Grafana in a container
    ///
    /// The role finstream_reader may look at the totals and change nothing; its password is in the file
    /// postgres-reader-password of the data directory.
    #[arg(long, value_name = "ADDR", env = "FINSTREAM_PG_LISTEN", help_heading = "Consumer", hide_short_help = true,
          value_parser = address, conflicts_with = "database_url")]
    pub pg_listen: Option<SocketAddr>,

    /// Allow addresses other than loopback; there is no authentication
    #[arg(long, env = "FINSTREAM_INSECURE_LISTEN", help_heading = "Broker", hide_short_help = true)]
    pub insecure_listen: bool,

    /// Messages in a micro-batch, at most
    ///
    /// While PostgreSQL is busy with one, the next one grows: under load they are as large as this, when idle as small as one.
    #[arg(long, value_name = "N", default_value_t = 50_000, env = "FINSTREAM_BATCH_MAX", help_heading = "Consumer", hide_short_help = true,
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub batch_max: u32,

    /// Longest wait of a message for its batch to fill while PostgreSQL has nothing to do
    ///
    /// Some milliseconds make fewer and larger transactions at low rates, at the price of that latency.
    #[arg(long, value_name = "TIME", default_value = "1ms", value_parser = batch_wait, env = "FINSTREAM_BATCH_WAIT", help_heading = "Consumer", hide_short_help = true)]
    pub batch_wait: Duration,

    /// A latency row a message, or arrays of many: a fifth of the disk, read through the same views
    ///
    /// It can be changed at any start: what is stored stays as it is, and is read along.
    #[arg(
        long,
        value_enum,
        value_name = "rows|packed",
        hide_possible_values = true,
        default_value = "rows",
        env = "FINSTREAM_LATENCY_LAYOUT",
        help_heading = "Consumer",
        hide_short_help = true
    )]
    pub latency_layout: LatencyLayoutArg,

    /// Length of the windows of event time, per merchant category and per symbol [default: what the tables have, else 1m]
    ///
    /// Set when the tables are made: windows of different lengths do not add up.
    #[arg(long, value_name = "TIME", value_parser = window, env = "FINSTREAM_WINDOW", help_heading = "Consumer", hide_short_help = true)]
    pub window: Option<Duration>,

    /// Longest wait for what is under way at the end
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration, env = "FINSTREAM_DRAIN_TIMEOUT", help_heading = "Pipeline", hide_short_help = true)]
    pub drain_timeout: Duration,

    /// Page and metrics [default: 127.0.0.1:8080, or the next free]
    #[arg(long, value_name = "ADDR", value_parser = address, env = "FINSTREAM_HTTP", help_heading = "Windows")]
    pub http: Option<SocketAddr>,

    /// Show processed transactions on stdout
    #[arg(long, env = "FINSTREAM_PRINT_TRANSACTIONS", help_heading = "Windows")]
    pub print_transactions: bool,

    /// Show changed totals on stdout
    #[arg(long, env = "FINSTREAM_PRINT_AGGREGATES", help_heading = "Windows")]
    pub print_aggregates: bool,

    /// Write the summary to a file, as JSON
    #[arg(long, value_name = "FILE", env = "FINSTREAM_SUMMARY", help_heading = "Windows")]
    pub summary: Option<PathBuf>,

    /// Write all addresses to a file, as JSON, when ready
    #[arg(long, value_name = "FILE", env = "FINSTREAM_READY_FILE", help_heading = "Windows", hide_short_help = true)]
    pub ready_file: Option<PathBuf>,
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn shared_flags_work_before_and_after_a_subcommand() {
        for line in [["finstream", "--data-dir", "x", "verify"], ["finstream", "verify", "--data-dir", "x"]] {
            let cli = Cli::try_parse_from(line).expect("both orders parse");
            assert_eq!(cli.shared.data_dir, PathBuf::from("x"));
        }
    }

    #[test]
    fn the_short_help_fits_one_screen() {
        let help = Cli::command().mut_args(|argument| argument.hide_env(true)).render_help().to_string();
        assert!(help.lines().count() <= 54, "{} lines:\n{help}", help.lines().count());
    }
}
