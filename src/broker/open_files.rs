//! How many files this process may have open, and how many of them clients get: a flood of connections must leave
//! enough for the log's files and for whatever else runs in this process.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// More than this is never asked for: some programs that we start walk through all possible handles.
const LIMIT_MAX: u64 = 1 << 20;
/// One in so many handles is kept from clients, besides those that are in use when the broker starts.
const KEPT_FRACTION: u64 = 4;
const KEPT_MAX: u64 = 4096;
/// Without a look at what is in use, this is assumed.
const USED_ASSUMED: u64 = 64;

/// Raises the soft limit to the hard one, and returns what holds now; none when there is no limit.
pub(super) fn raise_limit() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.unwrap_or(LIMIT_MAX).min(LIMIT_MAX);
    if current.is_some_and(|current| current < wanted) {
        // Refused by some systems although the hard limit allows it: then what is there must do.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum });
    }
    getrlimit(Resource::Nofile).current
}

/// How many connections may be open at once: `configured`, or fewer where the limit of open files is low.
pub(super) fn connections_max(configured: usize, limit: Option<u64>) -> usize {
    let Some(limit) = limit else { return configured };
    let allowed = connections_within(limit, used().unwrap_or(USED_ASSUMED));
    if allowed >= configured {
        return configured;
    }
    tracing::warn!(
        "the limit of {limit} open files allows {allowed} connections to the broker instead of {configured}; raise it \
         with ulimit -n"
    );
    allowed
}

fn connections_within(limit: u64, used: u64) -> usize {
    let kept = (limit / KEPT_FRACTION).min(KEPT_MAX) + used;
    usize::try_from(limit.saturating_sub(kept)).unwrap_or(usize::MAX).max(1)
}

/// Handles in use, where the system tells.
fn used() -> Option<u64> {
    let entries = std::fs::read_dir("/dev/fd").ok()?;
    Some(entries.count() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_get_three_quarters_of_what_is_not_in_use_and_always_a_place() {
        assert_eq!(connections_within(1024, 26), 742);
        assert_eq!(connections_within(1 << 20, 100), (1 << 20) - 4096 - 100);
        assert_eq!(connections_within(40, 60), 1);
    }
}
