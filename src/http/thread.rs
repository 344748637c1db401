//! A thread and a runtime of the windows' own: what viewers cost can be seen, and cannot hold up a role.

use std::io;
use std::thread::JoinHandle;

use tokio::net::TcpListener;

use super::routes::{HttpState, serve};
use crate::shutdown::Shutdown;

/// The thread's name, and that of those that resolve addresses for it; the kernel shows 15 bytes of it.
pub const THREAD_NAME: &str = "finstream-http";
/// Threads for what blocks: names of hosts are resolved on them.
const BLOCKING_THREADS_MAX: usize = 2;

/// As [`serve`], on a thread of its own, which ends with the windows.
///
/// # Errors
/// The system gives no thread or no events.
pub fn serve_on_thread(
    listener: TcpListener,
    state: HttpState,
    shutdown: Shutdown,
) -> io::Result<JoinHandle<io::Result<()>>> {
    // It is registered with the caller's runtime until here.
    let listener = listener.into_std()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_name(THREAD_NAME)
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .build()?;
    std::thread::Builder::new().name(THREAD_NAME.to_owned()).spawn(move || {
        let served = runtime.block_on(async { serve(TcpListener::from_std(listener)?, state, shutdown).await });
        // A question to PostgreSQL that is under way is of no use any more.
        runtime.shutdown_background();
        served
    })
}
