//! A small disk that fills up under the whole pipeline. Skipped where no tmpfs can be mounted.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::{Running, Sandbox, wait_until};
use finstream::data_dir::DiskSpace;
use rustix::fs::FallocateFlags;

const MIB: u64 = 1 << 20;

/// A file system of a few hundred MiB in place of the sandbox's data directory.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(directory: PathBuf, mebibytes: u64) -> Option<SmallDisk> {
        fs::create_dir(&directory).unwrap();
        let size = format!("size={mebibytes}m,mode=700");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(&directory)
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        mounted.then_some(SmallDisk(directory))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Takes all room but `left` bytes with a file, as a neighbour would.
fn fill(directory: &Path, left: u64) -> PathBuf {
    let path = directory.join("neighbour");
    let file = OpenOptions::new().create(true).append(true).open(&path).unwrap();
    let (free, taken) = (DiskSpace::of(directory).unwrap().free_bytes, file.metadata().unwrap().len());
    if free > left {
        // Who writes at the same time may be quicker.
        let _ = rustix::fs::fallocate(&file, FallocateFlags::empty(), taken, free - left);
    }
    path
}

#[test]
fn a_disk_that_is_almost_full_and_then_full_pauses_the_pipeline_and_costs_nothing() {
    let sandbox = Sandbox::new();
    let Some(disk) = SmallDisk::mount(sandbox.data(), 768) else {
        println!("skipped: this user may not mount a tmpfs");
        return;
    };
    let mut running = sandbox.start(&["--rate", "5000"]);
    wait_until("messages in PostgreSQL", || sandbox.sql("select count(*) from messages") != "0");

    let neighbour = fill(&disk.0, 100 * MIB);
    running.wait_for("Producer paused");
    fs::remove_file(&neighbour).unwrap();
    running.wait_for("Producer goes on");

    // Full at once: neither the log nor PostgreSQL has room for what is on its way. Whether PostgreSQL needs room before
    // the producer pauses is chance, so it is tried until it does.
    let count = |running: &Running, text: &str| running.output().matches(text).count();
    while count(&running, "waiting for PostgreSQL") == 0 {
        let paused = count(&running, "Producer paused");
        wait_until("the disk to be full", || {
            fill(&disk.0, 0);
            count(&running, "waiting for PostgreSQL") > 0 || count(&running, "Producer paused") > paused
        });
        assert!(running.is_running(), "{}", running.output());
        fs::remove_file(&neighbour).unwrap();
        wait_until("the producer to go on", || {
            count(&running, "Producer goes on") == count(&running, "Producer paused")
        });
    }
    running.wait_for("PostgreSQL stores again");
    let (code, output) = running.stop();
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains("The books balance"), "{output}");
    sandbox.expect(0, &["verify"]);
    drop(sandbox.run(&["reset", "--yes"]));
}
