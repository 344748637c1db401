//! A log whose writer is held, for tests of those who append: what happens while the disk takes nothing.

use super::Log;

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

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.core().queue.end_turn();
    }
}
