//! PostgreSQL answers, and refuses: what has to do with it is tried again, what has to do with a message is not its fate.

use std::process::{Command, Stdio};
use std::time::Duration;

use finstream::shutdown::Stage;
use finstream::sink::{Deadlines, Patience, SinkError, Worker};
use sqlx::{Connection, PgConnection};

use crate::sink_support::{Schema, message, patience, purchase, purchases};

/// What PostgreSQL may say that another attempt cures. (XX001, a damaged page, and the like are not among them.)
const CURABLE: [&str; 28] = [
    "08000", "08003", "08006", "25006", "25P03", "25P04", "28000", "28P01", "3D000", "40000", "40001", "40003",
    "40P01", "42501", "53000", "53100", "53200", "53300", "53400", "55000", "55P03", "57000", "57014", "57P01",
    "57P02", "57P03", "58000", "58030",
];

/// Raises `code` at the attempts to write a batch whose number `when` is true of. (A sequence does not roll back.)
async fn refuse_batches(schema: &Schema, code: &str, when: &str) {
    schema
        .execute(&format!(
            "create sequence if not exists attempts;
             create or replace function refuse() returns trigger language plpgsql as $$
             declare attempt bigint := nextval('attempts');
             begin
                 if {when} then raise exception 'refused' using errcode = '{code}'; end if;
                 return new;
             end $$;
             create or replace trigger refuse before insert on batches for each row execute function refuse()"
        ))
        .await;
}

async fn books(schema: &Schema) -> Vec<String> {
    schema
        .rows(
            "select (select sum(purchases) from user_totals) as purchases, (select count(*) from messages) as messages,
             (select count(*) from dead_letters) as dead_letters",
        )
        .await
}

#[tokio::test]
async fn every_refusal_that_another_attempt_cures_is_met_by_another_attempt() {
    let schema = Schema::create().await;
    let topic_ref = schema.stream(1).await;
    let mut worker = schema.worker(topic_ref, "i", &[0]).await;
    for (round, code) in (0..).zip(CURABLE) {
        // The first two attempts of each batch.
        refuse_batches(&schema, code, "attempt % 3 <> 0").await;
        let committed = worker
            .store(&purchases(0, round * 4..round * 4 + 4, "ann"), &mut patience().1)
            .await
            .unwrap_or_else(|error| {
                panic!("{code}: {error}");
            });
        assert_eq!(committed.next_offsets, [(0, round * 4 + 4)], "{code}");
    }
    let count = CURABLE.len() * 4;
    assert_eq!(books(&schema).await, [format!("{count} {count} 0")]);
    assert_eq!(schema.rows("select last_value from attempts").await, [(CURABLE.len() * 3).to_string()]);
}

#[tokio::test]
async fn a_bad_message_is_found_among_good_ones_also_when_postgresql_refuses_in_between() {
    let schema = Schema::create().await;
    let topic_ref = schema.stream(1).await;
    schema.execute("alter table messages add constraint bad check (\"offset\" not in (3, 4, 11))").await;
    refuse_batches(&schema, "53100", "attempt % 2 = 1").await;
    let mut worker = schema.worker(topic_ref, "i", &[0]).await;
    let committed = worker.store(&purchases(0, 0..16, "ann"), &mut patience().1).await.unwrap();
    assert_eq!(committed.next_offsets, [(0, 16)]);
    assert_eq!(books(&schema).await, ["13 13 3"]);
    let dead = schema.rows("select \"offset\" from dead_letters order by 1").await;
    assert_eq!(dead, ["3", "4", "11"]);
}

/// Opens a transaction that changes a row which the next batch of ann's must change, too.
async fn hold_the_total_of_ann(other: &mut PgConnection) {
    sqlx::raw_sql("begin; update user_aggregates set version = version where user_id = 'ann'")
        .execute(other)
        .await
        .unwrap();
}

/// Waits until the worker's backend waits for a lock.
async fn until_blocked(schema: &Schema, pid: i32) {
    let sql = format!("select pid from pg_stat_activity where pid = {pid} and wait_event_type = 'Lock'");
    while schema.rows(&sql).await.is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_victim_of_a_deadlock_writes_its_batch_again() {
    let schema = Schema::create().await;
    let topic_ref = schema.stream(1).await;
    let mut worker = schema.worker(topic_ref, "i", &[0]).await;
    worker.store(&purchases(0, 0..5, "ann"), &mut patience().1).await.unwrap();
    let mut other = schema.connect().await;
    // Whoever looks first is the victim.
    sqlx::raw_sql("set deadlock_timeout = '1min'").execute(&mut other).await.unwrap();
    hold_the_total_of_ann(&mut other).await;
    let pid = worker.backend().pid;
    let cross = async {
        until_blocked(&schema, pid).await;
        sqlx::raw_sql("update partition_offsets set updated_at = now(); commit").execute(&mut other).await.unwrap();
    };
    let (batch, (_trigger, mut patience)) = (purchases(0, 5..9, "ann"), patience());
    let (stored, ()) = tokio::join!(worker.store(&batch, &mut patience), cross);
    assert_eq!(stored.unwrap().next_offsets, [(0, 9)]);
    assert_ne!(worker.backend().pid, pid, "there was no deadlock");
    assert_eq!(books(&schema).await, ["9 9 0"]);
}

#[tokio::test]
async fn a_transaction_that_could_not_be_serialized_is_written_again() {
    let schema = Schema::create().await;
    let topic_ref = schema.stream(1).await;
    let mut settings = schema.worker_settings(topic_ref, "i");
    settings.database = settings.database.options([("default_transaction_isolation", "serializable")]);
    let mut worker = Worker::connect(settings, Deadlines::default()).await.unwrap();
    worker.claim(&[0], &mut patience().1).await.unwrap();
    worker.store(&purchases(0, 0..5, "ann"), &mut patience().1).await.unwrap();
    let mut other = schema.connect().await;
    hold_the_total_of_ann(&mut other).await;
    let pid = worker.backend().pid;
    let cross = async {
        until_blocked(&schema, pid).await;
        sqlx::raw_sql("commit").execute(&mut other).await.unwrap();
    };
    let (batch, (_trigger, mut patience)) = (purchases(0, 5..9, "ann"), patience());
    let (stored, ()) = tokio::join!(worker.store(&batch, &mut patience), cross);
    assert_eq!(stored.unwrap().next_offsets, [(0, 9)]);
    assert_ne!(worker.backend().pid, pid, "there was no conflict");
    assert_eq!(books(&schema).await, ["9 9 0"]);
}

/// A role that may do what a sink does, and a worker of it.
pub async fn worker_of_a_role(schema: &Schema, topic_ref: i32) -> (String, Worker) {
    let role = format!("role_{}", schema.name);
    schema
        .execute(&format!(
            "create role {role} login; grant pg_signal_backend to {role}; grant usage on schema {name} to {role};
             grant all on all tables in schema {name} to {role}; grant all on all sequences in schema {name} to {role}",
            name = schema.name
        ))
        .await;
    let mut settings = schema.worker_settings(topic_ref, "i");
    settings.database = settings.database.username(&role);
    let mut worker = Worker::connect(settings, Deadlines::default()).await.unwrap();
    worker.claim(&[0], &mut patience().1).await.unwrap();
    (role, worker)
}

#[tokio::test]
async fn a_server_without_a_free_connection_is_waited_for() {
    let schema = Schema::create().await;
    let topic_ref = schema.stream(1).await;
    let (role, mut worker) = worker_of_a_role(&schema, topic_ref).await;
    let other = PgConnection::connect_with(&schema.options.clone().username(&role)).await.unwrap();
    schema.execute(&format!("alter role {role} connection limit 1")).await;
    schema.execute(&format!("select pg_terminate_backend({}, 5000)", worker.backend().pid)).await;
    let (trigger, shutdown) = finstream::shutdown::channel();
    trigger.raise(Stage::Drain);
    // Long enough to try and be refused.
    let mut short = Patience::new(shutdown, Duration::from_millis(500));
    let stored = worker.store(&purchases(0, 0..5, "ann"), &mut short).await;
    let Err(SinkError::GaveUp { messages: 5, last }) = stored else { panic!("{stored:?}") };
    assert_eq!(last.as_database_error().and_then(|error| error.code()).as_deref(), Some("53300"));
    other.close().await.unwrap();
    let committed = worker.store(&purchases(0, 0..5, "ann"), &mut patience().1).await.unwrap();
    assert_eq!(committed.next_offsets, [(0, 5)]);
    assert_eq!(books(&schema).await, ["5 5 0"]);
}

#[tokio::test]
async fn a_server_that_is_read_only_is_waited_for_also_when_connecting_anew() {
    let schema = Schema::create().await;
    let topic_ref = schema.stream(1).await;
    let (role, mut worker) = worker_of_a_role(&schema, topic_ref).await;
    let first = worker.backend().pid;
    schema.execute(&format!("alter role {role} set default_transaction_read_only = on")).await;
    schema.execute(&format!("select pg_terminate_backend({first}, 5000)")).await;
    let sql = format!("select pid from pg_stat_activity where usename = '{role}' and pid <> {first}");
    let repair = async {
        // It is back, in a session that may not write.
        while schema.rows(&sql).await.is_empty() {
            tokio::task::yield_now().await;
        }
        schema.execute(&format!("alter role {role} reset default_transaction_read_only")).await;
    };
    let (batch, (_trigger, mut patience)) = (purchases(0, 0..5, "ann"), patience());
    let (stored, ()) = tokio::join!(worker.store(&batch, &mut patience), repair);
    assert_eq!(stored.unwrap().next_offsets, [(0, 5)]);
    assert_eq!(books(&schema).await, ["5 5 0"]);
}

/// A tablespace of 8 MiB.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// None where this user may not mount.
    fn mount() -> Option<SmallDisk> {
        let directory = tempfile::Builder::new().prefix("finstream-test-").tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=8m,mode=700,uid=postgres", "tmpfs"]).arg(directory.path());
        let is_mounted = mount.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
        is_mounted.then_some(SmallDisk(directory))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_disk_that_is_full_is_waited_for_and_makes_no_dead_letters() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("skipped: this user may not mount a tmpfs");
        return;
    };
    let schema = Schema::create().await;
    let topic_ref = schema.stream(1).await;
    let space = format!("space_{}", schema.name);
    // Neither may be created in a transaction with other statements.
    schema.execute(&format!("create tablespace {space} location '{}'", disk.0.path().display())).await;
    schema.execute(&format!("alter table messages set tablespace {space}")).await;
    let mut worker = schema.worker(topic_ref, "i", &[0]).await;
    worker.store(&purchases(0, 0..100, "ann"), &mut patience().1).await.unwrap();
    let neighbour = disk.0.path().join("neighbour");
    std::fs::write(&neighbour, vec![1; 64 << 20]).expect_err("the disk takes more than it has");
    let first = worker.backend().pid;
    let sql = format!("select owner_pid from partition_offsets where owner_pid <> {first} and topic_ref = {topic_ref}");
    let repair = async {
        // Another backend is registered: the refused one is given up.
        while schema.rows(&sql).await.is_empty() {
            tokio::task::yield_now().await;
        }
        std::fs::remove_file(&neighbour).unwrap();
    };
    // More than the pages that are there have room for.
    let mut batch = purchases(0, 100..2_000, "ann");
    batch.push_transaction(message(0, 2_000), &purchase("bob", 100));
    let (_trigger, mut patience) = patience();
    let (stored, ()) = tokio::join!(worker.store(&batch, &mut patience), repair);
    assert_eq!(stored.unwrap().next_offsets, [(0, 2_001)]);
    assert_eq!(books(&schema).await, ["2001 2001 0"]);
    // Before its disk is gone.
    schema.execute("drop table messages cascade").await;
    schema.execute(&format!("drop tablespace {space}")).await;
}
