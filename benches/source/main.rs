//! What a source costs: `make bench-source`.
//!
//! Transactions are generated and encoded as the producer does it, on one thread, and thrown away. Allocations are counted by
//! the allocator itself, after a warm-up. `--cards SIZE` writes a card file of that size and reads it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs, unsafe_code)]

#[path = "../support/mod.rs"]
mod measuring;

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{BufWriter, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytesize::ByteSize;
use clap::Parser;
use finstream::clock::Micros;
use finstream::config::{CardsSettings, EventTimes, Shares, SourceSettings, SyntheticSettings};
use finstream::source::{self, DerivedIds, Draft, Next};
use finstream::transaction::{Currency, MessageId, RunId};
use measuring::resident_mib;
use uuid::Uuid;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

struct Counted;

// SAFETY: hands everything on to the system's allocator, and counts.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counted = Counted;

/// What a source costs.
#[derive(Parser)]
struct Args {
    /// Messages of a run.
    #[arg(long, default_value_t = 3_000_000)]
    messages: u64,
    /// Runs; the median is shown.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Reads a card file of this size, too.
    #[arg(long)]
    cards: Option<ByteSize>,
    /// What cargo passes to a benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let args = Args::parse();
    println!("| what | measured |\n|---|---|");
    let shares = [
        ("default shares", Shares::default()),
        ("5 % fraud, 5 % duplicates", Shares { fraud: 0.05, duplicates: 0.05, ..Shares::default() }),
    ];
    for (name, shares) in shares {
        let mut rates = Vec::new();
        let mut bytes_a_message = 0;
        let mut allocations = 0;
        for _ in 0..args.runs {
            let settings =
                SyntheticSettings { users: 10_000, zipf_exponent: 1.0, seed: 1, shares, event_times: EventTimes::Live };
            let mut generator = Generator::of(&SourceSettings::Synthetic(settings));
            // Warm-up: buffers, and the purchases that refunds are drawn from.
            generator.generate(100_000);
            let (before, begun) = (ALLOCATIONS.load(Ordering::Relaxed), Instant::now());
            let bytes = generator.generate(args.messages);
            rates.push(args.messages as f64 / begun.elapsed().as_secs_f64());
            allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
            bytes_a_message = bytes / args.messages;
        }
        rates.sort_by(f64::total_cmp);
        println!(
            "| synthetic, {name}: generated and encoded on one core | median {:.2} million/s, {:.2} to {:.2} ({} runs); {bytes_a_message} \
             bytes a message; {allocations} allocations in {} messages |",
            rates[rates.len() / 2] / 1e6,
            rates[0] / 1e6,
            rates[rates.len() - 1] / 1e6,
            rates.len(),
            args.messages,
        );
    }
    if let Some(size) = args.cards {
        cards(size);
    }
}

/// A source, and what the producer puts its transactions into.
struct Generator {
    source: Box<dyn source::Source>,
    draft: Draft,
    ids: DerivedIds,
    bytes: Vec<u8>,
    sequence: i64,
}

impl Generator {
    fn of(settings: &SourceSettings) -> Generator {
        let source = source::open(settings).unwrap();
        Generator { source, draft: Draft::default(), ids: DerivedIds::default(), bytes: Vec::new(), sequence: 0 }
    }

    /// Encodes so many, or all that are left; the bytes they took.
    fn generate(&mut self, messages: u64) -> u64 {
        let (run, mut written) = (RunId(Uuid::from_u128(1 << 100)), 0);
        for _ in 0..messages {
            if self.source.next_into(&mut self.draft).unwrap() != Next::Draft {
                break;
            }
            let due = Micros(1_700_000_000_000_000 + self.sequence);
            let id = MessageId { run, sequence: self.sequence };
            self.sequence += 1;
            self.bytes.clear();
            self.draft.transaction(id, &mut self.ids, due, due).encode_into(&mut self.bytes);
            written += self.bytes.len() as u64;
        }
        written
    }
}

fn cards(size: ByteSize) {
    let file = tempfile::Builder::new().suffix(".csv").tempfile().unwrap();
    let mut out = BufWriter::new(&file);
    let header = ",trans_date_trans_time,cc_num,merchant,category,amt,first,last,gender,street,city,state,zip,lat,long,\
                  city_pop,job,dob,trans_num,unix_time,merch_lat,merch_long,is_fraud";
    writeln!(out, "{header}").unwrap();
    let mut written = 0;
    for row in 0_u64.. {
        if written >= size.as_u64() {
            break;
        }
        let line = format!(
            "{row},2019-01-01 00:{:02}:{:02},27031861896520{:02},\"fraud_Rippin, Kub and Mann\",misc_net,{}.{:02},Jennifer,Banks,F,561 \
             Perry Cove,Moravian Falls,NC,28654,36.0788,-81.1781,3495,\"Psychologist, counselling\",1988-03-09,{row:032x},1325376018,\
             36.011293,-82.048315,0",
            row / 60 % 60,
            row % 60,
            row % 97,
            row % 500 + 1,
            row % 100
        );
        writeln!(out, "{line}").unwrap();
        written += line.len() as u64 + 1;
    }
    out.flush().unwrap();
    drop(out);
    let settings = CardsSettings {
        files: vec![file.path().to_path_buf()],
        map: Vec::new(),
        currency: Currency::USD,
        seed: 1,
        repeat: false,
    };
    let before = resident_mib(std::process::id());
    let begun = Instant::now();
    let mut generator = Generator::of(&SourceSettings::Cards(settings));
    let counted = begun.elapsed();
    let begun = Instant::now();
    generator.generate(u64::MAX);
    let rate = generator.sequence as f64 / begun.elapsed().as_secs_f64();
    println!(
        "| a card file of {size}: looked through, then read and encoded | {:.1} s, then {:.2} million rows/s; {} rows; memory grew by {} MiB |",
        counted.as_secs_f64(),
        rate / 1e6,
        generator.sequence,
        resident_mib(std::process::id()).saturating_sub(before)
    );
}
