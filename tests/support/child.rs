//! Child processes that are this test binary, started again with a task of their own. They end with the thread that
//! started them, also when it is killed.

use std::process::{Command, Stdio};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Carries the task.
const TASK: &str = "FINSTREAM_TEST_TASK";

/// The command that runs one test of this binary with a task, once it has its stdout and stderr.
pub fn command(test: &str, task: &impl Serialize) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(TASK, serde_json::to_string(task).unwrap())
        .stdin(Stdio::piped());
    command
}

/// The task of this process, if it has one.
pub fn task<T: DeserializeOwned>() -> Option<T> {
    let task = std::env::var(TASK).ok()?;
    end_with_the_parent();
    Some(serde_json::from_str(&task).unwrap())
}

/// Goes on as another program, which keeps this process's id and its end.
pub fn become_program(program: &str, arguments: &[String]) -> ! {
    use std::os::unix::process::CommandExt;
    let error = Command::new(program).args(arguments).env_remove(TASK).stdin(Stdio::null()).exec();
    panic!("cannot start {program}: {error}");
}

/// Also when the parent is killed. (Elsewhere than on Linux only its end by itself takes the children down.)
fn end_with_the_parent() {
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).unwrap();
}
