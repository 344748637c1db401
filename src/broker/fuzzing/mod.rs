//! What the fuzz targets in `fuzz/` run, and `cargo test` runs again: compiled for them only (`--cfg fuzzing`, tests).
//!
//! A target takes any bytes, drives the real code with them, and panics when a promise is broken: no panic inside, no
//! more memory than a multiple of the input, and nothing served but whole batches in order. Seeds are made here, from
//! the code that reads them.

mod batch;
mod meter;
mod recovery;
mod request;
#[cfg(test)]
mod tests;

pub use batch::{run as batch, seeds as batch_seeds};
pub use meter::Metered;
pub use recovery::{run as segment_recovery, seeds as segment_recovery_seeds};
pub use request::{run as request, seeds as request_seeds};

/// Writes the seeds into the folder that `FINSTREAM_FUZZ_SEEDS` names, if it does, before a fuzzer reads it.
///
/// # Panics
/// When they cannot be written.
pub fn write_seeds(seeds: fn() -> Vec<Vec<u8>>) {
    let Some(folder) = std::env::var_os("FINSTREAM_FUZZ_SEEDS").filter(|folder| !folder.is_empty()) else { return };
    for (index, seed) in seeds().into_iter().enumerate() {
        let path = std::path::Path::new(&folder).join(format!("seed-{index:04}"));
        if let Err(error) = std::fs::write(&path, seed) {
            panic!("cannot write {}: {error}", path.display());
        }
    }
}
