//! Any bytes as a card file: it is refused, or gives as many transactions as it says, and each can be read again. Its columns
//! are mapped when the first byte is odd.
#![no_main]

#[path = "support/file.rs"]
mod file;

use finstream::config::{CardsSettings, SourceSettings};
use finstream::transaction::Currency;

const SEEDS: [&[u8]; 3] = [
    b" ,trans_date_trans_time,cc_num,merchant,category,amt,trans_num,unix_time,is_fraud\n0,2019-01-01 00:00:18,27,\"a, b\",misc,4.97,0b24,1325376018,0\n",
    b" ssn|cc_num|trans_num|trans_date|trans_time|unix_time|category|amt|is_fraud|merchant\n1|42|91ab|2012-01-01|23:15:18|13|gas|69.12|1|m\n",
    b"!u;a;t;c\nann;-1.50;1325376018000;EUR\nbob;2;2020-01-02T10:00:00+01:00;\n",
];

libfuzzer_sys::fuzz_target!(init: file::write_seeds(&SEEDS), |data: &[u8]| {
    let Some((first, data)) = data.split_first() else { return };
    let map = match first % 2 {
        0 => Vec::new(),
        _ => [("user", "u"), ("amount", "a"), ("time", "t"), ("currency", "c")]
            .map(|(field, column)| (field.to_owned(), column.to_owned()))
            .to_vec(),
    };
    file::replay(data, |path| {
        SourceSettings::Cards(CardsSettings { files: vec![path], map, currency: Currency::USD, seed: 1, repeat: false })
    });
});
