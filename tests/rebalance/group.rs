//! A group under test: its members' processes, as the schedule wants them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use super::Stage;
use super::checker::{Books, IDLE_US_MAX, Member};
use super::kind::Kind;
use super::member::{self, CLOSE_MAX, ERROR, NEVER_CLOSED, Order};
use super::plan::{Action, Event, SLOTS};
use super::support::child;
use super::support::notes::{self, now_us};

/// Longer than a member takes to leave.
const LEAVE_MAX: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub struct Group {
    kind: &'static Kind,
    brokers: String,
    directory: PathBuf,
    began_us: u64,
    slots: [Slot; SLOTS],
    lives: u32,
    /// When each life was killed.
    killed_us: BTreeMap<String, u64>,
    silences_us: Vec<u64>,
    pub counts: BTreeMap<(Action, bool), usize>,
}

/// The life in a slot, and the one before it as long as it takes to leave.
#[derive(Default)]
struct Slot {
    here: Option<(String, Child)>,
    leaving: Option<Child>,
}

impl Group {
    pub fn new(kind: &'static Kind, brokers: &str, directory: PathBuf) -> Group {
        std::fs::create_dir_all(directory.join("notes")).unwrap();
        Group {
            kind,
            brokers: brokers.to_owned(),
            directory,
            began_us: now_us(),
            slots: Default::default(),
            lives: 0,
            killed_us: BTreeMap::new(),
            silences_us: Vec::new(),
            counts: BTreeMap::new(),
        }
    }

    /// Does what the schedule says as long as members shall come and go, and looks after them until told to end.
    pub fn live(&mut self, events: &[Event], stage: &Stage) {
        let began = Instant::now();
        // What takes its time delays the rest: two events never come closer to each other than the schedule has them.
        let mut late = Duration::ZERO;
        for event in events {
            while let Some(left) = (event.at + late).checked_sub(began.elapsed()) {
                self.assert_alive();
                // The pause is the schedule's, not a wait for something.
                std::thread::sleep(left.min(LOOK_EVERY));
            }
            if stage.is_at(Stage::DRAIN) {
                break;
            }
            self.act(event);
            late = began.elapsed().saturating_sub(event.at);
        }
        while !stage.is_at(Stage::END) {
            self.assert_alive();
            std::thread::park_timeout(LOOK_EVERY);
        }
    }

    fn act(&mut self, event: &Event) {
        // For whoever looks for the cause of a fault.
        let _ = writeln!(self.output_end(), "{} {event:?}", now_us());
        let is_static = self.kind.is_static(event.slot);
        *self.counts.entry((event.action, is_static)).or_default() += 1;
        match event.action {
            Action::Start => self.start(event.slot),
            Action::Kill => {
                let (name, mut child) = self.slots[event.slot].here.take().unwrap();
                let killed_us = now_us();
                self.killed_us.insert(name, killed_us);
                self.silences_us.push(killed_us);
                child.kill().unwrap();
                child.wait().unwrap();
            }
            Action::Close if event.action.is_silent(is_static) => {
                self.tell(event.slot, Order::default());
                self.wait_until_gone(event.slot);
                self.silences_us.push(now_us());
            }
            Action::Close | Action::Unsubscribe => {
                let unsubscribe = event.action == Action::Unsubscribe;
                // Rebalances wait for a silent member until its session ends, and a moment longer until all have joined.
                let is_patient = self.silences_us.last().is_some_and(|silence_us| now_us() < silence_us + IDLE_US_MAX);
                self.tell(event.slot, Order { unsubscribe, is_patient });
            }
        }
    }

    fn start(&mut self, slot: usize) {
        // Two that live at the same time would fence each other.
        self.wait_until_gone(slot);
        self.lives += 1;
        let name = format!("{}-{slot}-{:04}", self.kind.name, self.lives);
        let task = member::Member {
            brokers: self.brokers.clone(),
            group: self.kind.name.to_owned(),
            name: name.clone(),
            instance: self.kind.is_static(slot).then(|| format!("{}-{slot}", self.kind.name)),
            strategy: self.kind.strategy.to_owned(),
            notes: self.directory.join("notes"),
        };
        let output = self.output_end();
        let mut command = child::command(member::TEST, &task);
        let child = command.stdout(output.try_clone().unwrap()).stderr(output).spawn().unwrap();
        self.slots[slot].here = Some((name, child));
    }

    fn tell(&mut self, slot: usize, order: Order) {
        let (_, mut child) = self.slots[slot].here.take().unwrap();
        writeln!(child.stdin.as_mut().unwrap(), "{}", serde_json::to_string(&order).unwrap()).unwrap();
        self.slots[slot].leaving = Some(child);
    }

    fn wait_until_gone(&mut self, slot: usize) {
        let Some(mut child) = self.slots[slot].leaving.take() else { return };
        let asked = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            assert!(asked.elapsed() < LEAVE_MAX, "a member does not leave\n{}", self.last_words());
            std::thread::park_timeout(Duration::from_millis(5));
        };
        self.assert_left(status);
    }

    fn assert_left(&mut self, status: ExitStatus) {
        if status.code() == Some(NEVER_CLOSED) {
            // It has not told its group.
            self.silences_us.push(now_us() - CLOSE_MAX.as_micros() as u64);
            return;
        }
        assert!(status.success(), "a member did not leave: {status}\n{}", self.last_words());
    }

    /// None ends by itself, and those that were asked to leave end well.
    fn assert_alive(&mut self) {
        for slot in 0..SLOTS {
            if let Some((name, child)) = &mut self.slots[slot].here
                && let Some(status) = child.try_wait().unwrap()
            {
                let name = name.clone();
                panic!("{name} ended by itself: {status}\n{}", self.last_words());
            }
            let Some(child) = &mut self.slots[slot].leaving else { continue };
            if let Some(status) = child.try_wait().unwrap() {
                self.slots[slot].leaving = None;
                self.assert_left(status);
            }
        }
    }

    /// All leave; what they noted.
    pub fn finish(&mut self) -> Books {
        for slot in 0..SLOTS {
            if self.slots[slot].here.is_some() {
                self.tell(slot, Order::default());
            }
        }
        (0..SLOTS).for_each(|slot| self.wait_until_gone(slot));
        let member = |life: super::notes::Life| {
            let killed_us = self.killed_us.get(&life.name).copied();
            Member { life, killed_us }
        };
        let lives = notes::read(&self.directory.join("notes"), "");
        Books {
            group: self.kind.name.to_owned(),
            began_us: self.began_us,
            members: lives.into_iter().map(member).collect(),
            silences_us: self.silences_us.clone(),
        }
    }

    fn output_file(&self) -> PathBuf {
        self.directory.join("output.txt")
    }

    fn output_end(&self) -> File {
        File::options().append(true).create(true).open(self.output_file()).unwrap()
    }

    fn output(&self) -> String {
        std::fs::read_to_string(self.output_file()).unwrap_or_default()
    }

    fn last_words(&self) -> String {
        let output = self.output();
        let lines: Vec<&str> = output.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// Errors that its members bore, by kind.
    pub fn errors(&self) -> BTreeMap<String, usize> {
        let mut errors = BTreeMap::new();
        for error in self.output().lines().filter_map(|line| line.strip_prefix(ERROR)) {
            *errors.entry(error.to_owned()).or_default() += 1;
        }
        errors
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for slot in &mut self.slots {
            let children = slot.here.take().map(|(_, child)| child).into_iter().chain(slot.leaving.take());
            for mut child in children {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}
