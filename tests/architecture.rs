//! Imports point one way. `architecture/rules.rs` has the rules; this file holds the house against them, and shows that
//! an import that is turned round is caught.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "architecture/rules.rs"]
mod rules;
#[path = "architecture/scan.rs"]
mod scan;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use rules::{BANS, ERROR_CODE_FILES, ERROR_CODE_NAMES, FILE_LINES_MAX, ROLES, ROOMS, Room};

/// The room that a module path lies in: the longest name that it starts with.
fn room_of(module: &[String]) -> Option<&'static Room> {
    let name = module.join("::");
    ROOMS
        .iter()
        .filter(|room| name == room.name || name.starts_with(&format!("{}::", room.name)))
        .max_by_key(|room| room.name.len())
}

/// `broker/log/segment.rs` -> `broker::log::segment`; `mod.rs` is its folder.
fn module_of(file: &str) -> Vec<String> {
    let mut module: Vec<String> = file.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if module.last().is_some_and(|last| last == "mod") {
        module.pop();
    }
    module
}

/// Where a path of `file` leads in the crate: `crate`, `super` and `self` resolved; in `main.rs` our own crate's name.
fn resolve(module: &[String], path: &[String]) -> Vec<String> {
    let mut at = match path[0].as_str() {
        "crate" | "finstream" => Vec::new(),
        _ => module.to_vec(),
    };
    for (place, segment) in path.iter().enumerate() {
        match segment.as_str() {
            "super" => {
                at.pop();
            }
            "crate" | "self" | "finstream" if place == 0 => {}
            "self" => {}
            name => at.push(name.to_owned()),
        }
    }
    at
}

/// What is wrong with the imports of one file; `file` is relative to `src`.
fn import_faults(file: &str, tokens: &[String]) -> Vec<String> {
    let module = module_of(file);
    let Some(room) = room_of(&module) else {
        return vec![format!(
            "{file}: no room of this name in tests/architecture/rules.rs: say there whom it may import"
        )];
    };
    let roots: &[&str] = if room.name == "main" { &["crate", "finstream"] } else { &["crate", "super"] };
    let mut faults = BTreeSet::new();
    for path in scan::paths(tokens, roots) {
        let target = resolve(&module, &path);
        match room_of(&target) {
            Some(imported) if imported.name == room.name || room.may_import.contains(&imported.name) => {}
            Some(imported) => {
                faults.insert(format!(
                    "{file}: {} must not import {} ({}): {}",
                    room.name,
                    imported.name,
                    path.join("::"),
                    room.because
                ));
            }
            None => {
                faults.insert(format!("{file}: {} leads to no room of tests/architecture/rules.rs", path.join("::")));
            }
        }
    }
    faults.into_iter().collect()
}

/// Crates and names that must stay out of the file's room.
fn name_faults(file: &str, tokens: &[String]) -> Vec<String> {
    let module = module_of(file).join("::");
    let below = |room: &str| module == room || module.starts_with(&format!("{room}::"));
    let mut faults = Vec::new();
    for ban in BANS.iter().filter(|ban| ban.rooms.iter().any(|room| below(room)) && !ban.except.contains(&file)) {
        for name in ban.names.iter().filter(|name| names(tokens, name)) {
            faults.push(format!("{file}: {name} does not belong here: {}", ban.because));
        }
    }
    if !below("broker::handlers") && !ERROR_CODE_FILES.contains(&file) {
        for name in ERROR_CODE_NAMES.iter().filter(|name| names(tokens, name)) {
            faults.push(format!("{file}: {name}: Kafka's error codes are mapped in broker/handlers only"));
        }
    }
    if tokens.windows(4).any(|window| window == [".", "unwrap", "(", ")"]) {
        faults.push(format!("{file}: .unwrap() outside of tests: return an error that says what is wrong"));
    }
    faults
}

/// Does the source name this path, written out or inside of a group?
fn names(tokens: &[String], name: &str) -> bool {
    let wanted: Vec<&str> = name.split("::").collect();
    if let [single] = wanted.as_slice() {
        return tokens.iter().any(|token| token == single);
    }
    scan::paths(tokens, &wanted[..1])
        .iter()
        .any(|path| path.len() >= wanted.len() && path.iter().zip(&wanted).all(|(a, b)| a == b))
}

fn faults(file: &str, source: &str) -> Vec<String> {
    let tokens = scan::tokens(source);
    let mut faults = Vec::new();
    // lib.rs lists the rooms; it is no room.
    if file != "lib.rs" {
        faults.extend(import_faults(file, &tokens));
        faults.extend(name_faults(file, &tokens));
    }
    let lines = source.lines().count();
    if lines > FILE_LINES_MAX {
        faults.push(format!("{file}: {lines} lines, {FILE_LINES_MAX} at most: split it at its seams"));
    }
    faults
}

fn source_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            source_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn imports_point_one_way() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    source_files(&src, &mut files);
    assert!(files.len() > 20, "only {} files below {}", files.len(), src.display());
    files.sort();
    let mut found = Vec::new();
    for path in files {
        let file = path.strip_prefix(&src).unwrap().to_str().unwrap().replace('\\', "/");
        // A file of tests only: its parent declares it behind #[cfg(test)].
        if !file.ends_with("/tests.rs") && !file.contains("/tests/") {
            found.extend(faults(&file, &fs::read_to_string(&path).unwrap()));
        }
    }
    assert!(found.is_empty(), "{} faults:\n{}", found.len(), found.join("\n"));
}

#[test]
fn the_rules_themselves_have_no_circle_and_keep_the_roles_apart() {
    for room in ROOMS {
        for imported in room.may_import {
            assert!(
                ROOMS.iter().any(|other| other.name == *imported),
                "{} may import an unknown {imported}",
                room.name
            );
        }
        let (mut seen, mut waiting) = (BTreeSet::new(), room.may_import.to_vec());
        while let Some(next) = waiting.pop() {
            // The broker's own files share one state: a circle behind one door is its own affair.
            if room.name.starts_with("broker") && next.starts_with("broker") {
                continue;
            }
            assert!(next != room.name, "{} imports itself through others", room.name);
            if seen.insert(next) {
                waiting.extend(ROOMS.iter().find(|other| other.name == next).unwrap().may_import);
            }
        }
        for role in ROLES.iter().filter(|role| ROLES.contains(&room.name) && **role != room.name) {
            assert!(
                !room.may_import.contains(role) && !seen.contains(role),
                "the role {} reaches the role {role}",
                room.name
            );
        }
    }
}

#[test]
fn every_dependency_has_its_reason_on_record() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let record = fs::read_to_string(root.join("docs/decisions/0007-dependencies.md")).unwrap();
    let section = manifest.split_once("[dependencies]\n").unwrap().1.split("\n[").next().unwrap();
    let crates: Vec<&str> = section.lines().filter_map(|line| line.split_once(" = ")).map(|(name, _)| name).collect();
    assert!(crates.len() > 20, "{crates:?}");
    for name in crates {
        assert!(
            record.contains(&format!("\n| {name} | ")),
            "docs/decisions/0007-dependencies.md has no line for {name}"
        );
    }
}

#[test]
fn an_import_that_is_turned_round_is_caught() {
    let turned = [
        (
            "broker/log/segment.rs",
            "use crate::broker::handlers::produce::answer;",
            "broker::log must not import broker::handlers",
        ),
        ("broker/log/segment.rs", "use super::super::connection::Connection;", "broker::log must not import broker"),
        (
            "broker/log/read.rs",
            "use kafka_protocol::records::RecordBatchDecoder;",
            "kafka_protocol does not belong here",
        ),
        ("broker/log/read.rs", "use tokio::{net::TcpStream, sync::watch};", "tokio::net does not belong here"),
        ("broker/group/state.rs", "fn f(peer: std::net::SocketAddr) {}", "std::net does not belong here"),
        ("broker/log/core.rs", "fn f() { std::fs::remove_file(p) }", "std::fs does not belong here"),
        (
            "broker/group/state.rs",
            "use kafka_protocol::ResponseError;",
            "error codes are mapped in broker/handlers only",
        ),
        ("broker/catalog.rs", "use kafka_protocol::error::ParseResponseErrorCode;", "error codes are mapped"),
        ("broker/server.rs", "use crate::transaction::Transaction;", "broker must not import transaction"),
        ("producer/mod.rs", "use crate::broker::log::Durability;", "producer must not import broker::log"),
        ("producer/publish.rs", "use crate::{clock::Micros, consumer::poll};", "producer must not import consumer"),
        ("consumer/mod.rs", "use crate::producer;", "consumer must not import producer"),
        ("sink/write.rs", "fn f() { crate::broker::log::Log::open() }", "sink must not import broker::log"),
        ("audit/mod.rs", "use crate::broker::{catalog::Catalog as _};", "audit must not import broker::catalog"),
        ("ledger/writer.rs", "use tokio::sync::mpsc;", "tokio does not belong here"),
        ("aggregate/mod.rs", "#[derive(sqlx::Type)] struct A;", "sqlx does not belong here"),
        ("transaction/decode.rs", "fn f(m: &rdkafka::message::BorrowedMessage<'_>) {}", "rdkafka does not belong here"),
        ("http/routes.rs", "use crate::run::start;", "http must not import run"),
        ("clock.rs", "use super::progress::Progress;", "clock must not import progress"),
        ("postgres/mod.rs", "use crate::*;", "leads to no room"),
        ("newroom/mod.rs", "", "no room of this name"),
        ("main.rs", "use finstream::producer::run;", "main must not import producer"),
        ("run.rs", "fn f() { g().unwrap() }", ".unwrap() outside of tests"),
    ];
    for (file, source, expected) in turned {
        let found = faults(file, source);
        assert!(
            found.iter().any(|fault| fault.contains(expected)),
            "{file}: {source}\nexpected: {expected}\nfound: {found:?}"
        );
    }
    let long = "\n".repeat(FILE_LINES_MAX + 1);
    assert!(faults("clock.rs", &long)[0].contains("lines"));
}

#[test]
fn what_the_rules_allow_is_not_blamed() {
    let allowed = [
        ("config.rs", "use crate::broker::log::Durability;"),
        (
            "broker/handlers/produce.rs",
            "use kafka_protocol::error::ResponseError; use crate::broker::log::Log; use super::super::frame;",
        ),
        (
            "broker/log/read.rs",
            "use super::{index::Index, segment}; use tokio::sync::watch; // crate::broker::handlers",
        ),
        (
            "ledger/writer.rs",
            "/* use tokio::fs; /* nested */ */ const A: &str = \"crate::run tokio\"; const B: char = '\"';",
        ),
        ("ledger/block.rs", "const RAW: &[u8] = br#\"sqlx \" crate::run\"#; fn f<'a>(a: &'a str) {}"),
        ("clock.rs", "#[cfg(test)]\nmod tests { use super::*; use crate::run; #[test] fn f() { g().unwrap(); } }"),
        ("clock.rs", "#[cfg(test)]\nuse crate::run::{a, b};\nstruct Clock;"),
        (
            "sink/write.rs",
            "use crate::aggregate::{Delta, self}; pub(crate) fn f() { sqlx::query(\"\").unwrap_or_default() }",
        ),
        ("main.rs", "use finstream::cli::Arguments; fn main() { finstream::run::run() }"),
    ];
    for (file, source) in allowed {
        assert_eq!(faults(file, source), Vec::<String>::new(), "{file}: {source}");
    }
}
