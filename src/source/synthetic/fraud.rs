//! Fraud in episodes: a stolen card is tried out in a burst, or used in a country where its owner cannot be.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::super::draw::{Chance, Draw};
use super::merchants::CATEGORIES;
use super::people::{HOMES, People, Person};
use super::{Made, amount};

/// The labels, as they stand in the messages.
const CARD_TESTING: &str = "card_testing";
const IMPOSSIBLE_TRAVEL: &str = "impossible_travel";

/// Under way at once, at most.
const EPISODES_MAX: usize = 1024;
/// Small payments by which a stolen card is tried out, before the large one.
const TRIES: (u64, u64) = (5, 25);
/// What one of them costs, in US dollars.
const TRY_USD: (f64, f64) = (0.5, 2.0);
/// Messages from one of them to the next.
const TRY_GAP: (u64, u64) = (1, 40);
/// Payments in the other country.
const TRAVELS: (u64, u64) = (2, 4);
/// Messages between them, at most; where these take more than an hour of the calendar, so many as an hour has.
const TRAVEL_GAP_MAX: u64 = 200;
/// Labelled messages of an episode, on average: as many of one kind as of the other begin.
const LABELLED_MEAN: f64 = ((TRIES.0 + TRIES.1) as f64 / 2.0 + 1.0 + (TRAVELS.0 + TRAVELS.1) as f64 / 2.0) / 2.0;

/// Where cards are tried out: nobody looks at the card there.
const REMOTE: [&str; 2] = ["online retail", "digital goods"];
/// What is bought with a stolen card: what can be sold again.
const GOODS: [&str; 3] = ["clothing", "jewellery", "online retail"];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Episode {
    user: u64,
    kind: Kind,
    left: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Testing,
    Travel {
        /// Place in [`HOMES`].
        abroad: usize,
    },
}

/// The episodes under way.
pub(super) struct Episodes {
    begins: Chance,
    declines_tries: Chance,
    declines_large: Chance,
    /// Messages between two payments of which one is abroad.
    travel_gap: (u64, u64),
    /// The message that each goes on with.
    due: BinaryHeap<Reverse<(u64, Episode)>>,
}

impl Episodes {
    /// `share`: labelled messages of all. `paying`: those that one can begin with, of the ones that belong to none.
    /// `messages_an_hour` by the calendar.
    pub(super) fn new(share: f64, paying: f64, messages_an_hour: f64) -> Episodes {
        let begins = if share < 1.0 { share / (1.0 - share) / paying / LABELLED_MEAN } else { 1.0 };
        let travel_gap = (messages_an_hour as u64).clamp(1, TRAVEL_GAP_MAX);
        Episodes {
            begins: Chance::of(begins.min(1.0)),
            declines_tries: Chance::of(0.6),
            declines_large: Chance::of(0.5),
            travel_gap: (travel_gap.div_ceil(10), travel_gap),
            due: BinaryHeap::with_capacity(EPISODES_MAX),
        }
    }

    /// Whether one begins with the next message.
    pub(super) fn begins(&self, draw: &mut Draw) -> bool {
        draw.happens(self.begins) && self.due.len() < EPISODES_MAX
    }

    /// Begins one; the message that it begins with.
    pub(super) fn begin(&mut self, message: u64, user: u64, people: &People, draw: &mut Draw) -> Made {
        let person = people.person(user);
        if draw.bits() >> 63 == 0 {
            let left = draw.between(TRIES.0, TRIES.1) + 1;
            return self.go_on(message, Episode { user, kind: Kind::Testing, left }, people, draw);
        }
        let abroad = HOMES.iter().enumerate().filter(|(_, home)| home.country != person.home.country);
        let (abroad, _) = abroad.clone().nth(draw.below(abroad.count() as u64) as usize).unwrap_or((0, &HOMES[0]));
        let episode = Episode { user, kind: Kind::Travel { abroad }, left: draw.between(TRAVELS.0, TRAVELS.1) };
        self.due.push(Reverse((message + draw.between(self.travel_gap.0, self.travel_gap.1), episode)));
        // The owner pays at home, which is what makes the rest impossible.
        let category = draw.below(CATEGORIES.len() as u64) as usize;
        Made::purchase(user, person, category, draw)
    }

    /// The message of an episode that is due.
    pub(super) fn due(&mut self, message: u64, people: &People, draw: &mut Draw) -> Option<Made> {
        let Reverse((due, _)) = self.due.peek()?;
        if *due > message {
            return None;
        }
        let Reverse((_, episode)) = self.due.pop()?;
        Some(self.go_on(message, episode, people, draw))
    }

    fn go_on(&mut self, message: u64, episode: Episode, people: &People, draw: &mut Draw) -> Made {
        let Episode { user, kind, left } = episode;
        let person = people.person(user);
        let (made, gap) = match kind {
            Kind::Testing if left > 1 => {
                let usd = TRY_USD.0 + draw.unit() * (TRY_USD.1 - TRY_USD.0);
                (self.stolen(user, person, &REMOTE, usd, self.declines_tries, draw), TRY_GAP)
            }
            Kind::Testing => {
                let usd = 150.0 + draw.exponential() * 400.0;
                (self.stolen(user, person, &GOODS, usd, self.declines_large, draw), TRY_GAP)
            }
            Kind::Travel { abroad } => {
                let usd = 40.0 + draw.exponential() * 200.0;
                let made = self.stolen(user, person, &GOODS[..2], usd, self.declines_large, draw);
                (Made { country: HOMES[abroad].country, fraud: Some(IMPOSSIBLE_TRAVEL), ..made }, self.travel_gap)
            }
        };
        if left > 1 {
            let due = message + draw.between(gap.0, gap.1);
            self.due.push(Reverse((due, Episode { left: left - 1, ..episode })));
        }
        made
    }

    fn stolen(&self, user: u64, person: Person, of: &[&str], usd: f64, declines: Chance, draw: &mut Draw) -> Made {
        let name = of[draw.below(of.len() as u64) as usize];
        let category = CATEGORIES.iter().position(|category| category.name == name).unwrap_or(0);
        let minor_units = amount(usd, person.home);
        let declined = draw.happens(declines).then_some("do_not_honor");
        Made { minor_units, declined, fraud: Some(CARD_TESTING), ..Made::purchase(user, person, category, draw) }
    }
}
