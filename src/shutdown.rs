//! The injected stop signal: one side asks, every role watches.

use tokio::sync::watch;

/// How urgently the process is to end. The order matters: later stages are more urgent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Work goes on.
    Running,
    /// Take no new work, finish what was begun.
    Drain,
    /// Stop now, leave the rest to recovery.
    Now,
}

/// The asking side.
#[derive(Clone, Debug)]
pub struct Trigger(watch::Sender<Stage>);

/// The watching side; clones watch the same signal.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<Stage>);

/// A connected pair.
pub fn channel() -> (Trigger, Shutdown) {
    let (sender, receiver) = watch::channel(Stage::Running);
    (Trigger(sender), Shutdown(receiver))
}

impl Trigger {
    /// Raises the stage; a lower one than the present is ignored.
    pub fn raise(&self, stage: Stage) {
        self.0.send_if_modified(|present| {
            let raised = stage > *present;
            if raised {
                *present = stage;
            }
            raised
        });
    }

    /// Another watcher.
    pub fn watcher(&self) -> Shutdown {
        Shutdown(self.0.subscribe())
    }
}

impl Shutdown {
    /// The present stage.
    pub fn stage(&self) -> Stage {
        *self.0.borrow()
    }

    /// True from the first request on.
    pub fn requested(&self) -> bool {
        self.stage() > Stage::Running
    }

    /// Resolves when the stage is `at_least` or beyond, or when the trigger is gone.
    pub async fn reached(&mut self, at_least: Stage) {
        // An error means that the trigger was dropped: nobody is left to wait for, which is a stop as well.
        let _ = self.0.wait_for(|stage| *stage >= at_least).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_watcher_sees_the_stage_rise_and_never_fall() {
        let (trigger, mut shutdown) = channel();
        assert!(!shutdown.requested());
        trigger.raise(Stage::Now);
        trigger.raise(Stage::Drain);
        shutdown.reached(Stage::Drain).await;
        assert_eq!(shutdown.stage(), Stage::Now);
    }
}
