//! Any bytes as a yfinance file: it is refused, or gives as many trades as it says, and each can be read again.
#![no_main]

#[path = "support/file.rs"]
mod file;

use finstream::config::{SourceSettings, YfinanceSettings};
use finstream::transaction::Currency;

const SEEDS: [&[u8]; 3] = [
    include_bytes!("../../tests/fixtures/download_two_tickers.csv"),
    include_bytes!("../../tests/fixtures/group_by_ticker.csv"),
    include_bytes!("../../tests/fixtures/ZZ-15m-bad-rows.csv"),
];

libfuzzer_sys::fuzz_target!(init: file::write_seeds(&SEEDS), |data: &[u8]| {
    file::replay(data, |path| {
        SourceSettings::Yfinance(YfinanceSettings {
            files: vec![path],
            symbol: None,
            currency: Currency::USD,
            users: 10,
            seed: 1,
            repeat: false,
        })
    });
});
