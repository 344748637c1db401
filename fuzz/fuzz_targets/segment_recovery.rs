//! Any bytes as the files of a log's directory: `broker::fuzzing::segment_recovery` says what must hold.
#![no_main]

use finstream::broker::fuzzing::{self, Metered};

#[global_allocator]
static ALLOCATOR: Metered = Metered;

libfuzzer_sys::fuzz_target!(init: fuzzing::write_seeds(fuzzing::segment_recovery_seeds), |data: &[u8]| fuzzing::segment_recovery(data));
