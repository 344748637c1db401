//! As whom the private server runs: PostgreSQL refuses root, so root's server drops to another user.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use tokio::process::Command;

use super::{Binaries, PostgresError};

/// The user of the server's processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Account {
    /// Whoever runs finstream.
    Own,
    /// finstream runs as root, the server as this user.
    Dropped { uid: u32, gid: u32 },
}

impl Account {
    /// Decides from the owner of what exists: first the cluster, then the data directory; else `postgres` or `nobody`.
    pub(super) fn choose(cluster: &Path, data_dir: &Path) -> Result<Account, PostgresError> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Account::Own);
        }
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        for path in [cluster, data_dir] {
            if let Ok(metadata) = fs::metadata(path)
                && metadata.uid() != 0
                && let Some((uid, gid)) = find(&passwd, |_, uid| uid == metadata.uid())
            {
                return Ok(Account::Dropped { uid, gid });
            }
        }
        ["postgres", "_postgres", "nobody"]
            .iter()
            .find_map(|wanted| find(&passwd, |name, uid| name == *wanted && uid != 0))
            .map(|(uid, gid)| Account::Dropped { uid, gid })
            .ok_or(PostgresError::NoAccount)
    }

    /// Makes the command run as this user. The standard library also drops root's supplementary groups with it.
    pub(super) fn apply(self, command: &mut Command) {
        if let Account::Dropped { uid, gid } = self {
            command.uid(uid).gid(gid);
        }
    }

    /// Gives a file or folder to this user.
    pub(super) fn own(self, path: &Path) -> Result<(), PostgresError> {
        match self {
            Account::Own => Ok(()),
            Account::Dropped { uid, gid } => std::os::unix::fs::chown(path, Some(uid), Some(gid))
                .map_err(PostgresError::io("change the owner of", path)),
        }
    }

    /// Whether this user can enter the folder: asked of the system, since modes are not the whole truth (ACLs).
    pub(super) async fn can_enter(self, folder: &Path) -> bool {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", ":"]).current_dir(folder).stdin(std::process::Stdio::null());
        self.apply(&mut command);
        command.status().await.is_ok_and(|status| status.success())
    }

    /// Why a program of the server did not even start.
    pub(super) fn cannot_run(self, program: &str, binaries: &Binaries, error: &std::io::Error) -> String {
        let path = binaries.program(program);
        match self {
            Account::Own => format!("{} cannot be run: {error}", path.display()),
            Account::Dropped { uid, .. } => format!(
                "{} cannot be run as user {uid} (PostgreSQL refuses root): {error}; move it to where that user can go, or run finstream as an ordinary user",
                path.display()
            ),
        }
    }

    /// The uid of the server's processes.
    pub(super) fn uid(self) -> u32 {
        match self {
            Account::Own => rustix::process::geteuid().as_raw(),
            Account::Dropped { uid, .. } => uid,
        }
    }
}

/// The first line of /etc/passwd that fits: (uid, gid).
fn find(passwd: &str, fits: impl Fn(&str, u32) -> bool) -> Option<(u32, u32)> {
    // macOS writes nobody's -2 with its sign.
    let id = |text: &str| text.parse::<i64>().ok().map(|id| id as u32);
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let (uid, gid) = (id(fields.nth(1)?)?, id(fields.next()?)?);
        fits(name, uid).then_some((uid, gid))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_in_passwd_and_odd_lines_are_passed_over() {
        let passwd = "# comment\nroot:x:0:0:root:/root:/bin/sh\n\nbad:x\nnobody:*:-2:-2::/:/usr/bin/false\npostgres:x:104:109::/:\n";
        assert_eq!(find(passwd, |name, _| name == "postgres"), Some((104, 109)));
        assert_eq!(find(passwd, |name, _| name == "nobody"), Some((u32::MAX - 1, u32::MAX - 1)));
        assert_eq!(find(passwd, |_, uid| uid == 7), None);
    }
}
