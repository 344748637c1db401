//! What Yahoo says of a symbol, one answer after the other -> trades. Pure: time is handed in.
//!
//! A quote tells the volume of the day so far, a bar that of a minute. Both may come in turns, so each symbol has one moment up
//! to which everything is counted; a bar that began before it is never counted, nor growth since a quote from before it.
//! The first answer only says where counting begins.

use super::super::yfinance::{Bar, LEGS, NIGHT_US, NOTIONAL_END, Trade};
use super::MINUTE_US;
use super::client::{Quote, Row, Skip};
use crate::clock::Micros;
use crate::transaction::Currency;

/// How long after its end a bar is taken for complete: Yahoo adds to the latest one for some seconds.
const SETTLED_AFTER_US: i64 = 15_000_000;
/// Behind the legs of a bar, for the users of trades.
const QUOTE_PLACE: i64 = LEGS;

/// A trade, of which symbol and currency stand elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Counted {
    /// Growth from one quote to the next.
    Quote { time: Micros, leg: String, place: i64, price: i64, quantity: i64 },
    /// One of the four of a bar.
    Leg { bar: Bar, place: i64 },
}

impl Counted {
    pub(super) fn trade<'a>(&'a self, symbol: &'a str, currency: Currency) -> Trade<'a> {
        match self {
            Counted::Leg { bar, place } => Trade::of_bar(bar, *place, symbol, currency),
            Counted::Quote { time, leg, place, price, quantity } => Trade {
                symbol,
                start: *time,
                leg,
                place: *place,
                time: *time,
                price: *price,
                quantity: *quantity,
                currency,
            },
        }
    }
}

/// What is known of one symbol.
#[derive(Debug)]
pub(super) struct Tape {
    name: String,
    /// Everything up to here is counted, or lies before the beginning. None: nothing is known.
    counted_until: Option<Micros>,
    /// The quote that growth counts from. None: the next one will be it.
    base: Option<Base>,
    /// It has no volume, so each new price is a trade of one unit.
    is_without_volume: bool,
    last_price: Option<i64>,
    /// Of the latest quote that became a trade, and how many have it.
    latest: Option<(Micros, i64)>,
}

/// The latest quote that told something new.
#[derive(Clone, Copy, Debug)]
struct Base {
    time: Micros,
    volume: i64,
}

impl Tape {
    pub(super) fn new(name: &str) -> Tape {
        // Until a quote says more, the name does: ^GSPC, EURUSD=X.
        let is_without_volume = name.starts_with('^') || name.ends_with("=X");
        let name = name.to_owned();
        Tape { name, counted_until: None, base: None, is_without_volume, last_price: None, latest: None }
    }

    /// What has been traded since the quote before.
    pub(super) fn quote(&mut self, quote: &Quote, now: Micros) -> Result<Option<Counted>, Skip> {
        self.is_without_volume |= quote.is_without_volume;
        let (time, price) = (quote.time.unwrap_or(now), quote.price.clone()?);
        let volume = if self.is_without_volume { 0 } else { quote.volume.clone()? };
        let Some(base) = self.base else {
            // One from before what bars have told would tell it again.
            if self.counted_until.is_none_or(|until| time > until) {
                (self.base, self.counted_until) = (Some(Base { time, volume }), Some(time));
                self.last_price = Some(price);
            }
            return Ok(None);
        };
        // Of Yahoo's servers, one is behind the other.
        if time < base.time {
            return Ok(None);
        }
        let quantity = match volume - base.volume {
            _ if self.is_without_volume => i64::from(self.last_price != Some(price)),
            grown @ 0.. => grown,
            _ if is_new_day(base, volume, time) => volume,
            // What was taken back is counted already: what follows counts beyond it.
            _ => return Err(("volume that fell within a day", self.fell(base, volume, time))),
        };
        let day_began = volume < base.volume;
        self.counted_until = self.counted_until.max(Some(time));
        if quantity == 0 && !day_began {
            return Ok(None);
        }
        (self.base, self.last_price) = (Some(Base { time, volume }), Some(price));
        if quantity == 0 {
            return Ok(None);
        }
        self.check_amount(price, quantity)?;
        let again = self.latest.filter(|(latest, _)| *latest == time).map_or(0, |(_, again)| again + 1);
        self.latest = Some((time, again));
        // Volume grows without a new time now and then, such as after the close.
        let leg = if again == 0 { "quote".to_owned() } else { format!("quote{}", again + 1) };
        Ok(Some(Counted::Quote { time, leg, place: QUOTE_PLACE + again, price, quantity }))
    }

    /// The trades of bars that are complete and have not been counted, in their order; what cannot be used is handed to `skip`.
    pub(super) fn bars(
        &mut self,
        rows: &[Row],
        now: Micros,
        mut skip: impl FnMut(Skip),
    ) -> Vec<(Counted, Option<Currency>)> {
        let mut trades = Vec::new();
        let Some(from) = self.counted_until else {
            let latest = rows.last().map_or(now, |row| row.start);
            self.counted_until = Some(end_of_minute(latest));
            self.last_price = rows.iter().rev().find_map(|row| Some(row.bar.as_ref().ok()?.0.close));
            return trades;
        };
        // The latest row of an open market is no minute: it is the last trade.
        let is_minute = |row: &&Row| row.start.0 % MINUTE_US == 0 && row.start > from;
        for row in rows.iter().filter(is_minute) {
            if now.since(row.start) < MINUTE_US + SETTLED_AFTER_US {
                break;
            }
            match self.bar(row) {
                Ok(Some(bar)) => {
                    let legs = (0..LEGS).map(|place| Counted::Leg { bar: bar.clone(), place });
                    trades.extend(legs.filter(has_quantity).map(|leg| (leg, row.currency)));
                }
                Ok(None) => {}
                Err(why) => skip(why),
            }
            (self.counted_until, self.base) = (Some(end_of_minute(row.start)), None);
        }
        trades
    }

    /// A row as bars of files are; None if nothing was traded.
    fn bar(&mut self, row: &Row) -> Result<Option<Bar>, Skip> {
        let (bar, volume) = row.bar.clone()?;
        if self.is_without_volume {
            let is_new = self.last_price.replace(bar.close) != Some(bar.close);
            self.check_amount(bar.close, 1)?;
            return Ok(is_new.then_some(Bar { volume: 1, is_close_only: true, ..bar }));
        }
        let missing = || ("bar without volume", format!("{} at {}: it has no volume", self.name, bar.start));
        let volume = volume.ok_or_else(missing)?;
        self.check_amount(bar.open.max(bar.high).max(bar.low).max(bar.close), volume)?;
        Ok((volume > 0).then_some(Bar { volume, ..bar }))
    }

    fn check_amount(&self, price: i64, quantity: i64) -> Result<(), Skip> {
        if i128::from(price) * i128::from(quantity) < NOTIONAL_END {
            return Ok(());
        }
        Err(("number out of range", format!("{}: price times volume {quantity} is 10^15 or more", self.name)))
    }

    fn fell(&self, base: Base, volume: i64, time: Micros) -> String {
        format!("{} at {time}: {volume} after {} at {}", self.name, base.volume, base.time)
    }
}

fn has_quantity(leg: &Counted) -> bool {
    leg.trade("", Currency::USD).quantity > 0
}

/// A corrected volume is a little lower, that of a new day is small. Futures rest for less than an hour between two days, so a
/// night alone does not tell.
fn is_new_day(base: Base, volume: i64, time: Micros) -> bool {
    volume < base.volume / 2 || time.since(base.time) >= NIGHT_US
}

/// The last moment of the minute that `time` is in.
fn end_of_minute(time: Micros) -> Micros {
    Micros(time.0 - time.0.rem_euclid(MINUTE_US) + MINUTE_US - 1)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// 2024-12-02 14:30:00.
    const OPEN: i64 = 1_733_149_800_000_000;
    const NOW: Micros = Micros(OPEN + 86_400_000_000);

    fn at(seconds: i64) -> Micros {
        Micros(OPEN + seconds * 1_000_000)
    }

    fn quote(seconds: i64, price: i64, volume: i64) -> Quote {
        Quote {
            symbol: 0,
            price: Ok(price),
            currency: Some(Currency::USD),
            volume: Ok(volume),
            is_without_volume: false,
            time: Some(at(seconds)),
            is_market_open: true,
        }
    }

    fn row(seconds: i64, volume: i64) -> Row {
        let (start, length_us, symbol) = (at(seconds), MINUTE_US, 0);
        let bar =
            Bar { start, length_us, symbol, open: 10, high: 30, low: 5, close: 20, volume: 0, is_close_only: false };
        Row { start, bar: Ok((bar, Some(volume))), currency: Some(Currency::USD) }
    }

    fn grown(tape: &mut Tape, quote: &Quote) -> Option<i64> {
        let counted = tape.quote(quote, NOW).unwrap()?;
        Some(counted.trade("AAPL", Currency::USD).quantity)
    }

    fn bars(tape: &mut Tape, rows: &[Row], now: Micros) -> i64 {
        let trades = tape.bars(rows, now, |why| panic!("{why:?}"));
        trades.iter().map(|(counted, _)| counted.trade("AAPL", Currency::USD).quantity).sum()
    }

    #[test]
    fn growth_counts_once_from_the_first_quote_on_whatever_server_answers() {
        let mut tape = Tape::new("AAPL");
        for (seconds, volume, expected) in [
            (0, 1_000, None),
            (5, 1_000, None),
            (10, 1_250, Some(250)),
            (5, 1_100, None),
            (10, 1_250, None),
            (10, 1_300, Some(50)),
            (15, 1_301, Some(1)),
        ] {
            assert_eq!(grown(&mut tape, &quote(seconds, 10, volume)), expected, "{seconds} s, {volume}");
        }
    }

    #[test]
    fn growth_without_a_new_time_has_an_id_of_its_own() {
        let mut tape = Tape::new("AAPL");
        let legs: Vec<String> = [1, 2, 3]
            .iter()
            .filter_map(|volume| match tape.quote(&quote(0, 10, *volume), NOW).unwrap()? {
                Counted::Quote { leg, .. } => Some(leg),
                Counted::Leg { .. } => None,
            })
            .collect();
        assert_eq!(legs, ["quote", "quote2"]);
    }

    #[test]
    fn a_volume_that_fell_is_a_new_day_or_a_correction() {
        let night = 17 * 3_600;
        for (seconds, volume, expected) in [(60, 40, Some(Some(40))), (night, 999, Some(Some(999))), (60, 990, None)] {
            let mut tape = Tape::new("AAPL");
            grown(&mut tape, &quote(0, 10, 1_000));
            let counted = tape.quote(&quote(seconds, 10, volume), NOW).ok();
            let quantity = counted.map(|counted| counted.map(|counted| counted.trade("", Currency::USD).quantity));
            assert_eq!(quantity, expected, "{seconds} s, {volume}");
        }
        let mut tape = Tape::new("AAPL");
        grown(&mut tape, &quote(0, 10, 1_000));
        assert_eq!(tape.quote(&quote(5, 10, 990), NOW).unwrap_err().0, "volume that fell within a day");
        assert_eq!(grown(&mut tape, &quote(10, 10, 1_010)), Some(10), "what was taken back is not counted again");
        let mut tape = Tape::new("AAPL");
        grown(&mut tape, &quote(0, 10, 1_000));
        assert_eq!(grown(&mut tape, &quote(night, 10, 0)), None);
        assert_eq!(grown(&mut tape, &quote(night + 5, 10, 7)), Some(7), "a day that begins with nothing");
    }

    #[test]
    fn without_a_volume_each_new_price_is_one_unit() {
        let mut tape = Tape::new("EURUSD=X");
        let quantities = [(0, 10), (5, 10), (10, 11), (15, 10)].map(|(s, price)| grown(&mut tape, &quote(s, price, 0)));
        assert_eq!(quantities, [None, None, Some(1), Some(1)]);
        // A minute's close is 20.
        assert_eq!(bars(&mut tape, &[row(60, 0), row(120, 0)], NOW), 1);
        let mut coin = Tape::new("BTC-USD");
        let rolling = |s, price, volume| Quote { is_without_volume: true, ..quote(s, price, volume) };
        let quantities =
            [(0, 10, 900), (5, 11, 800), (9, 11, 950)].map(|(s, p, v)| grown(&mut coin, &rolling(s, p, v)));
        assert_eq!(quantities, [None, Some(1), None]);
    }

    #[test]
    fn only_complete_minutes_after_the_first_answer_are_counted_and_each_once() {
        let mut tape = Tape::new("AAPL");
        // The last row is the last trade.
        assert_eq!(bars(&mut tape, &[row(0, 100), row(60, 100), row(97, 3)], at(100)), 0);
        let rows = [row(0, 100), row(60, 150), row(120, 200), row(180, 7)];
        assert_eq!(bars(&mut tape, &rows, at(190)), 0, "the minute from 120 on may still grow");
        assert_eq!(bars(&mut tape, &rows, at(195)), 200);
        assert_eq!(bars(&mut tape, &rows, at(196)), 0);
        assert_eq!(bars(&mut tape, &rows, at(900)), 7);
    }

    #[test]
    fn nothing_is_counted_by_quotes_and_by_bars() {
        let mut tape = Tape::new("AAPL");
        grown(&mut tape, &quote(0, 10, 1_000));
        assert_eq!(grown(&mut tape, &quote(65, 10, 1_100)), Some(100));
        // The minute from 60 on is counted in part.
        let rows = [row(0, 500), row(60, 500), row(120, 30), row(180, 40)];
        assert_eq!(bars(&mut tape, &rows, NOW), 70);
        assert_eq!(grown(&mut tape, &quote(200, 10, 1_900)), None, "a quote that is older than the bars");
        assert_eq!(grown(&mut tape, &quote(239, 10, 1_950)), None, "the same");
        assert_eq!(grown(&mut tape, &quote(241, 10, 2_000)), None, "where counting goes on");
        assert_eq!(grown(&mut tape, &quote(250, 10, 2_010)), Some(10));
        assert_eq!(bars(&mut tape, &[row(180, 40), row(240, 60), row(300, 5)], NOW), 5);
    }

    #[test]
    fn a_quote_that_cannot_be_used_loses_no_volume() {
        let mut tape = Tape::new("AAPL");
        grown(&mut tape, &quote(0, 10, 1_000));
        let skip = || ("missing price", String::new());
        assert!(tape.quote(&Quote { price: Err(skip()), ..quote(5, 0, 1_100) }, NOW).is_err());
        assert!(tape.quote(&Quote { volume: Err(skip()), ..quote(5, 10, 0) }, NOW).is_err());
        assert_eq!(grown(&mut tape, &quote(10, 10, 1_200)), Some(200));
    }

    #[test]
    fn amounts_that_no_transaction_may_have_are_left_out() {
        let mut tape = Tape::new("AAPL");
        grown(&mut tape, &quote(0, 1, 0));
        let refused = tape.quote(&quote(5, 10_000_000_000, 1_000_000_000), NOW).unwrap_err();
        assert_eq!(refused.0, "number out of range");
        assert_eq!(grown(&mut tape, &quote(6, 10_000, 1_000_000_001)), Some(1));
    }
}
