//! Exit codes: a contract with scripts.

use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: done; yes.
    Done,
    /// 1: the answer is no, and nothing else.
    No,
    /// 2: bad usage.
    Usage,
    /// 3: cannot be decided, or there is nothing to decide on.
    Undecided,
    /// 4: the work could not be done.
    Failed,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(match exit {
            Exit::Done => 0,
            Exit::No => 1,
            Exit::Usage => 2,
            Exit::Undecided => 3,
            Exit::Failed => 4,
        })
    }
}
