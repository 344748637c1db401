//! The private PostgreSQL and the schema, with real servers.
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use finstream::data_dir::DataDir;
use finstream::postgres::{Database, Missing, OutputFormat, PgSettings, PrivateCluster, write_query};
use finstream::shutdown;
use rustix::process::{Pid, Signal, kill_process};
use sqlx::Connection;

/// A data directory that the user `postgres` can get to when the tests run as root.
fn data_dir() -> (tempfile::TempDir, DataDir) {
    let home = tempfile::tempdir().unwrap();
    fs::set_permissions(home.path(), Permissions::from_mode(0o711)).unwrap();
    let data = DataDir::open(home.path().join("data")).unwrap();
    (home, data)
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn postmaster(cluster: &PrivateCluster) -> Pid {
    let text = fs::read_to_string(cluster.cluster_path().join("postmaster.pid")).unwrap();
    Pid::from_raw(text.lines().next().unwrap().parse().unwrap()).unwrap()
}

async fn scalar(database: &Database, sql: &'static str) -> String {
    let mut connection = database.connect().await.unwrap();
    let (text,): (String,) = sqlx::query_as(sql).fetch_one(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    text
}

#[tokio::test]
async fn a_new_data_directory_gets_a_durable_cluster_with_the_schema_and_leaves_nothing_behind() {
    let (_home, data) = data_dir();
    let begun = Instant::now();
    let cluster = PrivateCluster::ensure(&data, PgSettings::from_environment()).await.unwrap();
    let up = begun.elapsed();
    let database = cluster.database("finstream").unwrap();
    database.prepare().await.unwrap();
    eprintln!("initdb and start {up:?}, with migrations {:?}", begun.elapsed());
    for (setting, value) in
        [("fsync", "on"), ("synchronous_commit", "on"), ("listen_addresses", ""), ("search_path", "finstream")]
    {
        let sql = sqlx::query_as::<_, (String,)>("select current_setting($1)").bind(setting);
        let mut connection = database.connect().await.unwrap();
        assert_eq!(sql.fetch_one(&mut connection).await.unwrap().0, value, "{setting}");
    }
    assert_eq!(data.format().unwrap().postgresql_major, Some(cluster.major()));
    let (pid, sockets) = (postmaster(&cluster), cluster.socket_dir().to_owned());
    assert_eq!(fs::metadata(&sockets).unwrap().permissions().mode() & 0o777, 0o700);
    // Not in our session: Ctrl-C must not reach it.
    assert_ne!(rustix::process::getsid(Some(pid)).unwrap(), rustix::process::getsid(None).unwrap());
    let begun = Instant::now();
    assert!(cluster.leave().await.unwrap());
    eprintln!("stopped after {:?}", begun.elapsed());
    assert!(!cluster.cluster_path().join("postmaster.pid").exists(), "{pid:?} stopped cleanly");
    assert!(!sockets.exists());

    let begun = Instant::now();
    let cluster = PrivateCluster::ensure(&data, PgSettings::from_environment()).await.unwrap();
    cluster.database("finstream").unwrap().prepare().await.unwrap();
    eprintln!("start of an old one with migrations {:?}", begun.elapsed());
    let begun = Instant::now();
    cluster.leave().await.unwrap();
    PrivateCluster::destroy(&data).await.unwrap();
    eprintln!("stopped and removed after {:?}", begun.elapsed());
    assert!(!data.path().join("postgres").exists());
}

#[tokio::test]
async fn the_server_stays_until_the_last_user_leaves() {
    let (_home, data) = data_dir();
    let settings = PgSettings::from_environment();
    let (one, two) =
        tokio::join!(PrivateCluster::ensure(&data, settings.clone()), PrivateCluster::ensure(&data, settings));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(postmaster(&one), postmaster(&two));
    assert!(!one.leave().await.unwrap());
    two.database("finstream").unwrap().connect().await.unwrap();
    assert!(two.leave().await.unwrap());
}

#[tokio::test]
async fn a_server_left_behind_by_a_crash_is_used_again() {
    let (_home, data) = data_dir();
    let crashed = PrivateCluster::ensure(&data, PgSettings::from_environment()).await.unwrap();
    let pid = postmaster(&crashed);
    drop(crashed);
    let begun = Instant::now();
    let next = PrivateCluster::ensure(&data, PgSettings::from_environment()).await.unwrap();
    eprintln!("joined a running one after {:?}", begun.elapsed());
    assert_eq!(postmaster(&next), pid);
    assert!(next.leave().await.unwrap());
}

#[tokio::test]
async fn a_killed_server_is_started_again_by_whoever_notices() {
    let (_home, data) = data_dir();
    let cluster = std::sync::Arc::new(PrivateCluster::ensure(&data, PgSettings::from_environment()).await.unwrap());
    let database = cluster.database("finstream").unwrap();
    database.prepare().await.unwrap();
    let (trigger, shutdown) = shutdown::channel();
    let (events, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let watcher = tokio::spawn({
        let cluster = cluster.clone();
        async move { cluster.watch(shutdown, |line| events.send(line).unwrap()).await }
    });
    for round in 0..5 {
        // A session at work keeps the old shared memory for a while.
        let mut busy = database.connect().await.unwrap();
        let busy = tokio::spawn(async move { sqlx::query("select pg_sleep(30)").execute(&mut busy).await.map(|_| ()) });
        let begun = Instant::now();
        kill_process(postmaster(&cluster), Signal::KILL).unwrap();
        let line = seen.recv().await.unwrap();
        assert!(line.contains("started again"), "{line}");
        database.prepare().await.unwrap();
        eprintln!("round {round}: usable again after {:?}", begun.elapsed());
        assert!(busy.await.unwrap().is_err());
    }
    // Leaving while the watcher still looks: it must not bring the server back.
    assert!(cluster.leave().await.unwrap());
    assert!(!cluster.restart_if_down().await.unwrap());
    trigger.raise(shutdown::Stage::Now);
    watcher.await.unwrap();
    assert!(!cluster.cluster_path().join("postmaster.pid").exists());
}

#[tokio::test]
async fn a_stale_pid_file_and_a_half_made_cluster_are_no_obstacle() {
    let (_home, data) = data_dir();
    let unfinished = data.path().join("postgres.new");
    fs::create_dir(&unfinished).unwrap();
    fs::write(unfinished.join("PG_VERSION"), "15\n").unwrap();
    let cluster = PrivateCluster::ensure(&data, PgSettings::from_environment()).await.unwrap();
    let path = cluster.cluster_path().to_owned();
    assert!(cluster.leave().await.unwrap());
    // As after a reboot: the pid now belongs to another process, here this very test.
    fs::write(path.join("postmaster.pid"), format!("{}\n{}\n", std::process::id(), path.display())).unwrap();
    let cluster = PrivateCluster::ensure(&data, PgSettings::from_environment()).await.unwrap();
    assert!(cluster.leave().await.unwrap());
}

#[tokio::test]
async fn a_path_of_two_hundred_odd_characters_works() {
    let (home, _) = data_dir();
    let odd = home.path().join("x".repeat(100)).join("it's $HOME `a` \"b\" c ").join("y".repeat(80));
    let data = DataDir::open(odd).unwrap();
    for ancestor in data.path().ancestors().take_while(|path| *path != home.path()) {
        fs::set_permissions(ancestor, Permissions::from_mode(0o711)).unwrap();
    }
    let cluster = PrivateCluster::ensure(&data, PgSettings::from_environment()).await.unwrap();
    assert!(cluster.cluster_path().starts_with(data.path()));
    cluster.database("finstream").unwrap().prepare().await.unwrap();
    assert!(cluster.leave().await.unwrap());
}

#[tokio::test]
async fn where_roots_server_cannot_go_the_cluster_lives_elsewhere_and_is_found_again() {
    if !is_root() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    fs::set_permissions(home.path(), Permissions::from_mode(0o700)).unwrap();
    let data = DataDir::open(home.path().join("data")).unwrap();
    let cluster = PrivateCluster::ensure(&data, PgSettings::from_environment()).await.unwrap();
    let path = cluster.cluster_path().to_owned();
    assert!(path.starts_with("/var/lib/finstream"), "{}", path.display());
    assert!(cluster.leave().await.unwrap());
    let cluster = PrivateCluster::ensure(&data, PgSettings::from_environment()).await.unwrap();
    assert_eq!(cluster.cluster_path(), path);
    cluster.leave().await.unwrap();
    PrivateCluster::destroy(&data).await.unwrap();
    assert!(!path.parent().unwrap().exists());
}

#[tokio::test]
async fn a_cluster_of_another_major_version_is_refused_with_the_cure() {
    let (_home, data) = data_dir();
    let cluster = PrivateCluster::ensure(&data, PgSettings::from_environment()).await.unwrap();
    let version = cluster.cluster_path().join("PG_VERSION");
    assert!(cluster.leave().await.unwrap());
    fs::write(version, "11\n").unwrap();
    let error = PrivateCluster::ensure(&data, PgSettings::from_environment()).await.unwrap_err().to_string();
    assert!(error.contains("made by PostgreSQL 11") && error.contains("--pg-bin"), "{error}");
}

#[tokio::test]
async fn a_server_that_cannot_start_says_why() {
    let (_home, data) = data_dir();
    let cluster = PrivateCluster::ensure(&data, PgSettings::from_environment()).await.unwrap();
    let settings = cluster.cluster_path().join("postgresql.auto.conf");
    assert!(cluster.leave().await.unwrap());
    fs::write(settings, "no_such_setting = 1\n").unwrap();
    let error = PrivateCluster::ensure(&data, PgSettings::from_environment()).await.unwrap_err().to_string();
    assert!(error.contains("no_such_setting"), "{error}");
}

#[tokio::test]
async fn processes_that_start_at_once_migrate_once() {
    let (_home, data) = data_dir();
    let cluster = PrivateCluster::ensure(&data, PgSettings::from_environment()).await.unwrap();
    let database = cluster.database("books").unwrap();
    let (a, b, c) = tokio::join!(database.prepare(), database.prepare(), database.prepare());
    a.and(b).and(c).unwrap();
    let migrations = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations")).unwrap().count();
    let applied = scalar(&database, "select count(*)::text from refinery_schema_history").await;
    assert_eq!(applied, migrations.to_string());
    assert_eq!(scalar(&database, "select schemaname::text from pg_tables where tablename = 'messages'").await, "books");

    let mut connection = database.connect().await.unwrap();
    sqlx::query("insert into refinery_schema_history values (99, 'later', '2030-01-01T00:00:00Z', '1')")
        .execute(&mut connection)
        .await
        .unwrap();
    let error = database.prepare().await.unwrap_err().to_string();
    assert!(error.contains("version 99 by a newer finstream"), "{error}");
    sqlx::query("update refinery_schema_history set version = 1, checksum = '7' where version = 1; ")
        .execute(&mut connection)
        .await
        .unwrap();
    sqlx::query("delete from refinery_schema_history where version = 99").execute(&mut connection).await.unwrap();
    let error = database.prepare().await.unwrap_err().to_string();
    assert!(error.contains("another build of finstream"), "{error}");
    drop(connection);
    assert!(cluster.leave().await.unwrap());
}

#[tokio::test]
async fn an_unreachable_database_is_named_within_the_patience() {
    let database = Database::external("postgres://ann:secret@127.0.0.1:1/books", "finstream").unwrap();
    let error = database.prepare_within(Duration::from_millis(300), Missing::Create).await.unwrap_err().to_string();
    assert!(error.contains("ann@127.0.0.1:1/books") && !error.contains("secret"), "{error}");
}

#[tokio::test]
async fn queries_are_answered_as_a_table_and_as_json_with_all_digits() {
    let (_home, data) = data_dir();
    let cluster = PrivateCluster::ensure(&data, PgSettings::from_environment()).await.unwrap();
    let database = cluster.database("finstream").unwrap();
    database.prepare().await.unwrap();
    let sql = "select 'ann' as user_id, 123456789012345678901.50::numeric as spend, null as nothing, true as yes, now() > '2020-01-01' as late
               union all select 'b', 1, 'x', false, null order by user_id";
    let mut table = Vec::new();
    assert_eq!(write_query(&database, sql, OutputFormat::Table, &mut table).await.unwrap(), 2);
    let table = String::from_utf8(table).unwrap();
    let wanted = [
        " user_id |          spend           | nothing | yes | late",
        "---------+--------------------------+---------+-----+------",
        " ann     | 123456789012345678901.50 |         | t   | t",
        " b       |                        1 | x       | f   |",
        "(2 rows)",
    ];
    assert_eq!(table.lines().collect::<Vec<_>>(), wanted);
    let mut json = Vec::new();
    write_query(&database, sql, OutputFormat::Json, &mut json).await.unwrap();
    let json = String::from_utf8(json).unwrap();
    let wanted = r#"{"user_id":"ann","spend":123456789012345678901.50,"nothing":null,"yes":true,"late":true}"#;
    assert_eq!(json.lines().next().unwrap(), wanted);
    let error = write_query(&database, "select nonsense", OutputFormat::Table, &mut Vec::new()).await.unwrap_err();
    assert!(error.to_string().contains("nonsense"), "{error}");

    let psql = database.psql().args(["-Atc", "select current_schema"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&psql.stdout).trim(), "finstream");
    assert!(cluster.leave().await.unwrap());
}

#[tokio::test]
async fn an_external_database_is_prepared_over_tcp_or_socket() {
    let (_home, data) = data_dir();
    let cluster = PrivateCluster::ensure(&data, PgSettings::from_environment()).await.unwrap();
    let socket: PathBuf = cluster.socket_dir().to_owned();
    let url = format!("postgres://finstream@{}:5432/postgres", socket.display().to_string().replace('/', "%2F"));
    let database = Database::external(&url, "elsewhere").unwrap();
    database.prepare().await.unwrap();
    assert_eq!(scalar(&database, "select current_schema::text").await, "elsewhere");
    assert!(cluster.leave().await.unwrap());
}
