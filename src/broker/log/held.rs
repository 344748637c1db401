//! A log whose writer is held, for tests of those who append: what happens while the disk takes nothing.

use super::{AppendError, Log};

/// As long as this is held, what is appended waits.
pub(crate) struct Held<'a>(&'a Log);

impl Log {
    /// Holds the writer, once it has written what it has taken.
    pub(crate) fn held(&self) -> Held<'_> {
        while !self.core().queue.try_hold() {
            std::thread::yield_now();
        }
        Held(self)
    }
}

impl Held<'_> {
    /// As if the disk had been full for a moment: what waits is refused.
    pub(crate) fn refuse_waiting(&self) {
        let core = self.0.core();
        let waiting = core.queue.refuse("the disk is full".to_owned());
        core.all_partitions().iter().for_each(super::partition::Partition::refuse_waiting);
        super::writer::fail_all(waiting, &AppendError::Storage("the disk is full".to_owned()));
        core.queue.accept();
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.core().queue.end_turn();
    }
}
