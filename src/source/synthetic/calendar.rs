//! The source's own calendar, and how its users' habits follow it: who pays when, and for what.
//!
//! It moves on with the messages, never with the clock of the machine, so that a seed gives the same messages at any rate
//! and at any time of the day.

use super::super::draw::{Chance, Draw, scale};
use super::merchants::CATEGORIES;
use super::people::{PROFILES, liking};
use crate::clock::Micros;

/// Monday, 2026-01-05, midnight in UTC.
pub(super) const BEGIN: Micros = Micros(1_767_571_200_000_000);
/// What a user pays for on average in a day.
const TRANSACTIONS_A_DAY: f64 = 1.6;
const HOUR_US: f64 = 3.6e9;
/// Some thousand years of whole weeks.
const CYCLE_US: f64 = 52_000.0 * 7.0 * 24.0 * HOUR_US;
const DAY_HOURS: u64 = 24;
/// The part of the day that one number of `Category::hours` stands for.
const STEP_HOURS: u64 = 3;

/// By day and night, on average.
pub(super) fn messages_an_hour(users: u64) -> f64 {
    users as f64 * TRANSACTIONS_A_DAY / DAY_HOURS as f64
}

/// What happens in each hour of the week, Monday to Sunday.
pub(super) struct Calendar {
    /// Hours since the beginning.
    at_us: f64,
    /// Mean time between two moments at which somebody might pay.
    mean_us: f64,
    /// That somebody at this local hour does: first working days, then weekends.
    awake: [[Chance; DAY_HOURS as usize]; 2],
    /// Upper ends of the categories' shares of 2^32, by profile, working day or weekend, and step of the day.
    shares: Vec<[u32; CATEGORIES.len()]>,
}

/// A local point in time, as habits see it.
#[derive(Clone, Copy)]
pub(super) struct LocalTime {
    is_weekend: bool,
    hour: u64,
}

impl Calendar {
    pub(super) fn new(users: u64) -> Calendar {
        let weights = |is_weekend: usize, step: usize, profile: usize| -> Vec<u64> {
            let weight = |(place, category): (usize, &super::merchants::Category)| {
                u64::from(category.weight * category.hours[is_weekend][step] * liking(profile, place))
            };
            CATEGORIES.iter().enumerate().map(weight).collect()
        };
        let busy = |is_weekend: usize, step: usize| -> u64 {
            (0..PROFILES).map(|profile| weights(is_weekend, step, profile).iter().sum::<u64>()).sum()
        };
        let steps = (DAY_HOURS / STEP_HOURS) as usize;
        let busiest = (0..2).flat_map(|weekend| (0..steps).map(move |step| (weekend, step)));
        let busiest = busiest.map(|(weekend, step)| busy(weekend, step)).max().unwrap_or(1) as f64;
        let share_of = |weekend: usize, hour: u64| busy(weekend, (hour / STEP_HOURS) as usize) as f64 / busiest;
        let awake = [0, 1].map(|weekend| std::array::from_fn(|hour| Chance::of(share_of(weekend, hour as u64))));
        // Five days and two, each as busy as its hours.
        let mean_share = [(0, 5.0), (1, 2.0)]
            .map(|(weekend, days)| (0..DAY_HOURS).map(|hour| share_of(weekend, hour)).sum::<f64>() * days)
            .iter()
            .sum::<f64>()
            / (7.0 * DAY_HOURS as f64);
        let mut shares = Vec::new();
        for profile in 0..PROFILES {
            for weekend in 0..2 {
                shares.extend((0..steps).map(|step| upper_ends(&weights(weekend, step, profile))));
            }
        }
        let mean_us = DAY_HOURS as f64 * HOUR_US / (users as f64 * TRANSACTIONS_A_DAY) * mean_share;
        Calendar { at_us: 0.0, mean_us, awake, shares }
    }

    /// Moves on to the next moment at which somebody might pay.
    pub(super) fn move_on(&mut self, draw: &mut Draw) {
        self.at_us += draw.exponential() * self.mean_us;
    }

    /// What the calendar shows, in UTC.
    pub(super) fn now(&self) -> Micros {
        // It begins again before the last year that can be written, on the same weekday.
        Micros(BEGIN.0 + (self.at_us % CYCLE_US) as i64)
    }

    pub(super) fn local(&self, offset_hours: i64) -> LocalTime {
        let hours = ((self.at_us / HOUR_US) as i64 + offset_hours).rem_euclid(7 * DAY_HOURS as i64) as u64;
        LocalTime { is_weekend: hours / DAY_HOURS >= 5, hour: hours % DAY_HOURS }
    }

    /// Whether somebody pays at this hour who might.
    pub(super) fn pays(&self, local: LocalTime, draw: &mut Draw) -> bool {
        draw.happens(self.awake[usize::from(local.is_weekend)][local.hour as usize])
    }

    /// For what: a place in [`CATEGORIES`].
    pub(super) fn category(&self, profile: usize, local: LocalTime, draw: &mut Draw) -> usize {
        let steps = (DAY_HOURS / STEP_HOURS) as usize;
        let day = 2 * profile + usize::from(local.is_weekend);
        let ends = &self.shares[day * steps + (local.hour / STEP_HOURS) as usize];
        let at = scale(draw.bits(), 1 << 32) as u32;
        ends.iter().position(|end| at < *end).unwrap_or(CATEGORIES.len() - 1)
    }
}

fn upper_ends(weights: &[u64]) -> [u32; CATEGORIES.len()] {
    let all: u64 = weights.iter().sum::<u64>().max(1);
    let mut sum = 0;
    std::array::from_fn(|place| {
        sum += weights[place];
        (u128::from(sum) * u128::from(u32::MAX) / u128::from(all)) as u32
    })
}
