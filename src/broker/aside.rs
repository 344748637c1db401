//! Work that may wait for the disk, or takes its time, away from the threads that serve connections.

use tokio::sync::Semaphore;

/// Reads that may wait for the disk, at once; further ones wait for these.
const DISK_READS_MAX: usize = 16;
static DISK_READS: Semaphore = Semaphore::const_new(DISK_READS_MAX);

/// Appends that are unfolded at once: each may take a core for a moment, and 64 MiB (zstd's window) while it does.
const UNFOLDING_MAX: usize = 4;
static UNFOLDING: Semaphore = Semaphore::const_new(UNFOLDING_MAX);

/// Does work that may wait for the disk on a thread of its own: heartbeats and acknowledgements go on meanwhile.
pub(crate) async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    aside_within(&DISK_READS, work).await
}

/// Does work that unfolds what a client sent on a thread of its own. Readers do not wait for it.
pub(crate) async fn unfolding<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    aside_within(&UNFOLDING, work).await
}

async fn aside_within<T: Send + 'static>(places: &Semaphore, work: impl FnOnce() -> T + Send + 'static) -> T {
    // Never closed; a missing permit would only lift the limit.
    let _permit = places.acquire().await;
    match tokio::task::spawn_blocking(work).await.map_err(tokio::task::JoinError::try_into_panic) {
        Ok(done) => done,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // Only a runtime that shuts down cancels it, and us.
        Err(Err(_)) => std::future::pending().await,
    }
}
