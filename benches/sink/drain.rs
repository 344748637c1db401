//! The four ways of a backlog into PostgreSQL, each timed and checked.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::stage::{Backlog, Stage};
use crate::support::resident_mib;
use crate::support::usage::Usage;

/// Between two looks how far our consumer is.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Longest drain.
const PATIENCE: Duration = Duration::from_secs(900);

/// What a drain came to.
pub struct Drain {
    pub rows_per_second: f64,
    /// From the start of the process until everything was stored: with joining the group.
    pub whole_s: f64,
    /// Seconds of CPU time per million rows.
    pub usage: Usage,
    pub messages: u64,
    pub resident_mib: u64,
}

/// Our consumer, as its users start it; it is stopped when PostgreSQL holds everything.
///
/// The rate counts from the first message's `received_at` to the last batch's `committed_at`.
pub fn finstream(stage: &mut Stage, backlog: Backlog, schema: &str, output: &Path) -> Drain {
    stage.drop_schema(schema);
    stage.settle();
    let before = stage.usage(None);
    let started = Instant::now();
    let prefix = backlog.topic_prefix();
    let mut command = stage.finstream(&["--role", "consumer", "--db-schema", schema, "--group", schema]);
    command.args(["--topic-prefix", &prefix]).args(&stage.flags);
    let output = std::fs::File::create(output).unwrap();
    let mut child = command.stdout(output.try_clone().unwrap()).stderr(output).spawn().unwrap();
    let stored = format!("select sum(messages)::bigint from {schema}.partition_offsets");
    while stage.number(&stored) < Some(i64::try_from(backlog.messages).unwrap()) {
        assert!(started.elapsed() < PATIENCE, "{schema}: not drained");
        assert!(child.try_wait().unwrap().is_none(), "our consumer ended");
        std::thread::sleep(LOOK_INTERVAL);
    }
    let whole_s = started.elapsed().as_secs_f64();
    let usage = stage.usage(Some(child.id())) - before;
    let resident_mib = resident_mib(child.id());
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());

    let elapsed_us = stage.number(&format!(
        "select (extract(epoch from (select max(committed_at) from {schema}.batches)
                 - (select min(received_at) from {schema}.messages)) * 1000000)::bigint"
    ));
    let drain = of(backlog.messages, elapsed_us.unwrap(), whole_s, usage, resident_mib);
    check_count(stage, schema, backlog.messages);
    drain
}

/// psql's own binary copy of the same rows into the same table with its key, and nothing else: the floor.
pub fn copy(stage: &mut Stage, backlog: Backlog, schema: &str, file: &Path) -> Drain {
    let reference = backlog.reference();
    stage.make_schema(schema, &format!("create table messages (like {reference}.messages including all)"));
    stage.settle();
    let mut psql = psql(stage, schema);
    let before = stage.usage(Some(psql.id()));
    let elapsed_s = tell(&mut psql, &format!("\\copy messages from '{}' with (format binary)", file.display()));
    let usage = stage.usage(Some(psql.id())) - before;
    let resident_mib = resident_mib(psql.id());
    end(psql);
    check_count(stage, schema, backlog.messages);
    of(backlog.messages, (elapsed_s * 1e6) as i64, elapsed_s, usage, resident_mib)
}

/// Writes the rows of a backlog into a file for [`copy`], in the order in which our consumer stored them.
pub fn export(stage: &Stage, backlog: Backlog, file: &Path) {
    let mut psql = psql(stage, &backlog.reference());
    tell(&mut psql, &format!("\\copy messages to '{}' with (format binary)", file.display()));
    end(psql);
}

/// A consumer in Python; the rate counts from its first batch's `received_at` to its last commit.
pub fn python(stage: &mut Stage, backlog: Backlog, schema: &str, interpreter: &Path, program: &str) -> Drain {
    stage.make_schema(schema, include_str!("rival.sql"));
    stage.settle();
    let before = stage.usage(None);
    let started = Instant::now();
    let options = stage.database(schema).options;
    let database = format!(
        "host={} port={} user={} dbname=postgres options='-c search_path={schema}'",
        options.get_socket().unwrap().display(),
        options.get_port(),
        options.get_username()
    );
    let mut command = Command::new(interpreter);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/sink").join(program));
    command.args(["--brokers", &stage.broker_address, "--topic", &backlog.topic(), "--database", &database]);
    command.args(["--group", schema, "--messages", &backlog.messages.to_string()]);
    // Its modules are compiled to nowhere: the sources' folder stays as it is.
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let whole_s = started.elapsed().as_secs_f64();
    let said: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{program} said {line:?}: {error}"));
    let usage = stage.usage(Some(child.id())) - before;
    let resident_mib = resident_mib(child.id());
    end(child);

    let begins = stage
        .number(&format!("select (extract(epoch from min(received_at)) * 1000000)::bigint from {schema}.messages"));
    let elapsed_us = said["ended_at_us"].as_i64().unwrap() - begins.unwrap();
    check_count(stage, schema, backlog.messages);
    let differences = stage.differences(&backlog.reference(), schema);
    assert_eq!(differences, 0, "{program}: totals that differ from ours");
    of(backlog.messages, elapsed_us, whole_s, usage, resident_mib)
}

/// A difference in any total ends the benchmark.
pub fn check_totals(stage: &mut Stage, backlog: Backlog, schema: &str) {
    let differences = stage.differences(&backlog.reference(), schema);
    assert_eq!(differences, 0, "{schema}: totals that differ from those of the first drain");
}

fn check_count(stage: &mut Stage, schema: &str, messages: u64) {
    let stored = stage.number(&format!("select count(*) from {schema}.messages"));
    assert_eq!(stored, i64::try_from(messages).ok(), "{schema}: rows of messages");
}

fn of(messages: u64, elapsed_us: i64, whole_s: f64, usage: Usage, resident_mib: u64) -> Drain {
    Drain { rows_per_second: messages as f64 / (elapsed_us as f64 / 1e6), whole_s, usage, messages, resident_mib }
}

/// psql that takes commands from us and answers each with what it echoes.
fn psql(stage: &Stage, schema: &str) -> Child {
    let mut command = stage.database(schema).psql();
    command.args(["-XqAt", "-v", "ON_ERROR_STOP=1"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    // Connected before anything is timed.
    tell(&mut child, "select 1");
    child
}

/// Gives psql a command and waits for its end; the seconds that took.
fn tell(psql: &mut Child, command: &str) -> f64 {
    let began = Instant::now();
    let stdin = psql.stdin.as_mut().unwrap();
    let terminator = if command.starts_with('\\') { "" } else { ";" };
    writeln!(stdin, "{command}{terminator}\n\\echo done").unwrap();
    let mut output = BufReader::with_capacity(1, psql.stdout.as_mut().unwrap());
    let mut line = String::new();
    while line.trim() != "done" {
        line.clear();
        assert_ne!(output.read_line(&mut line).unwrap(), 0, "psql ended: {command}");
    }
    began.elapsed().as_secs_f64()
}

/// Ends a program that waits for the end of its standard input.
fn end(mut child: Child) {
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}
