//! What the messages of one partition add to each total.

use std::collections::HashMap;

use rust_decimal::Decimal;

use super::exact::{ExactSum, NotExact};
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
    /// Adds to a user's spend.
    Purchase,
    /// Adds to a user's refunds.
    Refund,
    /// Adds to a user's trades, never to spend, and to the symbol.
    Trade { symbol: &'a str, quantity: i64, price: Decimal },
}

impl<'a> Event<'a> {
    /// The event of a decoded transaction at an offset.
    pub fn of(offset: i64, transaction: &'a Transaction<'_>) -> Self {
        let kind = match &transaction.detail {
            Detail::Purchase { .. } => Kind::Purchase,
            Detail::Refund { .. } => Kind::Refund,
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
    /// Earliest event time.
    pub first_event: Micros,
    /// Latest event time.
    pub last_event: Micros,
    /// Highest offset.
    pub last_offset: i64,
}

/// The price of the trade with the highest (event time, offset).
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deltas<'a> {
    /// By user id, then currency.
    pub users: Vec<UserDelta<'a>>,
    /// By symbol, then currency.
    pub symbols: Vec<SymbolDelta<'a>>,
}

/// Sums the events of one partition.
///
/// The order of the events does not matter: counts and sums commute, and the last price goes by event time and offset.
///
/// # Errors
/// [`NotExact`] when an amount has more decimals than the totals keep.
pub fn aggregate<'a>(events: impl IntoIterator<Item = Event<'a>>) -> Result<Deltas<'a>, NotExact> {
    let mut deltas = Deltas::default();
    let mut users: HashMap<(&'a str, Currency), usize> = HashMap::new();
    let mut symbols: HashMap<(&'a str, Currency), usize> = HashMap::new();
    for event in events {
        let place = *users.entry((event.user_id, event.currency)).or_insert_with(|| {
            deltas.users.push(UserDelta::before(&event));
            deltas.users.len() - 1
        });
        deltas.users[place].count(&event)?;
        if let Kind::Trade { symbol, quantity, price } = event.kind {
            let price = LastPrice { price, event_time: event.event_time, offset: event.offset };
            let place = *symbols.entry((symbol, event.currency)).or_insert_with(|| {
                deltas.symbols.push(SymbolDelta::before(symbol, event.currency, price));
                deltas.symbols.len() - 1
            });
            deltas.symbols[place].count(quantity, event.amount, price)?;
        }
    }
    deltas.users.sort_unstable_by_key(|delta| (delta.user_id, delta.currency));
    deltas.symbols.sort_unstable_by_key(|delta| (delta.symbol, delta.currency));
    Ok(deltas)
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
            first_event: event.event_time,
            last_event: event.event_time,
            last_offset: event.offset,
        }
    }

    fn count(&mut self, event: &Event<'a>) -> Result<(), NotExact> {
        let (count, sum) = match event.kind {
            Kind::Purchase => (&mut self.purchases, &mut self.spend),
            Kind::Refund => (&mut self.refunds, &mut self.refunded),
            Kind::Trade { .. } => (&mut self.trades, &mut self.traded),
        };
        sum.add(event.amount)?;
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
    use super::*;

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
        let deltas =
            aggregate([event(1, "ann", 100, Kind::Purchase), event(2, "ann", 900, trade("EA", 3, 3))]).unwrap();
        let ann = &deltas.users[0];
        assert_eq!((ann.purchases, ann.spend.units()), (1, 100_000_000));
        assert_eq!((ann.trades, ann.traded.units()), (1, 900_000_000));
        assert_eq!((ann.first_event, ann.last_event, ann.last_offset), (Micros(1), Micros(2), 2));
        assert_eq!(deltas.symbols[0].quantity, 3);
    }

    #[test]
    fn currencies_are_totalled_apart() {
        let mut euro = event(2, "ann", 100, Kind::Refund);
        euro.currency = "EUR".parse().unwrap();
        let deltas = aggregate([event(1, "ann", 100, Kind::Purchase), euro]).unwrap();
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
            let deltas = aggregate(events.clone()).unwrap();
            assert_eq!(deltas.symbols[0].last_price.price, Decimal::new(40, 0));
            assert_eq!(deltas.symbols[0].last_price.offset, 4);
            assert_eq!(deltas.symbols[0].last_offset, 5);
            assert_eq!(deltas.symbols[0].quantity, 7);
        }
    }

    #[test]
    fn deltas_come_sorted_by_key_so_that_rows_are_locked_in_one_order() {
        let users = ["bob", "zoe", "ann", "Bob"];
        let deltas = aggregate(users.iter().map(|user| event(1, user, 1, Kind::Purchase))).unwrap();
        let order: Vec<&str> = deltas.users.iter().map(|delta| delta.user_id).collect();
        assert_eq!(order, ["Bob", "ann", "bob", "zoe"]);
    }
}
