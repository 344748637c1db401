//! What the messages of one partition add to windows of event time, and which of them are late.
//!
//! Nothing is dropped for being late: a message adds to the window that its event time lies in. It is late when an event
//! at or beyond that window's end had been applied before it in its partition.

use std::fmt;
use std::time::Duration;

use rust_decimal::Decimal;

use super::delta::LastPrice;
use super::exact::{ExactSum, NotExact};
use crate::clock::Micros;
use crate::transaction::Currency;

/// Length of a window, at least a microsecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowLength(i64);

impl WindowLength {
    /// A minute.
    pub const DEFAULT: WindowLength = WindowLength(60_000_000);

    /// None for a length that is not above 0.
    pub fn from_micros(micros: i64) -> Option<WindowLength> {
        (micros > 0).then_some(WindowLength(micros))
    }

    /// As `from_micros`; none beyond what 64 bits hold, too.
    pub fn of(length: Duration) -> Option<WindowLength> {
        i64::try_from(length.as_micros()).ok().and_then(Self::from_micros)
    }

    /// In microseconds.
    pub fn micros(self) -> i64 {
        self.0
    }

    /// Start of the window that a point in time lies in; windows are laid from 1970 on, in UTC.
    pub fn start_of(self, event_time: Micros) -> Micros {
        Micros(event_time.0.div_euclid(self.0).saturating_mul(self.0))
    }
}

impl fmt::Display for WindowLength {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(Duration::from_micros(self.0.unsigned_abs())).fmt(formatter)
    }
}

/// How the events of one partition fall into windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windowing {
    pub length: WindowLength,
    /// The latest event time that was applied before; none when nothing was.
    pub watermark: Option<Micros>,
}

/// Where an event falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub start: Micros,
    /// Watermark less the window's end, in microseconds, when the window had ended.
    pub late_us: Option<i64>,
}

impl Windowing {
    /// Places the next event of the partition, and moves the watermark.
    pub(super) fn place(&mut self, event_time: Micros) -> Place {
        let start = self.length.start_of(event_time);
        let end = start.0.saturating_add(self.length.0);
        let late_us = self.watermark.map(|seen| seen.0.saturating_sub(end)).filter(|late_us| *late_us >= 0);
        self.watermark = self.watermark.max(Some(event_time));
        Place { start, late_us }
    }
}

/// Messages that came when their window had ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Late {
    /// How many.
    pub messages: i64,
    /// The largest lateness, in microseconds; 0 when none was late.
    pub us_max: i64,
}

impl Late {
    pub(super) fn count(&mut self, late_us: Option<i64>) {
        let Some(late_us) = late_us else { return };
        self.messages += 1;
        self.us_max = self.us_max.max(late_us);
    }
}

/// What a batch adds to the window of a merchant category in one currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CategoryWindowDelta<'a> {
    pub start: Micros,
    pub category: &'a str,
    pub currency: Currency,
    /// Number of purchases.
    pub purchases: i64,
    /// Their sum.
    pub spend: ExactSum,
    /// The smallest and the largest of them.
    pub purchase_range: Option<(Decimal, Decimal)>,
    /// Number of refunds.
    pub refunds: i64,
    /// Their sum.
    pub refunded: ExactSum,
    pub late: Late,
    /// Highest offset.
    pub last_offset: i64,
}

impl<'a> CategoryWindowDelta<'a> {
    pub(super) fn before(start: Micros, category: &'a str, currency: Currency, offset: i64) -> Self {
        CategoryWindowDelta {
            start,
            category,
            currency,
            purchases: 0,
            spend: ExactSum::default(),
            purchase_range: None,
            refunds: 0,
            refunded: ExactSum::default(),
            late: Late::default(),
            last_offset: offset,
        }
    }

    pub(super) fn purchase(&mut self, amount: Decimal) -> Result<(), NotExact> {
        self.spend.add(amount)?;
        self.purchases += 1;
        let (min, max) = self.purchase_range.unwrap_or((amount, amount));
        self.purchase_range = Some((min.min(amount), max.max(amount)));
        Ok(())
    }

    pub(super) fn refund(&mut self, amount: Decimal) -> Result<(), NotExact> {
        self.refunded.add(amount)?;
        self.refunds += 1;
        Ok(())
    }
}

/// What a batch adds to the window of a symbol in one currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SymbolWindowDelta<'a> {
    pub start: Micros,
    pub symbol: &'a str,
    pub currency: Currency,
    /// Number of trades.
    pub trades: i64,
    /// Sum of their quantities.
    pub quantity: i128,
    /// Sum of price times quantity.
    pub notional: ExactSum,
    /// The price of the trade with the lowest (event time, offset).
    pub open: LastPrice,
    /// The highest price.
    pub high: Decimal,
    /// The lowest price.
    pub low: Decimal,
    /// The price of the trade with the highest (event time, offset).
    pub close: LastPrice,
    pub late: Late,
    /// Highest offset.
    pub last_offset: i64,
}

impl<'a> SymbolWindowDelta<'a> {
    pub(super) fn before(start: Micros, symbol: &'a str, currency: Currency, price: LastPrice) -> Self {
        SymbolWindowDelta {
            start,
            symbol,
            currency,
            trades: 0,
            quantity: 0,
            notional: ExactSum::default(),
            open: price,
            high: price.price,
            low: price.price,
            close: price,
            late: Late::default(),
            last_offset: price.offset,
        }
    }

    pub(super) fn trade(&mut self, quantity: i64, notional: Decimal, price: LastPrice) -> Result<(), NotExact> {
        self.notional.add(notional)?;
        self.trades += 1;
        self.quantity += i128::from(quantity);
        let place = |price: &LastPrice| (price.event_time, price.offset);
        if place(&price) < place(&self.open) {
            self.open = price;
        }
        if place(&price) > place(&self.close) {
            self.close = price;
        }
        self.high = self.high.max(price.price);
        self.low = self.low.min(price.price);
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_laid_from_1970_on_in_both_directions() {
        let minute = WindowLength::DEFAULT;
        for (event_time, start) in
            [(0, 0), (59_999_999, 0), (60_000_000, 60_000_000), (-1, -60_000_000), (-60_000_000, -60_000_000)]
        {
            assert_eq!(minute.start_of(Micros(event_time)), Micros(start), "{event_time}");
        }
        assert_eq!((WindowLength::from_micros(0), WindowLength::from_micros(-1)), (None, None));
    }

    #[test]
    fn a_message_is_late_when_an_event_at_or_beyond_its_windows_end_came_before_it() {
        let mut windowing = Windowing { length: WindowLength::from_micros(10).unwrap(), watermark: None };
        let mut late_us = |event_time| windowing.place(Micros(event_time)).late_us;
        assert_eq!([late_us(12), late_us(5), late_us(19), late_us(20)], [None, Some(2), None, None]);
        // The watermark stands at 20, where the window from 10 to 20 has ended by nothing.
        assert_eq!([late_us(11), late_us(21), late_us(0)], [Some(0), None, Some(11)]);
        assert_eq!(windowing.watermark, Some(Micros(21)));
    }
}
