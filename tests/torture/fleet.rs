//! The clients' processes: each has clients of several groups or places, and a life ends when it is killed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use super::child::{Clients, Member, Task};
use super::plan::PROCESSES;

/// Longer than a producer waits for its last acknowledgements.
const FINISH_MAX: Duration = Duration::from_secs(240);

/// Some processes of one kind.
pub struct Fleet {
    task: fn(Clients) -> Task,
    /// The clients of each process.
    clients: Vec<Vec<u32>>,
    brokers: String,
    directory: PathBuf,
    children: Vec<Child>,
    lives: u32,
}

impl Fleet {
    pub fn start(task: fn(Clients) -> Task, clients: u32, brokers: &str, directory: &Path) -> Fleet {
        // Neighbours are in different processes: no kill takes all members of a group.
        let of_process = |process: usize| (0..clients).filter(|client| shuffled(*client) == process).collect();
        let clients = (0..PROCESSES).map(of_process).collect();
        let directory = directory.to_owned();
        let mut fleet = Fleet { task, clients, brokers: brokers.to_owned(), directory, children: Vec::new(), lives: 0 };
        fleet.children = (0..PROCESSES).map(|process| fleet.spawn(process)).collect();
        fleet
    }

    fn spawn(&mut self, process: usize) -> Child {
        let members: Vec<Member> = self.clients[process]
            .iter()
            .zip(self.lives + 1..)
            .map(|(client, life)| Member { client: *client, life })
            .collect();
        self.lives += members.len() as u32;
        let clients = Clients { brokers: self.brokers.clone(), notes: self.directory.clone(), members };
        let output = std::fs::File::options().append(true).create(true).open(self.output_file()).unwrap();
        let mut command = (self.task)(clients).command();
        command.stdout(output.try_clone().unwrap()).stderr(output).spawn().unwrap()
    }

    fn output_file(&self) -> PathBuf {
        self.directory.join("output.txt")
    }

    pub fn kill_and_start(&mut self, process: usize) {
        self.children[process].kill().unwrap();
        self.children[process].wait().unwrap();
        self.children[process] = self.spawn(process);
    }

    /// None ends by itself.
    pub fn assert_alive(&mut self) {
        for child in &mut self.children {
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none(), "a client's process ended by itself: {ended:?}\n{}", self.failures());
        }
    }

    /// Asks all to finish and waits until they have.
    pub fn finish(&mut self) {
        self.children.iter_mut().for_each(|child| drop(child.stdin.take()));
        let asked = Instant::now();
        for process in 0..self.children.len() {
            let status = self.status(process, asked);
            assert!(status.success(), "a client did not finish: {status}\n{}", self.failures());
        }
    }

    fn status(&mut self, process: usize, asked: Instant) -> ExitStatus {
        loop {
            if let Some(status) = self.children[process].try_wait().unwrap() {
                return status;
            }
            assert!(asked.elapsed() < FINISH_MAX, "a client does not finish\n{}", self.failures());
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    fn output(&self) -> String {
        std::fs::read_to_string(self.output_file()).unwrap_or_default()
    }

    fn failures(&self) -> String {
        let output = self.output();
        let told = output.lines().filter(|line| line.contains("failed") || line.contains("panicked"));
        told.take(20).collect::<Vec<_>>().join("\n")
    }

    /// Errors that the clients bore, by kind.
    pub fn errors(&self) -> BTreeMap<String, usize> {
        let mut errors = BTreeMap::new();
        for error in self.output().lines().filter_map(|line| line.strip_prefix("client error: ")) {
            *errors.entry(error.to_owned()).or_default() += 1;
        }
        errors
    }
}

fn shuffled(client: u32) -> usize {
    (client as usize + client as usize / PROCESSES * 3) % PROCESSES
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            println!("clients in {} told of:\n{}", self.directory.display(), self.failures());
        }
    }
}
