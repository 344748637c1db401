//! Work that may wait for the disk, away from the threads that serve connections.

use tokio::sync::Semaphore;

/// Reads that may wait for the disk, at once; further ones wait for these.
const DISK_READS_MAX: usize = 16;
static DISK_READS: Semaphore = Semaphore::const_new(DISK_READS_MAX);

/// Does work that may wait for the disk on a thread of its own: heartbeats and acknowledgements go on meanwhile.
pub(crate) async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    // Never closed; a missing permit would only lift the limit.
    let _permit = DISK_READS.acquire().await;
    match tokio::task::spawn_blocking(work).await.map_err(tokio::task::JoinError::try_into_panic) {
        Ok(done) => done,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // Only a runtime that shuts down cancels it, and us.
        Err(Err(_)) => std::future::pending().await,
    }
}
