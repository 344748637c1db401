//! Where the server's programs are.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::PostgresError;

/// Oldest major version whose SQL the migrations can rely on.
const MAJOR_MIN: u32 = 13;

/// One installation of the PostgreSQL server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    /// Holds initdb, postgres, pg_ctl and mostly psql.
    pub folder: PathBuf,
    /// Such as 15.
    pub major: u32,
}

impl Binaries {
    /// Finds the installation for a cluster of `wanted` major version, or the first one for a new cluster.
    pub(super) fn find(pg_bin: Option<&Path>, wanted: Option<u32>, cluster: &Path) -> Result<Binaries, PostgresError> {
        let folders = match pg_bin {
            Some(folder) => vec![folder.to_owned()],
            None => candidates(),
        };
        let mut found: Vec<Binaries> = Vec::new();
        for folder in &folders {
            let Some(binaries) = probe(folder) else { continue };
            if binaries.major >= MAJOR_MIN && wanted.is_none_or(|wanted| wanted == binaries.major) {
                return Ok(binaries);
            }
            found.push(binaries);
        }
        let named = |binaries: &Binaries| format!("{} ({})", binaries.major, binaries.folder.display());
        let found = found.iter().map(named).collect::<Vec<_>>().join(", ");
        match wanted {
            Some(cluster_major) if !found.is_empty() => {
                Err(PostgresError::MajorMismatch { cluster: cluster.to_owned(), cluster_major, found })
            }
            _ if !found.is_empty() => Err(PostgresError::Settings(format!(
                "PostgreSQL {found} is too old; install {MAJOR_MIN} or newer, or name its folder with --pg-bin DIR"
            ))),
            _ => {
                let shown: Vec<_> = folders.iter().map(|folder| folder.display().to_string()).collect();
                Err(PostgresError::NoBinaries { searched: shown.join(", ") })
            }
        }
    }

    /// The path of one program.
    pub fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// Folders in the order in which they are tried: what the user chose (PATH), then where packages put it.
fn candidates() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> =
        std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default();
    folders.retain(|folder| folder.join("initdb").is_file());
    for (parent, inner) in [
        ("/usr/lib/postgresql", "bin"),
        ("/opt/homebrew/opt", "bin"),
        ("/usr/local/opt", "bin"),
        ("/home/linuxbrew/.linuxbrew/opt", "bin"),
        ("/Applications/Postgres.app/Contents/Versions", "bin"),
        ("/usr", "bin"),
    ] {
        folders.extend(versions(Path::new(parent)).into_iter().map(|folder| folder.join(inner)));
    }
    folders.extend(
        ["/usr/local/pgsql/bin", "/usr/lib/postgresql/bin", "/opt/homebrew/bin", "/usr/local/bin"].map(PathBuf::from),
    );
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output() {
        folders.push(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    }
    let mut seen = std::collections::HashSet::new();
    folders.retain(|folder| folder.is_absolute() && seen.insert(folder.clone()));
    folders
}

/// Sub-folders named by a version (`15`, `postgresql@16`, `pgsql-17`), newest first.
fn versions(parent: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(parent) else { return Vec::new() };
    let mut found: Vec<(u32, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let digits = ["postgresql@", "pgsql-", ""].iter().find_map(|prefix| name.strip_prefix(prefix))?;
            Some((digits.parse().ok()?, entry.path()))
        })
        .collect();
    found.sort_by(|left, right| right.cmp(left));
    found.into_iter().map(|(_, path)| path).collect()
}

/// The installation in a folder, if it is a whole one.
fn probe(folder: &Path) -> Option<Binaries> {
    if !["initdb", "postgres", "pg_ctl"].iter().all(|name| folder.join(name).is_file()) {
        return None;
    }
    let output = Command::new(folder.join("postgres")).arg("--version").output().ok()?;
    let major = major_of(&String::from_utf8_lossy(&output.stdout))?;
    Some(Binaries { folder: folder.to_owned(), major })
}

/// `postgres (PostgreSQL) 15.8 (Debian …)` -> 15; also `16beta1`, `17devel`.
fn major_of(version: &str) -> Option<u32> {
    let number = version.split_whitespace().find(|word| word.starts_with(|first: char| first.is_ascii_digit()))?;
    let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_from_what_postgres_says() {
        assert_eq!(major_of("postgres (PostgreSQL) 15.8 (Debian 15.8-0+deb12u1)"), Some(15));
        assert_eq!(major_of("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major_of("command not found"), None);
    }

    #[test]
    fn missing_binaries_are_named_with_what_to_install() {
        let empty = tempfile::tempdir().unwrap();
        let error = Binaries::find(Some(empty.path()), None, Path::new("x")).unwrap_err().to_string();
        assert!(
            error.contains("apt install") && error.contains("brew install") && error.contains("dnf install"),
            "{error}"
        );
        assert!(error.contains(&empty.path().display().to_string()), "{error}");
    }
}
