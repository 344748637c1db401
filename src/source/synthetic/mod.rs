//! Card transactions that never happened: the same ones for the same seed, whatever the machine, the rate and the hour.
//!
//! `people` says who the users are, `calendar` when they pay and for what, `merchants` where and how much, `fraud` what others
//! do with their cards. What the figures are taken from stands in docs/SOURCES.md.

use rust_decimal::Decimal;

use self::calendar::Calendar;
use self::fraud::Episodes;
use self::merchants::CATEGORIES;
use self::people::{Home, People, Person};
use super::draw::{Chance, Draw, TWO_TO_THE_64, Zipf};
use super::{Draft, Kind, Next, SkipReport, Source, SourceError, check_users, write_user_id};
use crate::config::{EventTimes, Shares, SyntheticSettings};

mod calendar;
mod fraud;
mod merchants;
mod people;

/// What is drawn for transactions, beside the arrivals of the same seed.
const STREAM: u64 = 0;
/// Purchases that are remembered for refunds.
const REMEMBERED_PURCHASES: usize = 1024;
/// No purchase is larger than this many US dollars: the log-normal tail has no end of its own.
const PURCHASE_USD_MAX: f64 = 50_000.0;
/// How late a late transaction is: on average, and at most.
const LATE_MEAN_US: f64 = 30e6;
const LATE_MAX_US: f64 = 3_600e6;
/// Why ordinary attempts are declined; the first more often than the others.
const DECLINED: [&str; 4] = ["insufficient_funds", "insufficient_funds", "do_not_honor", "expired_card"];

/// The endless synthetic source.
pub(super) struct Synthetic {
    draw: Draw,
    users: Zipf,
    people: People,
    calendar: Calendar,
    episodes: Episodes,
    event_times: EventTimes,
    /// Upper ends of one draw: duplicate, refund, declined attempt; the rest are purchases.
    kinds: [u64; 3],
    late: Chance,
    partly: Chance,
    remembered: Vec<Made>,
    /// What was sent last, and not as a duplicate.
    last: Option<Made>,
    /// Messages so far: each one's place in the run.
    messages: u64,
}

/// One transaction, before it is written out.
#[derive(Clone, Copy)]
struct Made {
    /// Its place in the run, once it has one.
    message: i64,
    kind: Kind,
    user: u64,
    home: &'static Home,
    category: usize,
    merchant: usize,
    country: &'static str,
    /// Of the home's currency.
    minor_units: i64,
    declined: Option<&'static str>,
    fraud: Option<&'static str>,
    refund_of: Option<i64>,
}

impl Made {
    fn purchase(user: u64, person: Person, category: usize, draw: &mut Draw) -> Made {
        let Person { home, level, .. } = person;
        let merchant = draw.below(CATEGORIES[category].merchants.len() as u64) as usize;
        let usd = level * CATEGORIES[category].median_usd * libm::exp(CATEGORIES[category].sigma * draw.normal());
        Made {
            message: 0,
            kind: Kind::Purchase,
            user,
            home,
            category,
            merchant,
            country: home.country,
            minor_units: amount(usd, home),
            declined: None,
            fraud: None,
            refund_of: None,
        }
    }
}

/// A random draw, not money yet, becomes an exact count of minor units here.
fn amount(usd: f64, home: &Home) -> i64 {
    let minor_units = 10_u32.pow(home.currency.minor_unit_digits());
    let units = usd.min(PURCHASE_USD_MAX) * home.per_usd * f64::from(minor_units);
    (units.round() as i64).max(1)
}

impl Synthetic {
    pub(super) fn new(settings: &SyntheticSettings) -> Result<Synthetic, SourceError> {
        let SyntheticSettings { users, zipf_exponent, seed, shares, event_times } = *settings;
        check_users(users)?;
        if !(0.0..=10.0).contains(&zipf_exponent) {
            return Err(SourceError::Setting(format!("--zipf {zipf_exponent} is not within 0 to 10")));
        }
        let Shares { refunds, declines, fraud, late, duplicates } = shares;
        // Of the messages that belong to no episode.
        let rest = (1.0 - fraud).max(f64::MIN_POSITIVE);
        let end = |share: f64| ((share / rest).min(1.0) * TWO_TO_THE_64) as u64;
        let paying = 1.0 - (refunds + duplicates) / rest;
        Ok(Synthetic {
            draw: Draw::seeded(seed, STREAM),
            users: Zipf::new(users, zipf_exponent),
            people: People::of(seed),
            calendar: Calendar::new(users),
            episodes: Episodes::new(fraud, paying.max(f64::MIN_POSITIVE), calendar::messages_an_hour(users)),
            event_times,
            kinds: [end(duplicates), end(duplicates + refunds), end(duplicates + refunds + declines)],
            late: Chance::of(late),
            partly: Chance::of(0.3),
            remembered: Vec::with_capacity(REMEMBERED_PURCHASES),
            last: None,
            messages: 0,
        })
    }

    /// The next transaction, and the message whose id it repeats.
    fn make(&mut self) -> (Made, Option<i64>) {
        if let Some(made) = self.episodes.due(self.messages, &self.people, &mut self.draw) {
            return (made, None);
        }
        let kind = self.draw.bits();
        if kind < self.kinds[0]
            && let Some(last) = self.last
        {
            return (last, Some(last.message));
        }
        if (self.kinds[0]..self.kinds[1]).contains(&kind)
            && let Some(refund) = self.refund()
        {
            return (refund, None);
        }
        let (user, person, category) = self.who_pays();
        if self.episodes.begins(&mut self.draw) {
            return (self.episodes.begin(self.messages, user, &self.people, &mut self.draw), None);
        }
        let mut made = Made::purchase(user, person, category, &mut self.draw);
        if (self.kinds[1]..self.kinds[2]).contains(&kind) {
            made.declined = Some(DECLINED[self.draw.below(DECLINED.len() as u64) as usize]);
        }
        (made, None)
    }

    /// Moves the calendar on to the next moment at which somebody pays.
    fn who_pays(&mut self) -> (u64, Person, usize) {
        loop {
            self.calendar.move_on(&mut self.draw);
            let user = self.users.draw(&mut self.draw);
            let person = self.people.person(user);
            let local = self.calendar.local(person.home.offset_hours);
            if self.calendar.pays(local, &mut self.draw) {
                return (user, person, self.calendar.category(person.profile, local, &mut self.draw));
            }
        }
    }

    /// Money back, most often all of it, for a purchase that was remembered and then is forgotten.
    fn refund(&mut self) -> Option<Made> {
        if self.remembered.is_empty() {
            return None;
        }
        let place = self.draw.below(self.remembered.len() as u64) as usize;
        let purchase = self.remembered.swap_remove(place);
        let minor_units = match self.draw.happens(self.partly) {
            true => self.draw.between(1, purchase.minor_units as u64) as i64,
            false => purchase.minor_units,
        };
        Some(Made { kind: Kind::Refund, minor_units, refund_of: Some(purchase.message), ..purchase })
    }

    fn remember(&mut self, made: Made) {
        if made.kind != Kind::Purchase || made.declined.is_some() || made.fraud.is_some() {
            return;
        }
        if self.remembered.len() < REMEMBERED_PURCHASES {
            self.remembered.push(made);
        } else {
            let place = self.draw.below(REMEMBERED_PURCHASES as u64) as usize;
            self.remembered[place] = made;
        }
    }
}

impl Source for Synthetic {
    fn next_into(&mut self, out: &mut Draft) -> Result<Next, SourceError> {
        let (mut made, repeats) = self.make();
        if repeats.is_none() {
            made.message = self.messages as i64;
            self.remember(made);
            self.last = Some(made);
        }
        self.messages += 1;
        let late_us = match self.draw.happens(self.late) {
            true => (self.draw.exponential() * LATE_MEAN_US).min(LATE_MAX_US) as i64,
            false => 0,
        };
        let currency = made.home.currency;
        let amount = Decimal::new(made.minor_units, currency.minor_unit_digits());
        let category = &CATEGORIES[made.category];
        out.transaction_id.clear();
        out.repeats = repeats;
        out.refund_of = made.refund_of;
        write_user_id(&mut out.user_id, made.user);
        out.kind = made.kind;
        out.currency = currency;
        (out.amount, out.requested_amount) = match made.declined {
            Some(_) => (Decimal::new(0, currency.minor_unit_digits()), Some(amount)),
            None => (amount, None),
        };
        out.declined = made.declined;
        out.fraud = made.fraud;
        out.mcc = category.mcc;
        out.country = made.country;
        out.late_us = late_us;
        out.event_time = match self.event_times {
            EventTimes::Live => None,
            EventTimes::Calendar => Some(self.calendar.now()),
        };
        out.merchant.clear();
        out.merchant.push_str(category.merchants[made.merchant]);
        out.category.clear();
        out.category.push_str(category.name);
        Ok(Next::Draft)
    }

    fn describe(&self) -> String {
        "synthetic".to_owned()
    }

    fn total(&self) -> Option<u64> {
        None
    }

    fn skipped(&self) -> SkipReport {
        SkipReport::default()
    }

    fn fingerprint(&self) -> Option<String> {
        None
    }

    fn has_event_times(&self) -> bool {
        self.event_times == EventTimes::Calendar
    }
}
