//! What the messages of one partition add to each total.

use std::collections::HashMap;
use std::hash::Hash;

use foldhash::fast::RandomState;
use rust_decimal::Decimal;

use super::exact::{ExactSum, NotExact};
use super::window::{CategoryWindowDelta, Place, SymbolWindowDelta, Windowing};
use crate::clock::Micros;
use crate::transaction::{Currency, Detail, Transaction};

/// What a total needs to know of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// Offset in the partition.
    pub offset: i64,
    /// Whose total.
    pub user_id: &'a str,
    /// Totals of different currencies never mix.
    pub currency: Currency,
    /// What moved.
    pub amount: Decimal,
    /// When it happened in the business world.
    pub event_time: Micros,
    /// Which total.
    pub kind: Kind<'a>,
}

/// The kinds that are totalled differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    /// Adds to a user's spend, and to the merchant category.
    Purchase { category: &'a str },
    /// An attempt: adds to a user's declines, and moves no money.
    Declined,
    /// Adds to a user's refunds, and to the merchant category.
    Refund { category: &'a str },
    /// Adds to a user's trades, never to spend, and to the symbol.
    Trade { symbol: &'a str, quantity: i64, price: Decimal },
}

impl<'a> Event<'a> {
    /// The event of a decoded transaction at an offset.
    pub fn of(offset: i64, transaction: &'a Transaction<'_>) -> Self {
        let kind = match &transaction.detail {
            Detail::Purchase { .. } if transaction.is_declined() => Kind::Declined,
            Detail::Purchase { category, .. } => Kind::Purchase { category },
            Detail::Refund { category, .. } => Kind::Refund { category },
            Detail::Trade { symbol, quantity, price, .. } => Kind::Trade { symbol, quantity: *quantity, price: *price },
        };
        Event {
            offset,
            user_id: &transaction.user_id,
            currency: transaction.currency,
            amount: transaction.amount,
            event_time: transaction.event_time,
            kind,
        }
    }
}

/// What a batch adds to a user's total in one currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserDelta<'a> {
    pub user_id: &'a str,
    pub currency: Currency,
    /// Number of purchases.
    pub purchases: i64,
    /// Sum of the purchases.
    pub spend: ExactSum,
    /// Number of refunds.
    pub refunds: i64,
    /// Sum of the refunds.
    pub refunded: ExactSum,
    /// Number of trades.
    pub trades: i64,
    /// Sum of the trades' notionals.
    pub traded: ExactSum,
    /// Number of attempts that were declined.
    pub declines: i64,
    /// Earliest event time.
    pub first_event: Micros,
    /// Latest event time.
    pub last_event: Micros,
    /// Highest offset.
    pub last_offset: i64,
}

/// The price of a trade that is the last one, or the first, by (event time, offset).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastPrice {
    pub price: Decimal,
    pub event_time: Micros,
    pub offset: i64,
}

/// What a batch adds to a symbol's total in one currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SymbolDelta<'a> {
    pub symbol: &'a str,
    pub currency: Currency,
    /// Number of trades.
    pub trades: i64,
    /// Sum of their quantities.
    pub quantity: i128,
    /// Sum of price times quantity.
    pub notional: ExactSum,
    /// Of the batch's trades.
    pub last_price: LastPrice,
    /// Highest offset.
    pub last_offset: i64,
}

/// What the messages of one partition add, each list sorted by its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deltas<'a> {
    /// By user id, then currency.
    pub users: Vec<UserDelta<'a>>,
    /// By symbol, then currency.
    pub symbols: Vec<SymbolDelta<'a>>,
    /// By start, then category, then currency.
    pub category_windows: Vec<CategoryWindowDelta<'a>>,
    /// By start, then symbol, then currency.
    pub symbol_windows: Vec<SymbolWindowDelta<'a>>,
    /// The latest event time of these events and all before them.
    pub watermark: Option<Micros>,
}

/// Sums the events of one partition, which come in the order of their offsets.
///
/// Only what is said to be late depends on the order: counts and sums commute, and first and last prices go by event time
/// and offset.
///
/// # Errors
/// [`NotExact`] when an amount has more decimals than the totals keep.
pub fn aggregate<'a>(
    events: impl IntoIterator<Item = Event<'a>>,
    mut windowing: Windowing,
) -> Result<Deltas<'a>, NotExact> {
    let mut sums = Sums::default();
    for event in events {
        let place = windowing.place(event.event_time);
        sums.count(&event, place)?;
    }
    let Sums { mut users, mut symbols, mut category_windows, mut symbol_windows } = sums;
    users.rows.sort_unstable_by_key(|delta| (delta.user_id, delta.currency));
    symbols.rows.sort_unstable_by_key(|delta| (delta.symbol, delta.currency));
    category_windows.rows.sort_unstable_by_key(|delta| (delta.start, delta.category, delta.currency));
    symbol_windows.rows.sort_unstable_by_key(|delta| (delta.start, delta.symbol, delta.currency));
    Ok(Deltas {
        users: users.rows,
        symbols: symbols.rows,
        category_windows: category_windows.rows,
        symbol_windows: symbol_windows.rows,
        watermark: windowing.watermark,
    })
}

/// Rows with their places by key.
struct Table<K, T> {
    rows: Vec<T>,
    places: HashMap<K, usize, RandomState>,
}

impl<K, T> Default for Table<K, T> {
    fn default() -> Self {
        Table { rows: Vec::new(), places: HashMap::default() }
    }
}

impl<K: Eq + Hash, T> Table<K, T> {
    fn row(&mut self, key: K, first: impl FnOnce() -> T) -> &mut T {
        let place = *self.places.entry(key).or_insert_with(|| {
            self.rows.push(first());
            self.rows.len() - 1
        });
        &mut self.rows[place]
    }
}

#[derive(Default)]
struct Sums<'a> {
    users: Table<(&'a str, Currency), UserDelta<'a>>,
    symbols: Table<(&'a str, Currency), SymbolDelta<'a>>,
    category_windows: Table<(Micros, &'a str, Currency), CategoryWindowDelta<'a>>,
    symbol_windows: Table<(Micros, &'a str, Currency), SymbolWindowDelta<'a>>,
}

impl<'a> Sums<'a> {
    fn count(&mut self, event: &Event<'a>, place: Place) -> Result<(), NotExact> {
        let (currency, amount) = (event.currency, event.amount);
        self.users.row((event.user_id, currency), || UserDelta::before(event)).count(event)?;
        match event.kind {
            Kind::Declined => Ok(()),
            Kind::Purchase { category } => self.category_window(category, event, place).purchase(amount),
            Kind::Refund { category } => self.category_window(category, event, place).refund(amount),
            Kind::Trade { symbol, quantity, price } => {
                let price = LastPrice { price, event_time: event.event_time, offset: event.offset };
                let first = || SymbolDelta::before(symbol, currency, price);
                self.symbols.row((symbol, currency), first).count(quantity, amount, price)?;
                let first = || SymbolWindowDelta::before(place.start, symbol, currency, price);
                let window = self.symbol_windows.row((place.start, symbol, currency), first);
                window.late.count(place.late_us);
                window.last_offset = window.last_offset.max(event.offset);
                window.trade(quantity, amount, price)
            }
        }
    }

    fn category_window(&mut self, category: &'a str, event: &Event<'a>, place: Place) -> &mut CategoryWindowDelta<'a> {
        let first = || CategoryWindowDelta::before(place.start, category, event.currency, event.offset);
        let window = self.category_windows.row((place.start, category, event.currency), first);
        window.late.count(place.late_us);
        window.last_offset = window.last_offset.max(event.offset);
        window
    }
}

impl<'a> UserDelta<'a> {
    fn before(event: &Event<'a>) -> Self {
        UserDelta {
            user_id: event.user_id,
            currency: event.currency,
            purchases: 0,
            spend: ExactSum::default(),
            refunds: 0,
            refunded: ExactSum::default(),
            trades: 0,
            traded: ExactSum::default(),
            declines: 0,
            first_event: event.event_time,
            last_event: event.event_time,
            last_offset: event.offset,
        }
    }

    fn count(&mut self, event: &Event<'a>) -> Result<(), NotExact> {
        let (count, sum) = match event.kind {
            Kind::Purchase { .. } => (&mut self.purchases, Some(&mut self.spend)),
            Kind::Declined => (&mut self.declines, None),
            Kind::Refund { .. } => (&mut self.refunds, Some(&mut self.refunded)),
            Kind::Trade { .. } => (&mut self.trades, Some(&mut self.traded)),
        };
        sum.map_or(Ok(()), |sum| sum.add(event.amount))?;
        *count += 1;
        self.first_event = self.first_event.min(event.event_time);
        self.last_event = self.last_event.max(event.event_time);
        self.last_offset = self.last_offset.max(event.offset);
        Ok(())
    }
}

impl<'a> SymbolDelta<'a> {
    fn before(symbol: &'a str, currency: Currency, price: LastPrice) -> Self {
        SymbolDelta {
            symbol,
            currency,
            trades: 0,
            quantity: 0,
            notional: ExactSum::default(),
            last_price: price,
            last_offset: price.offset,
        }
    }

    fn count(&mut self, quantity: i64, notional: Decimal, price: LastPrice) -> Result<(), NotExact> {
        self.notional.add(notional)?;
        self.trades += 1;
        // A batch of 2^63 trades would be needed to leave 128 bits.
        self.quantity += i128::from(quantity);
        if (price.event_time, price.offset) > (self.last_price.event_time, self.last_price.offset) {
            self.last_price = price;
        }
        self.last_offset = self.last_offset.max(price.offset);
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::window::{Late, WindowLength};
    use super::*;

    const PURCHASE: Kind<'static> = Kind::Purchase { category: "fuel" };
    const REFUND: Kind<'static> = Kind::Refund { category: "fuel" };
    const WINDOWING: Windowing = Windowing { length: WindowLength::DEFAULT, watermark: None };

    fn sum<'a>(events: impl IntoIterator<Item = Event<'a>>) -> Deltas<'a> {
        aggregate(events, WINDOWING).unwrap()
    }

    fn event<'a>(offset: i64, user_id: &'a str, cents: i64, kind: Kind<'a>) -> Event<'a> {
        Event {
            offset,
            user_id,
            currency: Currency::USD,
            amount: Decimal::new(cents, 2),
            event_time: Micros(offset),
            kind,
        }
    }

    fn trade(symbol: &str, quantity: i64, price: i64) -> Kind<'_> {
        Kind::Trade { symbol, quantity, price: Decimal::new(price, 0) }
    }

    #[test]
    fn trades_never_add_to_spend() {
        let deltas = sum([event(1, "ann", 100, PURCHASE), event(2, "ann", 900, trade("EA", 3, 3))]);
        let ann = &deltas.users[0];
        assert_eq!((ann.purchases, ann.spend.units()), (1, 100_000_000));
        assert_eq!((ann.trades, ann.traded.units()), (1, 900_000_000));
        assert_eq!((ann.first_event, ann.last_event, ann.last_offset), (Micros(1), Micros(2), 2));
        assert_eq!(deltas.symbols[0].quantity, 3);
    }

    #[test]
    fn currencies_are_totalled_apart() {
        let mut euro = event(2, "ann", 100, REFUND);
        euro.currency = "EUR".parse().unwrap();
        let deltas = sum([event(1, "ann", 100, PURCHASE), euro]);
        assert_eq!(deltas.users.len(), 2);
        assert_eq!(deltas.users[0].currency.as_str(), "EUR");
        assert_eq!((deltas.users[0].refunds, deltas.users[0].refunded.units()), (1, 100_000_000));
    }

    #[test]
    fn the_last_price_goes_by_event_time_then_offset_in_any_order() {
        let mut events = vec![
            event(3, "a", 1, trade("EA", 1, 30)),
            event(5, "b", 1, trade("EA", 2, 50)),
            event(4, "c", 1, trade("EA", 4, 40)),
        ];
        events[0].event_time = Micros(9);
        events[2].event_time = Micros(9);
        for _ in 0..3 {
            events.rotate_left(1);
            let deltas = sum(events.clone());
            assert_eq!(deltas.symbols[0].last_price.price, Decimal::new(40, 0));
            assert_eq!(deltas.symbols[0].last_price.offset, 4);
            assert_eq!(deltas.symbols[0].last_offset, 5);
            assert_eq!(deltas.symbols[0].quantity, 7);
        }
    }

    #[test]
    fn deltas_come_sorted_by_key_so_that_rows_are_locked_in_one_order() {
        let users = ["bob", "zoe", "ann", "Bob"];
        let deltas = sum(users.iter().map(|user| event(1, user, 1, PURCHASE)));
        let order: Vec<&str> = deltas.users.iter().map(|delta| delta.user_id).collect();
        assert_eq!(order, ["Bob", "ann", "bob", "zoe"]);
    }

    #[test]
    fn a_late_message_adds_to_its_own_window_and_is_counted_as_late() {
        let minute = WindowLength::DEFAULT.micros();
        let at = |offset, event_time, kind| Event { event_time: Micros(event_time), ..event(offset, "a", 100, kind) };
        let deltas = sum([
            at(1, 30, PURCHASE),
            at(2, 2 * minute + 7, PURCHASE),
            at(3, 40, Kind::Purchase { category: "dining" }),
            at(4, minute, REFUND),
            at(5, 50, PURCHASE),
        ]);
        let windows: Vec<_> = deltas
            .category_windows
            .iter()
            .map(|window| (window.start.0, window.category, window.purchases, window.refunds, window.late))
            .collect();
        let late = |messages, us_max| Late { messages, us_max };
        assert_eq!(
            windows,
            [
                (0, "dining", 1, 0, late(1, minute + 7)),
                (0, "fuel", 2, 0, late(1, minute + 7)),
                (minute, "fuel", 0, 1, late(1, 7)),
                (2 * minute, "fuel", 1, 0, late(0, 0)),
            ]
        );
        assert_eq!(deltas.watermark, Some(Micros(2 * minute + 7)));
        assert_eq!(deltas.category_windows[1].last_offset, 5);
        assert_eq!(deltas.category_windows[2].purchase_range, None);
    }

    #[test]
    fn open_and_close_go_by_event_time_then_offset_high_and_low_by_price() {
        let trades = [(3, 9, 30), (4, 9, 90), (5, 2, 20), (6, 2, 10), (7, 5, 50)];
        let events = trades.map(|(offset, event_time, price)| Event {
            event_time: Micros(event_time),
            ..event(offset, "a", price * 100, trade("EA", 1, price))
        });
        let deltas = sum(events);
        let window = &deltas.symbol_windows[0];
        assert_eq!((window.open.price, window.close.price), (Decimal::from(20), Decimal::from(90)));
        assert_eq!((window.high, window.low), (Decimal::from(90), Decimal::from(10)));
        assert_eq!((window.trades, window.quantity, window.last_offset), (5, 5, 7));
    }
}
