//! The processes that are killed: this test binary, started again with a task. They end with the one that started them.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rdkafka::ClientConfig;
use serde::{Deserialize, Serialize};

use super::{readers, writers};

/// Names the test that does the task, and carries the task.
const TASK: &str = "FINSTREAM_TORTURE_TASK";

/// What a child is there for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Task {
    /// Becomes another program, one that ends when its parent does.
    Become {
        program: String,
        arguments: Vec<String>,
    },
    Write(Clients),
    Read(Clients),
}

/// Several clients in one process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Clients {
    pub brokers: String,
    /// Where their notes go.
    pub notes: PathBuf,
    /// Each client's number, and the number of this life of it.
    pub members: Vec<Member>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Member {
    pub client: u32,
    pub life: u32,
}

impl Clients {
    /// Properties of every client: patient, and quick to come back.
    pub fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "500")
            .set("retry.backoff.ms", "50");
        config
    }
}

impl Task {
    /// The command that does it, once it has its stdout and stderr. Closing its stdin asks it to finish.
    pub fn command(&self) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "a_child_of_the_torture_and_no_test_by_itself", "--nocapture", "--test-threads=1"])
            .env(TASK, serde_json::to_string(self).unwrap())
            .stdin(Stdio::piped());
        command
    }
}

/// Does the task of this process, if it has one.
pub fn run() {
    let Ok(task) = std::env::var(TASK) else { return };
    end_with_the_parent();
    match serde_json::from_str(&task).unwrap() {
        Task::Become { program, arguments } => become_program(&program, &arguments),
        Task::Write(clients) => in_threads(clients, writers::run),
        Task::Read(clients) => in_threads(clients, readers::run),
    }
}

/// Also when the parent is killed. (Elsewhere than on Linux only its end by itself takes the children down.)
fn end_with_the_parent() {
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).unwrap();
}

fn become_program(program: &str, arguments: &[String]) {
    use std::os::unix::process::CommandExt;
    let error = Command::new(program).args(arguments).env_remove(TASK).stdin(Stdio::null()).exec();
    panic!("cannot start {program}: {error}");
}

/// A client a thread, until stdin is closed. The first that fails ends the process.
fn in_threads(clients: Clients, client: fn(&Clients, Member, &AtomicBool) -> Result<(), String>) {
    let (clients, stop) = (Arc::new(clients), Arc::new(AtomicBool::new(false)));
    let threads: Vec<_> = clients
        .members
        .iter()
        .map(|member| {
            let (clients, stop, member) = (clients.clone(), stop.clone(), *member);
            std::thread::spawn(move || {
                if let Err(error) = client(&clients, member, &stop) {
                    eprintln!("client {} in life {} failed: {error}", member.client, member.life);
                    std::process::exit(3);
                }
            })
        })
        .collect();
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    stop.store(true, Ordering::Relaxed);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}
