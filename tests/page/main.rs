//! The page in a real browser: its figures, its states, whoever reads it. Needs what `scripts/browser.sh` installs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod access;
mod browser;
mod document;
mod figures;
mod real;
mod server;
mod states;
#[path = "../support/mod.rs"]
mod support;

/// All files of the page together; what a phone on a slow line would wait for.
const ASSETS_BYTES_MAX: u64 = 150_000;

#[test]
fn all_files_of_the_page_together_are_small_and_each_is_served() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http/page");
    let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()).collect();
    let bytes: u64 = files.iter().map(|file| file.metadata().unwrap().len()).sum();
    println!("{} files, {bytes} bytes", files.len());
    assert!(bytes < ASSETS_BYTES_MAX, "{bytes} bytes");
    assert_eq!(files.len(), server::FILES.len(), "a file that tests/page/server.rs does not serve");
}
