//! Counts what a thread allocates.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// Bytes that this thread allocated, less those that it freed.
    static LIVE: Cell<isize> = const { Cell::new(0) };
    /// The most of them since the last look.
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// The system's allocator with a count for each thread, so that tests beside each other do not disturb the figures.
pub struct Metered;

fn moved(bytes: isize) {
    // A thread that ends has no counts any more.
    let _ = LIVE.try_with(|live| {
        live.set(live.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(live.get())));
    });
}

// SAFETY: hands everything to the system's allocator, unchanged.
unsafe impl GlobalAlloc for Metered {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        moved(layout.size() as isize);
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        moved(layout.size() as isize);
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        moved(-(layout.size() as isize));
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both are there for a moment.
        moved(size as isize);
        let moved_to = unsafe { System.realloc(pointer, layout, size) };
        moved(-(if moved_to.is_null() { size } else { layout.size() } as isize));
        moved_to
    }
}

/// Runs `work`, and panics when this thread held more than `bytes_max` besides what it held before.
pub(super) fn within<T>(bytes_max: usize, what: &str, work: impl FnOnce() -> T) -> T {
    let before = LIVE.get();
    PEAK.set(before);
    let done = work();
    let peak = PEAK.get() - before;
    assert!(peak <= bytes_max as isize, "{what} held {peak} bytes at once; {bytes_max} are allowed");
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "a vector held 1000000 bytes")]
    fn whatever_takes_too_much_memory_is_told() {
        within(999_999, "a vector", || drop(Vec::<u8>::with_capacity(1_000_000)));
    }
}
