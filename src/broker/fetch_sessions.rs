//! Fetch sessions (KIP-227): what a client reads is remembered, so that it names only what changes, and is told only
//! what changed.
//!
//! Owns: who has a session, what is wanted in it, and what was said of it last. Must not know how records are read. The
//! bounds are Apache Kafka's; that of partitions is ours, since a name costs memory whether its topic exists or not.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

/// Sessions at once; then an old one makes room, or there is none for who asks: Apache Kafka's default of
/// `max.incremental.fetch.session.cache.slots`.
const SESSIONS_MAX: usize = 1000;
/// A session that was not used for longer makes room for any other; one that is older than this, for a larger one.
const SAFE_FOR: Duration = Duration::from_secs(120);
/// Partitions of one session: as many as this broker can have.
const SESSION_PARTITIONS_MAX: usize = super::catalog::PARTITIONS_MAX;
/// Partitions of all sessions: about 200 bytes each.
const ALL_PARTITIONS_MAX: usize = 200_000;
/// The id that is no session's.
pub(crate) const NO_SESSION: i32 = 0;
/// The epoch of a request that wants a session.
pub(crate) const INITIAL_EPOCH: i32 = 0;
/// The epoch of a request that wants none, any more.
pub(crate) const FINAL_EPOCH: i32 = -1;

/// A topic as the session's requests call it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum TopicKey {
    Name(Arc<str>),
    Id(Uuid),
}

/// A partition of a topic.
pub(crate) type Key = (TopicKey, i32);

/// What is wanted of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) offset: i64,
    pub(crate) bytes_max: i32,
    pub(crate) leader_epoch: i32,
    /// Of the record before, as far as the client knows it; -1.
    pub(crate) last_fetched_epoch: i32,
}

/// What an answer would say of a partition.
#[derive(Clone, Copy, Debug)]
pub(crate) struct News {
    pub(crate) high_watermark: i64,
    pub(crate) log_start_offset: i64,
    pub(crate) has_records: bool,
    pub(crate) is_error: bool,
}

/// Why a request cannot go on in its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SessionError {
    /// It never was, or made room for another.
    #[error("there is no such fetch session; begin a new one")]
    Unknown,
    /// A request was lost, or came twice.
    #[error("the fetch session is at another epoch; begin a new one")]
    Epoch,
    /// It began with names and goes on with ids, or the other way round.
    #[error("the fetch session calls topics in another way; begin a new one")]
    TopicIds,
}

/// What goes on in a session.
#[derive(Debug)]
pub(crate) struct Turn {
    /// [`NO_SESSION`]: nothing was left in the session, and it is over.
    pub(crate) id: i32,
    epoch: i32,
    /// All that is wanted, in the order in which it is to be read.
    pub(crate) wanted: Vec<(Key, Wanted)>,
}

struct Cached {
    wanted: Wanted,
    /// What the client heard last; -1 where it must hear it again.
    high_watermark: i64,
    log_start_offset: i64,
    /// Its place in the order.
    turn: u64,
}

struct Session {
    uses_ids: bool,
    /// Of the next request.
    epoch: i32,
    created: Instant,
    last_used: Instant,
    partitions: HashMap<Key, Cached>,
    /// Who got records goes to the end, so that nobody starves while answers are full.
    order: BTreeMap<u64, Key>,
    next_turn: u64,
}

#[derive(Default)]
struct Cache {
    sessions: HashMap<i32, Session>,
    partitions: usize,
}

/// All sessions.
#[derive(Default)]
pub(crate) struct FetchSessions(Mutex<Cache>);

impl FetchSessions {
    fn lock(&self) -> MutexGuard<'_, Cache> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a session, if there is one of that id.
    pub(crate) fn end(&self, id: i32) {
        self.lock().remove(id);
    }

    /// Begins a session with what was answered to its first request; [`NO_SESSION`] where there is no room.
    pub(crate) fn begin(&self, uses_ids: bool, partitions: Vec<(Key, Wanted, News)>, now: Instant) -> i32 {
        let mut cache = self.lock();
        if partitions.len() > SESSION_PARTITIONS_MAX || !cache.make_room(partitions.len(), now) {
            return NO_SESSION;
        }
        let mut session = Session {
            uses_ids,
            epoch: next_epoch(INITIAL_EPOCH),
            created: now,
            last_used: now,
            partitions: HashMap::with_capacity(partitions.len()),
            order: BTreeMap::new(),
            next_turn: 0,
        };
        for (key, wanted, news) in partitions {
            session.want(key.clone(), wanted);
            session.tell(&key, &news);
        }
        let id = loop {
            let id = rand::random_range(1..=i32::MAX);
            if !cache.sessions.contains_key(&id) {
                break id;
            }
        };
        cache.partitions += session.partitions.len();
        cache.sessions.insert(id, session);
        id
    }

    /// Goes on in a session: with further or changed wishes, and without what is not wanted any more.
    ///
    /// # Errors
    /// The request does not fit the session; the client begins a new one then.
    pub(crate) fn go_on(
        &self,
        (id, epoch): (i32, i32),
        uses_ids: bool,
        wishes: Vec<(Key, Wanted)>,
        forgotten: &[Key],
        now: Instant,
    ) -> Result<Turn, SessionError> {
        let mut guard = self.lock();
        let cache = &mut *guard;
        let others = cache.partitions;
        let session = cache.sessions.get_mut(&id).ok_or(SessionError::Unknown)?;
        if session.epoch != epoch {
            return Err(SessionError::Epoch);
        }
        if session.uses_ids != uses_ids {
            return Err(SessionError::TopicIds);
        }
        let before = session.partitions.len();
        let others = others - before;
        for (key, wanted) in wishes {
            session.want(key, wanted);
            if session.partitions.len() > SESSION_PARTITIONS_MAX.min(ALL_PARTITIONS_MAX - others) {
                // The client begins anew, and does without.
                cache.sessions.remove(&id);
                cache.partitions = others;
                return Err(SessionError::Unknown);
            }
        }
        forgotten.iter().for_each(|key| session.forget(key));
        session.last_used = now;
        session.epoch = next_epoch(epoch);
        let turn = Turn { id, epoch: session.epoch, wanted: session.wanted() };
        let now_there = session.partitions.len();
        cache.partitions = others + now_there;
        if now_there == 0 {
            cache.remove(id);
            return Ok(Turn { id: NO_SESSION, ..turn });
        }
        Ok(turn)
    }

    /// Which of the news of a turn the client has to hear; it is taken to have heard them.
    ///
    /// # Errors
    /// `Epoch`: meanwhile another request went on in the session, or it is over.
    pub(crate) fn hear(&self, turn: &Turn, news: &[(Key, News)]) -> Result<Vec<bool>, SessionError> {
        let mut cache = self.lock();
        let session = cache.sessions.get_mut(&turn.id).filter(|session| session.epoch == turn.epoch);
        let session = session.ok_or(SessionError::Epoch)?;
        Ok(news.iter().map(|(key, news)| session.tell(key, news)).collect())
    }
}

impl Cache {
    fn remove(&mut self, id: i32) {
        if let Some(session) = self.sessions.remove(&id) {
            self.partitions -= session.partitions.len();
        }
    }

    /// Whether a session of so many partitions fits, after at most one other has ended for it.
    fn make_room(&mut self, partitions: usize, now: Instant) -> bool {
        if !self.has_room(partitions) {
            let Some(id) = self.least_needed(partitions, now) else { return false };
            self.remove(id);
        }
        self.has_room(partitions)
    }

    fn has_room(&self, partitions: usize) -> bool {
        self.sessions.len() < SESSIONS_MAX && self.partitions + partitions <= ALL_PARTITIONS_MAX
    }

    /// Who was silent for long; else the smallest of those that were there for a while, if it is smaller.
    fn least_needed(&self, partitions: usize, now: Instant) -> Option<i32> {
        let is_over = |since: Instant| now.saturating_duration_since(since) > SAFE_FOR;
        let (stalest, session) = self.sessions.iter().min_by_key(|(_, session)| session.last_used)?;
        if is_over(session.last_used) {
            return Some(*stalest);
        }
        let old = self.sessions.iter().filter(|(_, session)| is_over(session.created));
        let (smallest, session) = old.min_by_key(|(id, session)| (session.partitions.len(), **id))?;
        (session.partitions.len() < partitions).then_some(*smallest)
    }
}

impl Session {
    fn want(&mut self, key: Key, wanted: Wanted) {
        if let Some(cached) = self.partitions.get_mut(&key) {
            cached.wanted = wanted;
            return;
        }
        let turn = self.take_turn();
        self.order.insert(turn, key.clone());
        self.partitions.insert(key, Cached { wanted, high_watermark: -1, log_start_offset: -1, turn });
    }

    fn forget(&mut self, key: &Key) {
        if let Some(cached) = self.partitions.remove(key) {
            self.order.remove(&cached.turn);
        }
    }

    fn wanted(&self) -> Vec<(Key, Wanted)> {
        let wanted = |key: &Key| self.partitions.get(key).map(|cached| (key.clone(), cached.wanted));
        self.order.values().filter_map(wanted).collect()
    }

    fn take_turn(&mut self) -> u64 {
        self.next_turn += 1;
        self.next_turn
    }

    /// Whether the client has to hear it.
    fn tell(&mut self, key: &Key, news: &News) -> bool {
        let end = self.take_turn();
        let Some(cached) = self.partitions.get_mut(key) else { return false };
        let moved = (cached.high_watermark, cached.log_start_offset) != (news.high_watermark, news.log_start_offset);
        // An error is told each time, and what comes after it in any case.
        cached.high_watermark = if news.is_error { -1 } else { news.high_watermark };
        cached.log_start_offset = news.log_start_offset;
        if news.has_records {
            self.order.remove(&cached.turn);
            cached.turn = end;
            self.order.insert(end, key.clone());
        }
        moved || news.has_records || news.is_error
    }
}

/// Epochs count from 1 and begin there again.
fn next_epoch(epoch: i32) -> i32 {
    epoch.checked_add(1).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn key(partition: i32) -> Key {
        (TopicKey::Name("t".into()), partition)
    }

    fn wanted(offset: i64) -> Wanted {
        Wanted { offset, bytes_max: 1, leader_epoch: -1, last_fetched_epoch: -1 }
    }

    fn news(high_watermark: i64) -> News {
        News { high_watermark, log_start_offset: 0, has_records: false, is_error: false }
    }

    fn begin(sessions: &FetchSessions, partitions: i32, now: Instant) -> i32 {
        let all = (0..partitions).map(|partition| (key(partition), wanted(0), news(0))).collect();
        sessions.begin(false, all, now)
    }

    #[test]
    fn only_what_changed_is_told_and_an_error_each_time() {
        let (sessions, now) = (FetchSessions::default(), Instant::now());
        let id = begin(&sessions, 3, now);
        let turn = sessions.go_on((id, 1), false, vec![(key(1), wanted(7))], &[key(2)], now).unwrap();
        assert_eq!(turn.wanted, [(key(0), wanted(0)), (key(1), wanted(7))]);
        let with = |partition: i32, news: News| (key(partition), news);
        let error = News { is_error: true, high_watermark: -1, log_start_offset: -1, ..news(0) };
        assert_eq!(sessions.hear(&turn, &[with(0, news(0)), with(1, news(1))]), Ok(vec![false, true]));
        assert_eq!(sessions.hear(&turn, &[with(0, error), with(1, news(1))]), Ok(vec![true, false]));
        assert_eq!(sessions.hear(&turn, &[with(0, error), with(1, news(1))]), Ok(vec![true, false]));
        assert_eq!(sessions.hear(&turn, &[with(0, news(0))]), Ok(vec![true]), "it is well again");
        let cut = News { log_start_offset: 1, ..news(0) };
        assert_eq!(sessions.hear(&turn, &[with(0, cut)]), Ok(vec![true]));
    }

    #[test]
    fn who_got_records_is_read_last_the_next_time() {
        let (sessions, now) = (FetchSessions::default(), Instant::now());
        let id = begin(&sessions, 3, now);
        let turn = sessions.go_on((id, 1), false, Vec::new(), &[], now).unwrap();
        sessions.hear(&turn, &[(key(0), News { has_records: true, ..news(1) })]).unwrap();
        let turn = sessions.go_on((id, 2), false, Vec::new(), &[], now).unwrap();
        let order: Vec<i32> = turn.wanted.iter().map(|((_, partition), _)| *partition).collect();
        assert_eq!(order, [1, 2, 0]);
    }

    #[test]
    fn a_request_that_does_not_fit_the_session_is_refused() {
        let (sessions, now) = (FetchSessions::default(), Instant::now());
        let id = begin(&sessions, 1, now);
        let go_on = |id, epoch, uses_ids| sessions.go_on((id, epoch), uses_ids, Vec::new(), &[], now).map(drop);
        assert_eq!(go_on(if id == 1 { 2 } else { 1 }, 1, false), Err(SessionError::Unknown));
        assert_eq!(go_on(id, 2, false), Err(SessionError::Epoch));
        assert_eq!(go_on(id, 1, true), Err(SessionError::TopicIds));
        let turn = sessions.go_on((id, 1), false, Vec::new(), &[], now).unwrap();
        assert_eq!(go_on(id, 1, false), Err(SessionError::Epoch), "it came twice");
        go_on(id, 2, false).unwrap();
        assert_eq!(sessions.hear(&turn, &[]), Err(SessionError::Epoch), "another request went on");
        let last = sessions.go_on((id, 3), false, Vec::new(), &[key(0)], now).unwrap();
        assert_eq!((last.id, last.wanted.len()), (NO_SESSION, 0));
        assert_eq!(go_on(id, 4, false), Err(SessionError::Unknown), "an empty session is over");
        assert_eq!(next_epoch(i32::MAX), 1);
    }

    #[test]
    fn a_full_house_has_room_for_who_comes_after_the_silent_and_for_the_larger_after_a_while() {
        let (sessions, start) = (FetchSessions::default(), Instant::now());
        let ids: Vec<i32> = (0..SESSIONS_MAX).map(|_| begin(&sessions, 2, start)).collect();
        assert!(ids.iter().all(|id| *id != NO_SESSION));
        assert_eq!(begin(&sessions, 3, start), NO_SESSION, "all are young");
        let later = start + SAFE_FOR + Duration::from_secs(1);
        // All but the first are in use.
        for id in &ids[1..] {
            sessions.go_on((*id, 1), false, Vec::new(), &[], later).unwrap();
        }
        assert_ne!(begin(&sessions, 1, later), NO_SESSION);
        let first = sessions.go_on((ids[0], 1), false, Vec::new(), &[], later);
        assert_eq!(first.map(drop), Err(SessionError::Unknown));
        assert_eq!(begin(&sessions, 2, later), NO_SESSION, "no smaller one is old enough");
        assert_ne!(begin(&sessions, 3, later), NO_SESSION);
        assert_eq!(sessions.lock().sessions.len(), SESSIONS_MAX);
    }

    #[test]
    fn partitions_are_counted_over_all_sessions() {
        let (sessions, now) = (FetchSessions::default(), Instant::now());
        let most = SESSION_PARTITIONS_MAX as i32;
        assert_eq!(begin(&sessions, most + 1, now), NO_SESSION);
        let ids: Vec<i32> =
            (0..ALL_PARTITIONS_MAX / SESSION_PARTITIONS_MAX).map(|_| begin(&sessions, most, now)).collect();
        assert!(ids.iter().all(|id| *id != NO_SESSION));
        assert_eq!(begin(&sessions, 1, now), NO_SESSION);
        let more = vec![(key(most), wanted(0))];
        assert_eq!(sessions.go_on((ids[0], 1), false, more, &[], now).map(drop), Err(SessionError::Unknown));
        let rest = sessions.go_on((ids[1], 1), false, Vec::new(), &[key(0), key(1)], now).unwrap();
        assert_eq!(rest.wanted.len(), SESSION_PARTITIONS_MAX - 2);
        ids.into_iter().for_each(|id| sessions.end(id));
        let cache = sessions.lock();
        assert_eq!((cache.partitions, cache.sessions.len()), (0, 0));
    }
}
