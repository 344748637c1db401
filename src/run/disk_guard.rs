//! Watches the file systems that the pipeline writes to, and pauses the producer before PostgreSQL or the log fails.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;

use super::figures;
use crate::data_dir::DiskSpace;
use crate::http::Readiness;
use crate::metrics::PRODUCER_PAUSED;

/// Never less than this: below 32 MiB the log itself refuses appends, and its next journal file takes 64 MiB.
const LIMIT_BYTES_MIN: u64 = 128 << 20;
/// Below the smaller of this and [`SHARE`] of the file system, the producer pauses.
const FREE_BYTES_MIN: u64 = 2 << 30;
/// One part in so many: 5 %.
const SHARE: u64 = 20;
/// Space must come back by this much before the producer goes on, so that it does not flutter: an eighth of the limit.
const HYSTERESIS: u64 = 8;
/// Between two looks. 64 MiB/s, more than the pipeline writes, fill a fraction of the limit in this time.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The free bytes at which the producer pauses on a file system of this size.
pub fn limit_bytes(total_bytes: u64) -> u64 {
    FREE_BYTES_MIN.min(total_bytes / SHARE).max(LIMIT_BYTES_MIN)
}

/// Looks at `paths` until the task is dropped; `paused` is true while one of them is too full.
pub async fn watch(paths: Vec<PathBuf>, paused: watch::Sender<bool>, readiness: Readiness) {
    let mut interval = tokio::time::interval(LOOK_EVERY);
    loop {
        interval.tick().await;
        let was_paused = *paused.borrow();
        metrics::gauge!(PRODUCER_PAUSED).set(if was_paused { 1.0 } else { 0.0 });
        let full = paths.iter().find_map(|path| {
            let space = DiskSpace::of(path).ok()?;
            let limit = limit_bytes(space.total_bytes);
            let needed = if was_paused { limit + limit / HYSTERESIS } else { limit };
            (space.free_bytes < needed).then_some((path, space, limit))
        });
        match full {
            Some((path, space, limit)) if !was_paused => {
                let (free, limit) = (figures::bytes(space.free_bytes), figures::bytes(limit));
                let place = path.display();
                say!(
                    "Producer paused: {free} free on the file system of {place}, less than {limit}; free some space there. \
                     Nothing is lost, and it goes on by itself."
                );
                readiness.waiting("producer", format!("disk space: {free} free at {place}, less than {limit}"));
                paused.send_replace(true);
            }
            None if was_paused => {
                say!("Producer goes on: there is space again.");
                readiness.ready("producer");
                paused.send_replace(false);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_five_percent_of_a_small_disk_and_two_gib_of_a_large_one() {
        assert_eq!(limit_bytes(8 << 30), (8 << 30) / 20);
        assert_eq!(limit_bytes(400 << 20), 128 << 20);
        assert_eq!(limit_bytes(1 << 40), 2 << 30);
    }
}
