//! Trades from yfinance price files.
//!
//! A bar becomes four trades, at its open, high, low and close (low before high if it closed up), a quarter of the bar
//! apart. Its volume is split into four integers that add up to it; a leg that gets none is not sent. A file of closing prices
//! alone gives one trade of one unit a price. All files are
//! read before the first trade, so that what is wrong with one is known at once, and replayed in time order.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use chrono::DateTime;
use rust_decimal::Decimal;

use self::read::Bars;
use super::draw::mix;
use super::repeated::Rewind;
use super::{Draft, Kind, Next, SkipReport, Source, SourceError, check_users, files, write_user_id};
use crate::clock::Micros;
use crate::config::YfinanceSettings;
use crate::transaction::{Currency, Side};

mod layout;
mod number;
mod read;

pub(super) use number::{parse_scaled, parse_whole};
pub(super) use read::{Bar, NOTIONAL_END, PRICE_SCALE};

pub(super) const LEGS: i64 = 4;
/// A longer pause between two bars parts two days; where there is none, days of 24 hours follow each other.
pub(super) const NIGHT_US: i64 = 4 * 3_600_000_000;
const DAY_US: i64 = 86_400_000_000;
/// No part of a day is shorter, whatever the file says.
const PART_US_MIN: i64 = 1_000_000;

/// The volumes of an intraday file, summed over its days by the time since each day's first bar, in steps of a bar: 86,400
/// at most.
pub(super) fn volumes_by_time_of_day(path: &Path) -> Result<Vec<f64>, SourceError> {
    let mut bars = Bars::default();
    bars.read(path, None)?;
    bars.sort();
    let step_us = read::usual_step_us(&bars.bars).max(PART_US_MIN);
    let mut volumes = Vec::new();
    let Some(first) = bars.bars.first() else { return Ok(volumes) };
    let (mut day, mut last) = (first.start.0, first.start.0);
    for bar in &bars.bars {
        let start = bar.start.0;
        day = if start - last >= NIGHT_US { start } else { day + (start - day) / DAY_US * DAY_US };
        last = start;
        let place = ((start - day) / step_us) as usize;
        if volumes.len() <= place {
            volumes.resize(place + 1, 0.0);
        }
        volumes[place] += bar.volume as f64;
    }
    Ok(volumes)
}

/// A replay of yfinance files.
pub(super) struct Yfinance {
    files: Vec<PathBuf>,
    bars: Bars,
    currency: Currency,
    users: u64,
    seed: u64,
    next_bar: usize,
    /// Legs of bars that have begun: time, bar, place in the bar. The earliest is on top.
    waiting: BinaryHeap<Reverse<(Micros, usize, i64)>>,
}

impl Yfinance {
    pub(super) fn open(settings: &YfinanceSettings) -> Result<Yfinance, SourceError> {
        let YfinanceSettings { symbol, currency, users, seed, .. } = settings;
        check_users(*users)?;
        let files = files::expand(&settings.files, "yfinance", "prices.csv")?;
        let mut bars = Bars::default();
        for file in &files {
            bars.read(file, symbol.as_deref())?;
        }
        bars.sort();
        let waiting = BinaryHeap::new();
        Ok(Yfinance { files, bars, currency: *currency, users: *users, seed: *seed, next_bar: 0, waiting })
    }

    /// The next leg in time order, those without quantity passed over.
    fn next_leg(&mut self) -> Option<(Micros, usize, i64)> {
        loop {
            while let Some(bar) = self.bars.bars.get(self.next_bar) {
                if self.waiting.peek().is_some_and(|Reverse((time, ..))| *time < bar.start) {
                    break;
                }
                for place in (0..LEGS).filter(|place| quantity(bar, *place) > 0) {
                    self.waiting.push(Reverse((leg_time(bar, place), self.next_bar, place)));
                }
                self.next_bar += 1;
            }
            // Only if all bars are used up and nothing waits is this the end.
            match self.waiting.pop() {
                Some(Reverse(leg)) => return Some(leg),
                None if self.next_bar >= self.bars.bars.len() => return None,
                None => {}
            }
        }
    }
}

impl Rewind for Yfinance {
    fn rewind(&mut self) {
        self.next_bar = 0;
    }
}

impl Source for Yfinance {
    fn next_into(&mut self, out: &mut Draft) -> Result<Next, SourceError> {
        let Some((_, index, place)) = self.next_leg() else { return Ok(Next::End) };
        let bar = &self.bars.bars[index];
        let symbol = &self.bars.symbols[bar.symbol as usize];
        Trade::of_bar(bar, place, symbol, self.currency).write(self.seed, self.users, out);
        Ok(Next::Draft)
    }

    fn describe(&self) -> String {
        let files: Vec<_> = self.files.iter().map(|file| file.display().to_string()).collect();
        format!("yfinance:{}", files.join(","))
    }

    fn total(&self) -> Option<u64> {
        Some(self.bars.bars.iter().map(|bar| bar.volume.min(LEGS) as u64).sum())
    }

    fn skipped(&self) -> SkipReport {
        self.bars.skipped.clone()
    }

    fn fingerprint(&self) -> Option<String> {
        let mut hash = Fnv::new();
        for value in [self.users, self.seed] {
            hash.add(&value.to_le_bytes());
        }
        hash.add(self.currency.as_str().as_bytes());
        for bar in &self.bars.bars {
            hash.add(self.bars.symbols[bar.symbol as usize].as_bytes());
            for value in [bar.start.0, bar.length_us, bar.open, bar.high, bar.low, bar.close, bar.volume] {
                hash.add(&value.to_le_bytes());
            }
            // Bars of before had a volume: what was begun with them is continued.
            if bar.is_close_only {
                hash.add(b"close only");
            }
        }
        Some(format!("{:016x}-{}-bars", hash.0, self.bars.bars.len()))
    }

    fn has_event_times(&self) -> bool {
        true
    }
}

/// A trade that a price and a volume stand for, from wherever these come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trade<'a> {
    pub(super) symbol: &'a str,
    /// When what it is made of began, such as its bar: symbol, start and leg are its id.
    pub(super) start: Micros,
    /// Such as `open`.
    pub(super) leg: &'a str,
    /// Of the leg, so that each falls to a user of its own.
    pub(super) place: i64,
    pub(super) time: Micros,
    /// At [`PRICE_SCALE`].
    pub(super) price: i64,
    pub(super) quantity: i64,
    pub(super) currency: Currency,
}

impl<'a> Trade<'a> {
    /// The one at this place of a bar, a quarter of the bar after the one before.
    pub(super) fn of_bar(bar: &Bar, place: i64, symbol: &'a str, currency: Currency) -> Trade<'a> {
        let (leg, price) = leg_of(bar, place);
        let time = leg_time(bar, place);
        Trade { symbol, start: bar.start, leg, place, time, price, quantity: quantity(bar, place), currency }
    }

    pub(super) fn write(&self, seed: u64, users: u64, out: &mut Draft) {
        let hash = whose(seed, self.symbol, self.start, self.place);
        out.kind = Kind::Trade;
        out.transaction_id.clear();
        // Writing to a String cannot fail; the time was checked when it was read.
        let start = DateTime::from_timestamp_micros(self.start.0).unwrap_or_default();
        let _ = write!(out.transaction_id, "{}:{}:{}", self.symbol, start.format("%Y%m%dT%H%M%SZ"), self.leg);
        write_user_id(&mut out.user_id, hash % users + 1);
        out.side = if hash >> 63 == 0 { Side::Buy } else { Side::Sell };
        out.symbol.clear();
        out.symbol.push_str(self.symbol);
        out.quantity = self.quantity;
        out.price = Decimal::new(self.price, PRICE_SCALE);
        out.amount = Decimal::from_i128_with_scale(i128::from(self.price) * i128::from(self.quantity), PRICE_SCALE);
        out.currency = self.currency;
        out.event_time = Some(self.time);
    }
}

/// The legs of a bar are a quarter of it apart.
fn leg_time(bar: &Bar, place: i64) -> Micros {
    Micros(bar.start.0 + bar.length_us / LEGS * place)
}

/// Name and price of the trade at this place of a bar.
fn leg_of(bar: &Bar, place: i64) -> (&'static str, i64) {
    let closed_up = bar.close >= bar.open;
    match (place, closed_up) {
        (0, _) => ("open", bar.open),
        (1, true) | (2, false) => ("low", bar.low),
        (1, false) | (2, true) => ("high", bar.high),
        _ => ("close", bar.close),
    }
}

/// The share of a bar's volume at this place: quarters, what is left over goes to the first ones.
fn quantity(bar: &Bar, place: i64) -> i64 {
    let volume = bar.volume;
    if bar.is_close_only {
        return if place == LEGS - 1 { volume } else { 0 };
    }
    volume / LEGS + i64::from(place < volume % LEGS)
}

/// Spreads trades over users and sides: the same trade always falls to the same user.
fn whose(seed: u64, symbol: &str, start: Micros, place: i64) -> u64 {
    let mut hash = Fnv::new();
    hash.add(&seed.to_le_bytes());
    hash.add(symbol.as_bytes());
    hash.add(&start.0.to_le_bytes());
    hash.add(&place.to_le_bytes());
    // FNV alone leaves the high bits of short inputs alike.
    mix(hash.0)
}

/// FNV-1a, 64 bits: stable over versions, which the standard library's hasher does not promise.
struct Fnv(u64);

impl Fnv {
    fn new() -> Self {
        Fnv(0xcbf2_9ce4_8422_2325)
    }

    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
