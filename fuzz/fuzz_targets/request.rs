//! Any bytes as a frame of any API and version: `broker::fuzzing::request` says what must hold.
#![no_main]

use finstream::broker::fuzzing::{self, Metered};

#[global_allocator]
static ALLOCATOR: Metered = Metered;

libfuzzer_sys::fuzz_target!(init: fuzzing::write_seeds(fuzzing::request_seeds), |data: &[u8]| fuzzing::request(data));
