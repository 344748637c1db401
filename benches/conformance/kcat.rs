//! kcat, as people use it: list, produce, consume, query, and groups.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process;
use crate::report::{Outcome, Row};

const LIMIT: Duration = Duration::from_secs(60);
const MESSAGES: usize = 1000;

struct Kcat<'a> {
    address: &'a str,
    dir: PathBuf,
}

type Check = fn(&Kcat<'_>) -> Result<(), String>;

const CHECKS: &[(&str, Check)] = &[
    ("kcat -L", lists_brokers_and_topics),
    ("kcat -P, -C", consumes_what_it_produced),
    ("kcat -P -z gzip, snappy, lz4, zstd", takes_every_codec),
    ("kcat -P -H, null values and keys", carries_headers_and_nulls),
    ("kcat -C -o -10, -o s@TIME", begins_where_it_is_told),
    ("kcat -Q", answers_queries_for_offsets),
    ("kcat -G", goes_on_where_its_group_was),
];

/// All checks; skipped where there is no kcat.
pub fn run(address: &str, dir: &Path) -> Vec<Row> {
    if Command::new("kcat").arg("-V").output().is_err() {
        let row = Row::with("kcat", Outcome::Skipped("is not installed (Debian: apt-get install kcat)".to_string()));
        row.tell();
        return vec![row];
    }
    let kcat = Kcat { address, dir: dir.to_owned() };
    let row = |(name, check): &(&str, Check)| {
        let began = std::time::Instant::now();
        let outcome = match check(&kcat) {
            Ok(()) => Outcome::Passed(Some(began.elapsed().as_secs_f64())),
            Err(why) => Outcome::Failed(why),
        };
        let row = Row::with(name, outcome);
        row.tell();
        row
    };
    CHECKS.iter().map(row).collect()
}

impl Kcat<'_> {
    /// What kcat printed as data; an error, with all that it said, where it did not end well.
    fn call(&self, arguments: &[&str], input: &str) -> Result<String, String> {
        let [given, data, log] = ["kcat.in", "kcat.out", "kcat.log"].map(|name| self.dir.join(name));
        std::fs::write(&given, input).unwrap();
        let mut command = Command::new("kcat");
        command.args(["-q", "-b", self.address]).args(arguments).stdin(File::open(&given).unwrap());
        command.stdout(File::create(&data).unwrap()).stderr(File::create(&log).unwrap());
        let ended = process::wait(&mut command, LIMIT);
        let [data, log] = [data, log].map(|file| String::from_utf8_lossy(&std::fs::read(file).unwrap()).into_owned());
        match ended.is_success() {
            true => Ok(data),
            false => Err(format!("kcat {}: {}: {data}{}", arguments.join(" "), ended.describe(), log.trim())),
        }
    }

    fn produce(&self, topic: &str, arguments: &[&str], lines: &str) -> Result<(), String> {
        self.call(&[&["-P", "-t", topic], arguments].concat(), lines).map(drop)
    }

    fn consume(&self, topic: &str, arguments: &[&str]) -> Result<String, String> {
        self.call(&[&["-C", "-e", "-t", topic], arguments].concat(), "")
    }
}

fn lines(name: &str) -> String {
    (0..MESSAGES).map(|number| format!("key-{number}:{name}-{number}\n")).collect()
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

fn same(what: &str, seen: &str, expected: &str) -> Result<(), String> {
    let (seen, expected) = (sorted(seen), sorted(expected));
    if seen == expected {
        return Ok(());
    }
    let first = seen.iter().zip(&expected).find(|(seen, expected)| seen != expected);
    Err(format!("{what}: {} lines came instead of {}; the first that differs: {first:?}", seen.len(), expected.len()))
}

fn contains(text: &str, part: &str) -> Result<(), String> {
    if text.contains(part) { Ok(()) } else { Err(format!("{part:?} is not in {text:?}")) }
}

fn lists_brokers_and_topics(kcat: &Kcat<'_>) -> Result<(), String> {
    kcat.produce("kcat-list", &["-p", "0"], "one\n")?;
    let all = kcat.call(&["-L"], "")?;
    contains(&all, "1 brokers:")?;
    contains(&all, kcat.address)?;
    contains(&all, "topic \"kcat-list\" with")?;
    let json = kcat.call(&["-L", "-J", "-t", "kcat-list"], "")?;
    let json: serde_json::Value = serde_json::from_str(&json).map_err(|error| format!("{error}: {json}"))?;
    let partitions = json["topics"][0]["partitions"].as_array().map_or(0, Vec::len);
    if partitions > 0 { Ok(()) } else { Err(format!("no partitions in {json}")) }
}

fn consumes_what_it_produced(kcat: &Kcat<'_>) -> Result<(), String> {
    let lines = lines("plain");
    kcat.produce("kcat-plain", &["-K:"], &lines)?;
    same("-C", &kcat.consume("kcat-plain", &["-K:", "-o", "beginning"])?, &lines)?;
    // One partition keeps the order of what it was given.
    kcat.produce("kcat-order", &["-p", "1", "-K:"], &lines)?;
    let seen = kcat.consume("kcat-order", &["-p", "1", "-K:", "-o", "beginning"])?;
    if seen == lines { Ok(()) } else { Err("one partition's messages came in another order".to_string()) }
}

fn takes_every_codec(kcat: &Kcat<'_>) -> Result<(), String> {
    for codec in ["gzip", "snappy", "lz4", "zstd"] {
        let (topic, lines) = (format!("kcat-{codec}"), lines(codec));
        kcat.produce(&topic, &["-K:", "-z", codec], &lines)?;
        same(codec, &kcat.consume(&topic, &["-K:", "-o", "beginning"])?, &lines)?;
    }
    Ok(())
}

fn carries_headers_and_nulls(kcat: &Kcat<'_>) -> Result<(), String> {
    let topic = "kcat-headers";
    kcat.produce(topic, &["-p", "0", "-H", "colour=blue", "-H", "empty=", "-K:", "-Z"], "a:1\nb:\n")?;
    let seen = kcat.consume(topic, &["-p", "0", "-o", "beginning", "-f", "%k %S %h\n"])?;
    same("-f", &seen, "a 1 colour=blue,empty=\nb -1 colour=blue,empty=\n")
}

fn begins_where_it_is_told(kcat: &Kcat<'_>) -> Result<(), String> {
    let topic = "kcat-begin";
    kcat.produce(topic, &["-p", "0"], &(0..100).map(|number| format!("{number}\n")).collect::<String>())?;
    let last = kcat.consume(topic, &["-p", "0", "-o", "-10"])?;
    same("-o -10", &last, &(90..100).map(|number| format!("{number}\n")).collect::<String>())?;
    let all = kcat.consume(topic, &["-p", "0", "-o", "s@1"])?;
    if all.lines().count() == 100 { Ok(()) } else { Err(format!("-o s@1 gave {} lines", all.lines().count())) }
}

fn answers_queries_for_offsets(kcat: &Kcat<'_>) -> Result<(), String> {
    kcat.produce("kcat-query", &["-p", "0"], "one\ntwo\nthree\n")?;
    for (asked, expected) in [("-2", "kcat-query [0] offset 0"), ("-1", "kcat-query [0] offset 3"), ("1", "offset 0")] {
        contains(&kcat.call(&["-Q", "-t", &format!("kcat-query:0:{asked}")], "")?, expected)?;
    }
    Ok(())
}

fn goes_on_where_its_group_was(kcat: &Kcat<'_>) -> Result<(), String> {
    let (first, second) = (lines("first"), lines("second"));
    let group = || {
        let settings = ["-X", "auto.offset.reset=earliest", "-X", "session.timeout.ms=6000"];
        kcat.call(&[&["-K:", "-e"], &settings[..], &["-G", "kcat-group", "kcat-group-1", "kcat-group-2"]].concat(), "")
    };
    for topic in ["kcat-group-1", "kcat-group-2"] {
        kcat.produce(topic, &["-K:"], &first)?;
    }
    same("-G", &group()?, &format!("{first}{first}"))?;
    kcat.produce("kcat-group-1", &["-K:"], &second)?;
    same("-G again", &group()?, &second)
}
