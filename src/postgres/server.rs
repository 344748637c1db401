//! One server process: is it there, start it, stop it.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, test_kill_process, waitpid};
use tokio::process::Command;

use super::account::Account;
use super::cluster_files::{last_lines, log_path, open_log};
use super::{Binaries, PostgresError};
use crate::data_dir::DataDir;

/// Recovery after a crash replays at most `max_wal_size`.
pub(super) const START_PATIENCE: Duration = Duration::from_secs(120);
/// Left-over backends of a killed server end when they next look; until then a new one is refused.
const LEFTOVER_PATIENCE: Duration = Duration::from_secs(30);
const STOP_PATIENCE: Duration = Duration::from_secs(8);
/// Of postmaster.pid, counted from 0.
const STATUS_LINE: usize = 7;
const POLL: Duration = Duration::from_millis(10);
/// Bytes of the log's end that are read for a message.
const LOG_TAIL_BYTES: u64 = 4096;

/// The postmaster of a cluster, by its pid file, if it is alive.
pub(super) fn postmaster(cluster: &Path) -> Option<Pid> {
    let text = fs::read_to_string(cluster.join("postmaster.pid")).ok()?;
    let pid = Pid::from_raw(text.lines().next()?.trim().parse().ok()?)?;
    (is_alive(pid) && works_in(pid, cluster)).then_some(pid)
}

/// Whether the process is the cluster's: pids are used again, and another server must not be taken for ours, let alone
/// be stopped. A postmaster works in its PGDATA; where the system does not tell (macOS), the pid file is believed.
fn works_in(pid: Pid, cluster: &Path) -> bool {
    let process = format!("/proc/{}", pid.as_raw_nonzero());
    let name = fs::read_to_string(format!("{process}/comm"));
    if name.is_ok_and(|name| !["postgres", "postmaster"].contains(&name.trim())) {
        return false;
    }
    match (fs::read_link(format!("{process}/cwd")), fs::canonicalize(cluster)) {
        (Ok(folder), Ok(cluster)) => folder == cluster,
        _ => true,
    }
}

/// Alive, not merely a zombie.
fn is_alive(pid: Pid) -> bool {
    match test_kill_process(pid) {
        Ok(()) | Err(rustix::io::Errno::PERM) => {}
        Err(_) => return false,
    }
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    // `PID (NAME) STATE …`
    let zombie = stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'));
    if zombie {
        // A finstream that is process 1 of a container inherits the server: reap it, nobody else will.
        let _ = waitpid(Some(pid), WaitOptions::NOHANG);
    }
    !zombie
}

/// Starts the server of a cluster and waits until it accepts connections on its socket.
///
/// pg_ctl gives it a session of its own, so that Ctrl-C does not reach it, and lets go of it, so that it is not our child.
pub(super) async fn start(
    data: &DataDir,
    cluster: &Path,
    socket: &Path,
    account: Account,
    binaries: &Binaries,
) -> Result<(), PostgresError> {
    let begun = Instant::now();
    loop {
        end_leftovers(cluster).await;
        remove_stale_files(cluster, socket)?;
        let log_end = fs::metadata(log_path(data)).map_or(0, |metadata| metadata.len());
        let started = attempt(data, cluster, socket, account, binaries).await?;
        if started {
            return Ok(());
        }
        let said = log_tail(data, log_end);
        let leftover = said.contains("pre-existing shared memory block") || said.contains("is another postmaster");
        if !leftover || begun.elapsed() > LEFTOVER_PATIENCE {
            return Err(PostgresError::Server { action: "started", reason: last_lines(&said), log: log_path(data) });
        }
        tokio::time::sleep(POLL * 5).await;
    }
}

/// One start; false when the server ended again.
async fn attempt(
    data: &DataDir,
    cluster: &Path,
    socket: &Path,
    account: Account,
    binaries: &Binaries,
) -> Result<bool, PostgresError> {
    let log = open_log(data)?;
    let failed = |reason: String| PostgresError::Server { action: "started", reason, log: log_path(data) };
    let mut pg_ctl = Command::new(binaries.program("pg_ctl"));
    // PGDATA by the environment: pg_ctl would hand an argument to a shell. The output is inherited for the same reason.
    pg_ctl.args(["start", "--silent", "--wait", "--timeout"]).arg(START_PATIENCE.as_secs().to_string());
    pg_ctl.env("PGDATA", cluster).current_dir(cluster).stdin(Stdio::null());
    pg_ctl.stderr(log.try_clone().map_err(|error| failed(error.to_string()))?).stdout(log);
    account.apply(&mut pg_ctl);
    let mut child = pg_ctl.spawn().map_err(|error| failed(account.cannot_run("pg_ctl", binaries, &error)))?;
    let deadline = Instant::now() + START_PATIENCE;
    loop {
        // pg_ctl looks ten times a second only; looking more often saves most of that.
        if ready(cluster, socket) {
            // Reaped in the background: it ends by itself with its next look.
            tokio::spawn(async move { child.wait().await });
            return Ok(true);
        }
        match child.try_wait() {
            Ok(None) if Instant::now() < deadline => tokio::time::sleep(POLL).await,
            Ok(Some(status)) if status.success() => return Ok(true),
            Ok(Some(_)) => return Ok(false),
            Ok(None) => return Err(failed(format!("not ready within {} s", START_PATIENCE.as_secs()))),
            Err(error) => return Err(failed(error.to_string())),
        }
    }
}

/// Whether the server takes a session now: it does not while it starts, recovers or stops. By its pid file, since asking
/// by a connection would fill the log with refusals.
pub(super) fn ready(cluster: &Path, socket: &Path) -> bool {
    let text = fs::read_to_string(cluster.join("postmaster.pid")).unwrap_or_default();
    text.lines().nth(STATUS_LINE).is_some_and(|status| status.trim() == "ready")
        && postmaster(cluster).is_some()
        && socket.exists()
}

/// Stops the server: fast (sessions are ended, everything is written), and hard if that takes too long.
pub(super) async fn stop(data: &DataDir, cluster: &Path) -> Result<(), PostgresError> {
    for signal in [Signal::INT, Signal::QUIT] {
        let Some(pid) = postmaster(cluster) else { return Ok(()) };
        let _ = kill_process(pid, signal);
        let deadline = Instant::now() + STOP_PATIENCE;
        while is_alive(pid) && Instant::now() < deadline {
            tokio::time::sleep(POLL).await;
        }
    }
    match postmaster(cluster) {
        None => Ok(()),
        Some(pid) => Err(PostgresError::Server {
            action: "stopped",
            reason: format!("process {} does not end", pid.as_raw_nonzero()),
            log: log_path(data),
        }),
    }
}

/// Ends the backends of a postmaster that is dead, as it would have done after a crash (SIGQUIT: nothing is written, the
/// log recovers): one that is busy with a long query would otherwise keep the new server out until it is done.
async fn end_leftovers(cluster: &Path) {
    let begun = Instant::now();
    while postmaster(cluster).is_none() && begun.elapsed() < LEFTOVER_PATIENCE {
        let pids = processes_in(cluster);
        if pids.is_empty() {
            return;
        }
        for pid in pids {
            let _ = kill_process(pid, Signal::QUIT);
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The server processes that work in the cluster's folder; none where the system does not tell (macOS).
fn processes_in(cluster: &Path) -> Vec<Pid> {
    let (Ok(entries), Ok(cluster)) = (fs::read_dir("/proc"), fs::canonicalize(cluster)) else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let pid = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?;
            let ours = fs::read_link(entry.path().join("cwd")).is_ok_and(|folder| folder == cluster);
            let name = fs::read_to_string(entry.path().join("comm")).ok()?;
            (ours && name.trim() == "postgres").then_some(pid)
        })
        .collect()
}

/// Whether the server's socket is there for the server, and not for us. Not told by macOS, which has no mount namespaces.
pub(super) fn is_hidden(cluster: &Path, socket: &Path) -> bool {
    let elsewhere = |pid: Pid| PathBuf::from(format!("/proc/{}/root{}", pid.as_raw_nonzero(), socket.display()));
    !socket.exists() && postmaster(cluster).is_some_and(|pid| elsewhere(pid).exists())
}

/// The pid file beside a socket.
pub(super) fn lock_of(socket: &Path) -> PathBuf {
    let mut lock = socket.as_os_str().to_owned();
    lock.push(".lock");
    PathBuf::from(lock)
}

/// Removes the pid files (of the cluster and of the socket, which is in a folder of ours) of a server that is gone where
/// PostgreSQL itself would be misled by them: the pid belongs to a zombie or to a stranger by now. Left-over backends
/// still keep a second server out, by their shared memory.
fn remove_stale_files(cluster: &Path, socket: &Path) -> Result<(), PostgresError> {
    if postmaster(cluster).is_some() || !Path::new("/proc/self").exists() {
        return Ok(());
    }
    for path in [cluster.join("postmaster.pid"), lock_of(socket)] {
        if path.exists() {
            fs::remove_file(&path).map_err(PostgresError::io("remove", &path))?;
        }
    }
    Ok(())
}

/// What the log says from `offset` on, at most its last few kilobytes.
fn log_tail(data: &DataDir, offset: u64) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = fs::File::open(log_path(data))?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(offset.min(length).max(length.saturating_sub(LOG_TAIL_BYTES))))?;
        let mut bytes = Vec::new();
        file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().unwrap_or_default()
}
