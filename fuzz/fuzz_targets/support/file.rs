//! Bytes as a file, and what every source promises of any file.

use std::path::PathBuf;

use finstream::clock::Micros;
use finstream::config::SourceSettings;
use finstream::source::{self, DerivedIds, Draft, Next};
use finstream::transaction::{MessageId, RunId, Transaction};

/// In memory, where there is such a place.
fn path() -> PathBuf {
    let shared = PathBuf::from("/dev/shm");
    let folder = if shared.is_dir() { shared } else { std::env::temp_dir() };
    folder.join(format!("finstream-fuzz-{}.csv", std::process::id()))
}

/// Writes files to begin with to where `scripts/fuzz.sh` keeps them.
pub fn write_seeds(seeds: &[&[u8]]) {
    let Some(folder) = std::env::var_os("FINSTREAM_FUZZ_SEEDS").map(PathBuf::from) else { return };
    for (number, seed) in seeds.iter().enumerate() {
        std::fs::write(folder.join(format!("seed-{number}")), seed).expect("a folder to write seeds to");
    }
}

/// Opens the bytes as a source and plays it to the end.
pub fn replay(data: &[u8], settings: impl FnOnce(PathBuf) -> SourceSettings) {
    let path = path();
    std::fs::write(&path, data).expect("a place to write the file to");
    let opened = source::open(&settings(path.clone()));
    if let Ok(mut source) = opened {
        let (mut draft, mut ids, mut bytes, mut count) = (Draft::default(), DerivedIds::default(), Vec::new(), 0);
        while source.next_into(&mut draft).expect("a file that does not change") == Next::Draft {
            let id = MessageId { run: RunId(uuid::Uuid::from_u128(1)), sequence: count };
            bytes.clear();
            let transaction = draft.transaction(id, &mut ids, Micros(1), Micros(2));
            transaction.encode_into(&mut bytes);
            assert_eq!(Transaction::decode(&bytes).as_ref(), Ok(&transaction));
            count += 1;
        }
        assert_eq!(source.total(), Some(count as u64));
    }
    std::fs::remove_file(&path).expect("the file that was written");
}
