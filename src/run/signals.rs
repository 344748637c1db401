//! Ctrl-C and SIGTERM: the first drains, the second stops at once.

use tokio::signal::unix::{SignalKind, signal};

use crate::shutdown::{Stage, Trigger};

/// Raises the trigger as signals come. The task lives as long as the process.
///
/// # Errors
/// The operating system refuses a handler.
pub fn listen(trigger: Trigger) -> std::io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        let mut stages = [Stage::Drain, Stage::Now].into_iter();
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            match stages.next() {
                Some(Stage::Drain) => {
                    eprintln!("\nStopping: finishing what is under way (again to stop at once).");
                    trigger.raise(Stage::Drain);
                }
                _ => {
                    eprintln!("\nStopping at once; the next start recovers.");
                    trigger.raise(Stage::Now);
                }
            }
        }
    });
    Ok(())
}
