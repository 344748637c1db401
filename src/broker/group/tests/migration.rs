//! A data directory of the earlier form is taken along, once and whole.

use std::path::Path;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use super::super::committer::Committer;
use super::super::earlier::{GROUP_PREFIX, OFFSET_PREFIX};
use super::super::state::Group;
use super::super::terms::Phase;
use super::durability::{Life, key, open_log};

fn put(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u32(bytes.len() as u32);
    out.put_slice(bytes);
}

/// A group of one member, as the earlier version wrote it.
fn earlier_group() -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(1);
    out.put_i32(3);
    for text in ["consumer", "range", "a-1"] {
        out.put_u8(1);
        put(&mut out, text.as_bytes());
    }
    out.put_u32(1);
    put(&mut out, b"a-1");
    out.put_u8(0);
    put(&mut out, b"a");
    put(&mut out, b"/127.0.0.1");
    out.put_u64(10_000);
    out.put_u64(60_000);
    put(&mut out, b"assigned");
    out.put_u32(2);
    for (name, metadata) in [("other", "no"), ("range", "subscribed")] {
        put(&mut out, name.as_bytes());
        put(&mut out, metadata.as_bytes());
    }
    out.freeze()
}

/// A committed offset, as the earlier version wrote it.
fn earlier_offset(offset: i64) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(1);
    out.put_i64(offset);
    out.put_i32(7);
    put(&mut out, b"about it");
    out.freeze()
}

async fn write_earlier_form(dir: &Path) {
    let (log, _) = open_log(dir).await;
    let mut entries = vec![(format!("{GROUP_PREFIX}g"), earlier_group())];
    entries.push((format!("{OFFSET_PREFIX}g\0t\00"), earlier_offset(5)));
    entries.push((format!("{OFFSET_PREFIX}alone\0t\012"), earlier_offset(6)));
    entries.push((format!("{OFFSET_PREFIX}harmed\0t\01"), Bytes::from_static(&[1, 2])));
    let entries = entries.into_iter().map(|(key, value)| (Bytes::from(key), Some(value)));
    log.put_state(entries.collect()).await.unwrap();
    log.close().await.unwrap();
}

fn check_moved(life: &Life) {
    assert_eq!((life.offset("g", 0), life.offset("alone", 12), life.offset("harmed", 1)), (Some(5), Some(6), None));
    let look = |group: &Group| {
        let member = &group.members["a-1"];
        assert_eq!((group.phase, group.generation), (Phase::Stable, 3));
        assert_eq!((&member.assignment[..], &member.metadata("range")[..]), (&b"assigned"[..], &b"subscribed"[..]));
        assert_eq!(group.offsets.get(&key(0)).unwrap().leader_epoch, 7);
        member.session_timeout
    };
    assert_eq!(life.groups.describe("g", look), Some(Duration::from_secs(10)));
    assert_eq!(life.log.state(GROUP_PREFIX.as_bytes()), []);
    let left: Vec<Bytes> = life.log.state(OFFSET_PREFIX.as_bytes()).into_iter().map(|(key, _)| key).collect();
    assert_eq!(left, [format!("{OFFSET_PREFIX}harmed\0t\01")], "what cannot be read is not thrown away");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_the_earlier_form_is_taken_along_once() {
    let dir = tempfile::tempdir().unwrap();
    write_earlier_form(dir.path()).await;
    let life = Life::begin(dir.path()).await;
    check_moved(&life);
    let end = life.partition().high_watermark();
    let life = life.again(dir.path()).await;
    check_moved(&life);
    assert_eq!(life.partition().high_watermark(), end, "the second start has nothing to move");
    // What is committed afterwards is not overtaken by what was there before.
    let offsets = vec![(key(0), life.committed(8))];
    life.groups.commit("g", Committer::new("a-1", None, 3, |_| true), offsets).await.unwrap();
    let life = life.again(dir.path()).await;
    assert_eq!(life.offset("g", 0), Some(8));
    life.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_from_the_earlier_form_that_was_cut_short_is_done_again_without_harm() {
    let dir = tempfile::tempdir().unwrap();
    write_earlier_form(dir.path()).await;
    Life::begin(dir.path()).await.end().await;
    // As if the broker had stopped between the last write to the topic and the removal of what was written.
    write_earlier_form(dir.path()).await;
    let life = Life::begin(dir.path()).await;
    check_moved(&life);
    let life = life.again(dir.path()).await;
    check_moved(&life);
    life.end().await;
}
