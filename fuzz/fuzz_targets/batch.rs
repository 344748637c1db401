//! Any bytes as the batches of an append, compressed or not: `broker::fuzzing::batch` says what must hold.
#![no_main]

use finstream::broker::fuzzing::{self, Metered};

#[global_allocator]
static ALLOCATOR: Metered = Metered;

libfuzzer_sys::fuzz_target!(init: fuzzing::write_seeds(fuzzing::batch_seeds), |data: &[u8]| fuzzing::batch(data));
