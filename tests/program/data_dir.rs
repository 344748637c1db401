//! The data directory: who may use it, and who uses what.
use std::fs;
use std::os::unix::fs::PermissionsExt;

use finstream::data_dir::{DataDir, DataDirError, FORMAT_VERSION};
use serde_json::json;

#[test]
fn a_new_directory_is_private_and_keeps_its_identity() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("a").join("b");
    let first = DataDir::open(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    let again = DataDir::open(&path).unwrap();
    assert_eq!(first.id(), again.id());
    assert_eq!(again.format().unwrap().postgresql_major, None);
    again.record_postgresql_major(15).unwrap();
    assert_eq!(first.format().unwrap().postgresql_major, Some(15));
}

#[test]
fn an_older_directory_is_taken_along_and_says_so() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("data");
    let made = DataDir::open(&path).unwrap();
    let file = path.join("FORMAT");
    let mut format: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(format["format"], FORMAT_VERSION);
    format["format"] = json!(1);
    format["finstream"] = json!("0.0.1");
    fs::write(&file, format.to_string()).unwrap();
    let again = DataDir::open(&path).unwrap();
    // Whoever only looks changes nothing.
    assert_eq!(again.format().unwrap().format, 1);
    again.raise_format().unwrap();
    let raised = again.format().unwrap();
    assert_eq!((raised.format, raised.id), (FORMAT_VERSION, made.id()));
    assert_eq!(raised.finstream, env!("CARGO_PKG_VERSION"));
}

#[test]
fn many_processes_that_create_it_at_once_agree_on_one_identity() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("data");
    let ids: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| DataDir::open(&path).unwrap().id())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]));
}

#[test]
fn a_long_path_works() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("x".repeat(120)).join("y".repeat(60));
    let data = DataDir::open(&path).unwrap();
    let lock = data.lock("broker").unwrap();
    data.publish_endpoint(&lock, &json!({"port": 1})).unwrap();
    assert!(data.endpoint("broker").is_some());
}

#[test]
fn a_directory_of_something_else_is_refused() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("thesis.tex"), "x").unwrap();
    let error = DataDir::open(home.path()).unwrap_err();
    assert!(matches!(error, DataDirError::Foreign(_)));
    assert!(error.to_string().contains("--data-dir"), "{error}");
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
}

#[test]
fn a_file_is_not_a_data_directory() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("notes"), "x").unwrap();
    let error = DataDir::open(home.path().join("notes")).unwrap_err().to_string();
    assert!(error.contains("is not a directory; name a directory with --data-dir"), "{error}");
}

#[test]
fn a_newer_format_is_refused_with_the_cure() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("FORMAT"), r#"{"format": 99, "finstream": "9.1.0", "shape": "unknown"}"#).unwrap();
    let error = DataDir::open(home.path()).unwrap_err().to_string();
    assert!(error.contains("use finstream 9.1.0 or newer"), "{error}");
}

#[test]
fn garbage_in_format_is_refused_and_left_alone() {
    for garbage in ["", "{", "[]", r#"{"format": -1}"#, r#"{"format": 1}"#, "\u{0}\u{1}"] {
        let home = tempfile::tempdir().unwrap();
        let format = home.path().join("FORMAT");
        fs::write(&format, garbage).unwrap();
        let error = DataDir::open(home.path()).unwrap_err();
        assert!(matches!(error, DataDirError::Garbage { .. }), "{garbage:?}: {error}");
        assert_eq!(fs::read_to_string(&format).unwrap(), garbage);
    }
}

#[test]
fn a_service_has_one_holder_and_the_second_is_told_who() {
    let home = tempfile::tempdir().unwrap();
    let data = DataDir::open(home.path().join("data")).unwrap();
    let held = data.lock("broker").unwrap();
    let error = data.lock("broker").unwrap_err();
    let DataDirError::Busy(busy) = &error else { panic!("{error}") };
    assert_eq!(busy.pid, Some(std::process::id()));
    assert!(error.to_string().contains("already runs the broker"), "{error}");
    data.lock("ledger-1").unwrap();
    drop(held);
    data.lock("broker").unwrap();
}

#[test]
fn an_endpoint_is_void_when_its_lock_is_free() {
    let home = tempfile::tempdir().unwrap();
    let data = DataDir::open(home.path().join("data")).unwrap();
    assert_eq!(data.endpoint("broker"), None);
    let lock = data.lock("broker").unwrap();
    assert_eq!(data.endpoint("broker"), None);
    data.publish_endpoint(&lock, &json!({"address": "127.0.0.1:9092"})).unwrap();
    assert_eq!(data.endpoint("broker"), Some(json!({"address": "127.0.0.1:9092"})));
    drop(lock);
    assert_eq!(data.endpoint("broker"), None);
    assert_eq!(data.last_endpoint("broker"), Some(json!({"address": "127.0.0.1:9092"})));

    // As a crash leaves it: the file is there, the lock is not.
    fs::write(data.path().join("endpoints").join("broker.json"), r#"{"address":"127.0.0.1:1"}"#).unwrap();
    assert_eq!(data.endpoint("broker"), None);
    let _next = data.lock("broker").unwrap();
    assert_eq!(data.endpoint("broker"), None, "the next holder has not published yet");
    assert_eq!(data.last_endpoint("broker"), Some(json!({"address": "127.0.0.1:1"})));
}

#[test]
fn a_question_about_an_endpoint_never_makes_a_service_busy() {
    let home = tempfile::tempdir().unwrap();
    let data = DataDir::open(home.path().join("data")).unwrap();
    fs::write(data.path().join("endpoints").join("broker.json"), "{}").unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                data.endpoint("broker");
            }
        });
        for _ in 0..200 {
            data.lock("broker").unwrap();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn consumers_take_the_first_free_slot_and_find_it_again() {
    let home = tempfile::tempdir().unwrap();
    let data = DataDir::open(home.path().join("data")).unwrap();
    let first = data.instance_slot().unwrap();
    let second = data.instance_slot().unwrap();
    assert_eq!((first.slot, second.slot), (0, 1));
    assert_ne!(first.group_instance_id, second.group_instance_id);
    let id = first.group_instance_id.clone();
    drop(first);
    assert_eq!(data.instance_slot().unwrap().group_instance_id, id);
    let other = DataDir::open(home.path().join("other")).unwrap();
    assert_ne!(other.instance_slot().unwrap().group_instance_id, id);
}

#[test]
fn users_share_a_service_and_the_last_one_notices() {
    let home = tempfile::tempdir().unwrap();
    let data = DataDir::open(home.path().join("data")).unwrap();
    let one = data.shared_lock("postgres").unwrap();
    let two = data.try_shared_lock("postgres").unwrap().unwrap();
    assert!(data.lock("postgres").is_err());
    drop(one);
    assert!(data.lock("postgres").is_err());
    drop(two);
    let alone = data.lock("postgres").unwrap();
    assert!(data.try_shared_lock("postgres").unwrap().is_none());
    drop(alone);
}

#[test]
fn the_disk_is_measured() {
    let home = tempfile::tempdir().unwrap();
    let space = DataDir::open(home.path().join("data")).unwrap().disk_space().unwrap();
    assert!(space.total_bytes > 0 && space.used_bytes + space.free_bytes <= space.total_bytes);
}
