//! Ctrl-C and SIGTERM: the first drains, the second stops at once.

use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

use crate::shutdown::{Stage, Trigger};

/// `timeout` and some supervisors signal both the process and its group: that is one request, not two.
const SAME_REQUEST: Duration = Duration::from_millis(300);

/// Raises the trigger as signals come. The task lives as long as the process.
///
/// # Errors
/// The operating system refuses a handler.
pub fn listen(trigger: Trigger) -> std::io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        let mut first: Option<Instant> = None;
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            match first {
                None => {
                    first = Some(Instant::now());
                    say!("\nStopping: finishing what is under way (again to stop at once).");
                    trigger.raise(Stage::Drain);
                }
                Some(first) if first.elapsed() < SAME_REQUEST => {}
                Some(_) => {
                    say!("\nStopping at once; the next start recovers.");
                    trigger.raise(Stage::Now);
                }
            }
        }
    });
    Ok(())
}
