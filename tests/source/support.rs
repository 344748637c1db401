//! Opens sources, and takes all that they give.

use std::path::{Path, PathBuf};

use finstream::config::SourceSettings;
use finstream::source::{self, Draft, Next, Source};

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

pub fn drain(source: &mut dyn Source, limit: usize) -> Vec<Draft> {
    let mut drafts = Vec::new();
    let mut draft = Draft::default();
    while drafts.len() < limit && source.next_into(&mut draft).unwrap() == Next::Draft {
        drafts.push(draft.clone());
    }
    drafts
}

pub fn all(settings: &SourceSettings) -> Vec<Draft> {
    drain(source::open(settings).unwrap().as_mut(), usize::MAX)
}

pub fn refusal(settings: &SourceSettings) -> String {
    source::open(settings).err().expect("must be refused").to_string()
}
