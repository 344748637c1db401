//! What the measuring programs share: processes seen from outside, medians, the machine, and the document of results.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

pub mod floor;
pub mod pace;
pub mod server;
pub mod usage;

use std::path::Path;
use std::process::Command;

/// Memory of a process in MiB; 0 where the system does not say it in `/proc`.
pub fn resident_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// CPU time of a process in seconds; none where the system does not say it in `/proc`.
pub fn cpu_seconds(pid: u32) -> Option<f64> {
    cpu_ticks(&pid.to_string(), [11, 12])
}

/// How long a thread ran so far, and how long it waited for a core while it could have run.
#[derive(Clone, Copy, Debug, Default)]
pub struct ThreadTime {
    pub ran_s: f64,
    pub waited_s: f64,
}

impl ThreadTime {
    /// None where the thread is gone, or the system does not say it in `/proc`.
    pub fn of(pid: u32, thread: &str) -> Option<ThreadTime> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/task/{thread}/schedstat")).ok()?;
        let mut seconds = text.split_whitespace().map(|word| word.parse::<u64>().map(|ns| ns as f64 / 1e9));
        Some(ThreadTime { ran_s: seconds.next()?.ok()?, waited_s: seconds.next()?.ok()? })
    }

    pub fn wanted_s(&self) -> f64 {
        self.ran_s + self.waited_s
    }
}

/// CPU time in seconds of all children that have ended and were waited for.
pub fn children_cpu_seconds() -> Option<f64> {
    cpu_ticks("self", [13, 14])
}

fn cpu_ticks(process: &str, fields: [usize; 2]) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let values: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    let ticks: u64 = fields.iter().map(|field| values[*field].parse::<u64>().unwrap()).sum();
    Some(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// CPU time of all cores at one moment.
pub struct MachineCpu {
    idle: u64,
    total: u64,
}

impl MachineCpu {
    /// All zero where the system does not say it in `/proc`.
    pub fn now() -> MachineCpu {
        let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        let line = text.lines().next().unwrap_or_default();
        let ticks: Vec<u64> = line.split_whitespace().skip(1).take(8).flat_map(str::parse).collect();
        MachineCpu { idle: ticks.iter().skip(3).take(2).sum(), total: ticks.iter().sum() }
    }

    /// How much of all cores was in use since then, in percent; none where the system does not say.
    pub fn share_since(&self) -> Option<f64> {
        let now = MachineCpu::now();
        let total = now.total.checked_sub(self.total).filter(|total| *total > 0)?;
        Some(100.0 - (now.idle.saturating_sub(self.idle)) as f64 / total as f64 * 100.0)
    }
}

/// The middle value; the lower one of two.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    sorted[(sorted.len() - 1) / 2]
}

/// First line of what a command prints; empty where it cannot be run.
pub fn first_line(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or_default().trim().to_string()
}

/// Date, cores, system, and the file system that `dir` is on.
pub fn machine(dir: &Path) -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let model = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = model.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let model = model.trim_start_matches([' ', '\t', ':']);
    let system = first_line("uname", &["-srm"]);
    let date = first_line("date", &["+%Y-%m-%d"]);
    let mut text = format!("{date}, {cores} cores");
    if !model.is_empty() {
        text += &format!(" ({model})");
    }
    format!("{text}, {system}, {}", file_system(dir))
}

/// Type and device of the file system, from the longest mount point above `dir`.
fn file_system(dir: &Path) -> String {
    let dir = dir.canonicalize().unwrap();
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let found = mounts
        .lines()
        .filter_map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            dir.starts_with(words.get(1)?).then(|| (words[1].len(), format!("{} on {}", words[2], words[0])))
        })
        .max_by_key(|(length, _)| *length);
    found.map_or_else(|| "file system unknown".to_string(), |(_, text)| text)
}

/// Puts `text` between the markers `<!-- NAME -->` and `<!-- /NAME -->` of a document, which must be there.
pub fn replace_between(document: &Path, name: &str, text: &str) {
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let old = std::fs::read_to_string(document).unwrap();
    let from = old.find(&begin).unwrap_or_else(|| panic!("{}: no marker {begin:?}", document.display())) + begin.len();
    let to = old.find(&end).unwrap_or_else(|| panic!("{}: no marker {end:?}", document.display()));
    std::fs::write(document, format!("{}{}\n{}", &old[..from], text.trim_end(), &old[to..])).unwrap();
}

/// Of the last minute; how busy the machine is with others shows in every figure.
pub fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().filter(|word| !word.is_empty()).unwrap_or("unknown").to_string()
}
