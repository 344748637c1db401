//! The strip of the page: each place on a message's way, with what passes, what waits, and which one takes longest.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use super::history::{Column, History, rounded};
use super::snapshot::Place;
use super::status::{Counters, Lag};
use crate::progress::{Progress, Stage};

/// Source, producer, broker, consumer, PostgreSQL.
pub fn places(
    progress: &Progress,
    history: &History,
    roles: &[&'static str],
    waiting_for: &BTreeMap<&'static str, String>,
    counters: &Counters,
    lag: &Lag,
) -> Vec<Place> {
    let runs = |role: &str| roles.contains(&role);
    let pending = u64::try_from(progress.pending.load(Ordering::Relaxed)).ok();
    let is_away = progress.database_away.load(Ordering::Relaxed);
    let settled = counters.acknowledged + counters.unknown;
    let (produces, consumes) = (runs("producer"), runs("consumer"));
    let place = |place: &'static str, here, stage: Stage, queue_messages: Option<u64>| {
        let counts = history.recent(stage).counts;
        let (p50_us, p99_us) = (counts.quantile(0.5), counts.quantile(0.99));
        let note = waiting_for.get(place).map(|what| format!("waits for {what}"));
        Place { place, here, rate_per_second: None, p50_us, p99_us, queue_messages, slowest: false, note }
    };
    let rate = |is_known: bool, count: fn(&Column) -> u64| history.rate(count).filter(|_| is_known).map(rounded);
    let known = |is_known: bool, count: u64| is_known.then_some(count);
    let unread = lag.messages.zip(pending).map(|(lag, pending)| lag.saturating_sub(pending));
    let mut places = vec![
        place("source", produces, Stage::Sent, known(produces, counters.scheduled.saturating_sub(counters.sent))),
        place("producer", produces, Stage::Acknowledged, known(produces, counters.sent.saturating_sub(settled))),
        place("broker", runs("broker"), Stage::Received, unread.filter(|_| consumes)),
        place("consumer", consumes, Stage::Processed, pending.filter(|_| consumes)),
        place("postgres", consumes, Stage::Committed, None),
    ];
    places[0].rate_per_second = rate(produces, |column| column.scheduled);
    places[1].rate_per_second = rate(produces, |column| column.sent);
    // What a broker takes from others is not counted here.
    places[2].rate_per_second = rate(produces, |column| column.acknowledged);
    places[3].rate_per_second = rate(consumes, |column| column.stored + column.dead_letters);
    places[4].rate_per_second = rate(consumes, |column| column.stored);
    if is_away && consumes {
        places[4].note = Some("does not store at the moment; messages wait in the log".to_owned());
    }
    mark_slowest(&mut places, is_away && consumes);
    places
}

/// The producer's time is the broker's answer, a side branch of the way: it counts only where the way ends with it.
fn mark_slowest(places: &mut [Place], is_away: bool) {
    // What stores nothing has no latency: everything waits for it.
    if let Some(postgres) = places.iter_mut().find(|place| is_away && place.place == "postgres") {
        postgres.slowest = true;
        return;
    }
    let has_way = places.iter().any(|place| place.place == "broker" && place.p99_us.is_some());
    let on_the_way = |place: &&mut Place| place.place != "producer" || !has_way;
    let slowest = places.iter_mut().filter(on_the_way).filter(|place| place.p99_us.is_some());
    if let Some(slowest) = slowest.max_by_key(|place| place.p99_us) {
        slowest.slowest = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Progress;

    #[test]
    fn one_place_of_the_chain_is_the_slowest_and_roles_elsewhere_have_no_figures() {
        let progress = Progress::new();
        progress.pending.store(4, Ordering::Relaxed);
        let history = History::default();
        let counters = Counters::read(&progress);
        let lag = Lag { messages: Some(10), seconds: None };
        let waiting_for = BTreeMap::from([("consumer", "its partitions".to_owned())]);
        let mut places = places(&progress, &history, &["consumer"], &waiting_for, &counters, &lag);
        let names: Vec<_> = places.iter().map(|place| place.place).collect();
        assert_eq!(names, ["source", "producer", "broker", "consumer", "postgres"]);
        assert_eq!(places[3].note.as_deref(), Some("waits for its partitions"));
        let queues: Vec<_> = places.iter().map(|place| place.queue_messages).collect();
        assert_eq!(queues, [None, None, Some(6), Some(4), None]);
        assert!(places.iter().all(|place| !place.slowest), "nothing was measured");

        for (place, p99_us) in places.iter_mut().zip([3, 99, 7, 5, 6]) {
            place.p99_us = Some(p99_us);
        }
        let marked = |places: &mut Vec<Place>, is_away| {
            places.iter_mut().for_each(|place| place.slowest = false);
            mark_slowest(places, is_away);
            places.iter().filter(|place| place.slowest).map(|place| place.place).collect::<Vec<_>>()
        };
        assert_eq!(marked(&mut places, false), ["broker"]);
        assert_eq!(marked(&mut places, true), ["postgres"]);
    }
}
