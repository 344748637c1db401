//! The processes that are killed: this test binary, started again with a task. They end with the one that started them.

use std::io::Read;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rdkafka::ClientConfig;
use serde::{Deserialize, Serialize};

use super::support::child;
use super::{readers, writers};

/// Does what the task says.
const TEST: &str = "a_child_of_the_torture_and_no_test_by_itself";

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
        child::command(TEST, self)
    }
}

/// Does the task of this process, if it has one.
pub fn run() {
    match child::task() {
        None => {}
        Some(Task::Become { program, arguments }) => child::become_program(&program, &arguments),
        Some(Task::Write(clients)) => in_threads(clients, writers::run),
        Some(Task::Read(clients)) => in_threads(clients, readers::run),
    }
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
