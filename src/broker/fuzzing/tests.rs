#![allow(clippy::unwrap_used)]
//! What the fuzzers found once, the seeds, and some thousand mutations of them, with every `cargo test`.

use std::path::Path;

use rand::rngs::ChaCha8Rng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use super::*;

/// All unit tests count what they allocate; only the ones that ask are told.
#[global_allocator]
static ALLOCATOR: Metered = Metered;

/// Runs what was found, the seeds, and `mutations` of both.
fn replay(name: &str, run: fn(&[u8]), seeds: Vec<Vec<u8>>, mutations: usize) {
    let found = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/found").join(name);
    let mut inputs = seeds;
    for entry in std::fs::read_dir(found).into_iter().flatten() {
        inputs.push(std::fs::read(entry.unwrap().path()).unwrap());
    }
    inputs.iter().for_each(|input| run(input));
    let seed: u64 = std::env::var("FINSTREAM_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7);
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    for index in 0..mutations {
        let input = mutated(&inputs, &mut random);
        if std::panic::catch_unwind(|| run(&input)).is_err() {
            let kept = std::env::temp_dir().join(format!("finstream-{name}-{seed}-{index}"));
            std::fs::write(&kept, &input).unwrap();
            panic!("mutation {index} of {name} with FINSTREAM_TEST_SEED={seed}, kept as {}", kept.display());
        }
    }
}

/// One of the inputs with some of its bytes changed, cut, doubled or taken from another.
fn mutated(inputs: &[Vec<u8>], random: &mut ChaCha8Rng) -> Vec<u8> {
    const NUMBERS: [&[u8]; 6] =
        [&[0xff; 8], &[0x7f, 0xff, 0xff, 0xff], &[0; 4], &[0xff, 0xff, 0xff, 0x7f], &[0x80], &[1]];
    let mut input = inputs.choose(random).unwrap().clone();
    for _ in 0..random.random_range(1..6) {
        let at = random.random_range(0..=input.len());
        match random.random_range(0..6) {
            0 if at < input.len() => input[at] ^= 1 << random.random_range(0..8),
            1 if at < input.len() => input[at] = random.random(),
            2 if at > 0 => input.truncate(at),
            3 => {
                let other = inputs.choose(random).unwrap();
                let from = random.random_range(0..=other.len());
                input.splice(at.., other[from..].iter().copied());
            }
            _ => {
                let number = NUMBERS.choose(random).unwrap();
                input.splice(at..(at + number.len()).min(input.len()), number.iter().copied());
            }
        }
    }
    input
}

#[test]
fn any_frame_is_decoded_or_refused_within_its_memory() {
    replay("request", request, request_seeds(), 5_000);
}

#[test]
fn any_batches_are_appended_or_refused_within_their_memory() {
    replay("batch", batch, batch_seeds(), 2_000);
}

#[test]
fn any_directory_opens_and_serves_whole_batches_or_says_why_not() {
    replay("segment_recovery", segment_recovery, segment_recovery_seeds(), 400);
}
