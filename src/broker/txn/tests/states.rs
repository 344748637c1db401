//! The state machine of one transactional id, and the bounds of all: every transition and every refusal.
#![allow(clippy::unwrap_used)]

use super::super::ids::{Due, Ids};
use super::super::metadata::*;
use super::super::repair::{Verdict, judge};
use TransactionState::{CompleteAbort, CompleteCommit, Dead, Empty, Ongoing, PrepareAbort, PrepareCommit};

const NOW_MS: i64 = 1_000_000;
const ALL: [TransactionState; 7] = [Empty, Ongoing, PrepareCommit, PrepareAbort, CompleteCommit, CompleteAbort, Dead];
const ME: ProducerIdEpoch = ProducerIdEpoch { id: 7, epoch: 3 };

fn partitions(of: &[(&str, &[i32])]) -> Partitions {
    of.iter().map(|(topic, indexes)| ((*topic).to_owned(), indexes.iter().copied().collect())).collect()
}

fn in_state(state: TransactionState) -> Metadata {
    let is_touching = matches!(state, Ongoing | PrepareCommit | PrepareAbort);
    Metadata {
        producer: ME,
        last_epoch: 2,
        previous_id: 5,
        timeout_ms: 60_000,
        state,
        partitions: if is_touching { partitions(&[("t", &[0, 1])]) } else { Partitions::new() },
        start_ms: NOW_MS - 10,
        update_ms: NOW_MS - 5,
    }
}

fn ready(init: Result<Init, TxnError>) -> Metadata {
    match init {
        Ok(Init::Ready(metadata)) => metadata,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_new_id_begins_with_epoch_0_whoever_its_producer_believes_to_be() {
    let unborn = Metadata::new(9, 1_000, NOW_MS);
    for expected in [None, Some(ME)] {
        let born = ready(unborn.init(expected, 2_000, None, NOW_MS));
        assert_eq!(born.producer, ProducerIdEpoch { id: 9, epoch: 0 });
        assert_eq!((born.state, born.timeout_ms, born.start_ms), (Empty, 2_000, -1));
    }
}

#[test]
fn each_producer_that_takes_an_id_over_gets_the_next_epoch() {
    for state in [Empty, CompleteCommit, CompleteAbort] {
        let next = ready(in_state(state).init(None, 60_000, None, NOW_MS));
        assert_eq!(next.producer, ProducerIdEpoch { id: 7, epoch: 4 });
        // Nobody can come again as the one before.
        assert_eq!((next.state, next.last_epoch, next.partitions.len()), (Empty, NONE_EPOCH, 0));
    }
}

#[test]
fn who_goes_on_after_an_error_gets_the_next_epoch_once_however_often_it_asks() {
    let next = ready(in_state(CompleteAbort).init(Some(ME), 60_000, None, NOW_MS));
    assert_eq!((next.producer.epoch, next.last_epoch), (4, 3));
    let again = ready(next.init(Some(ME), 60_000, None, NOW_MS));
    assert_eq!((again.producer.epoch, again.last_epoch), (4, 3));
    let stale = ProducerIdEpoch { epoch: 1, ..ME };
    assert_eq!(next.init(Some(stale), 60_000, None, NOW_MS), Err(TxnError::ProducerFenced));
    assert_eq!(next.init(Some(ProducerIdEpoch { id: 6, epoch: 3 }), 1, None, NOW_MS), Err(TxnError::ProducerFenced));
    // Another one came in between.
    let taken = ready(next.init(None, 60_000, None, NOW_MS));
    assert_eq!(taken.init(Some(ME), 60_000, None, NOW_MS), Err(TxnError::ProducerFenced));
}

#[test]
fn an_ongoing_transaction_is_aborted_with_an_epoch_that_no_producer_gets() {
    for expected in [None, Some(ME)] {
        let Ok(Init::Fence(fenced)) = in_state(Ongoing).init(expected, 60_000, None, NOW_MS) else { panic!() };
        assert_eq!((fenced.state, fenced.producer.epoch), (PrepareAbort, 4));
        assert_eq!(fenced.partitions, in_state(Ongoing).partitions);
        assert_eq!(fenced.end(ME, End::Commit, NOW_MS), Err(TxnError::ProducerFenced));
        let done = fenced.completed(NOW_MS).unwrap();
        assert_eq!((done.state, done.partitions.len()), (CompleteAbort, 0));
        assert_eq!(ready(done.init(None, 60_000, None, NOW_MS)).producer.epoch, 5);
        // The old producer cannot go on as if nothing had happened.
        assert_eq!(done.init(Some(ME), 60_000, None, NOW_MS), Err(TxnError::ProducerFenced));
    }
}

#[test]
fn while_an_end_is_carried_out_nothing_else_begins() {
    for state in [PrepareCommit, PrepareAbort, Dead] {
        let ending = in_state(state);
        assert_eq!(ending.init(None, 60_000, None, NOW_MS), Err(TxnError::Concurrent), "{state:?}");
        assert_eq!(ending.add_partitions(ME, &partitions(&[("t", &[2])]), NOW_MS), Err(TxnError::Concurrent));
        assert_eq!(ending.times_out_at_ms(), None);
        assert_eq!(ending.expires_at_ms(), None);
    }
}

#[test]
fn epochs_that_run_out_bring_a_new_producer_id_and_a_retry_gets_the_same_one() {
    let last = ProducerIdEpoch { id: 7, epoch: i16::MAX - 1 };
    let used_up = Metadata { producer: last, ..in_state(CompleteCommit) };
    assert_eq!(used_up.init(None, 60_000, None, NOW_MS), Ok(Init::NeedsNewId));
    let renewed = ready(used_up.init(Some(last), 60_000, Some(70), NOW_MS));
    assert_eq!((renewed.producer, renewed.previous_id), (ProducerIdEpoch { id: 70, epoch: 0 }, 7));
    let again = ready(renewed.init(Some(last), 60_000, Some(71), NOW_MS));
    assert_eq!((again.producer, again.previous_id), (renewed.producer, 7));
    let stale = ProducerIdEpoch { epoch: 5, ..last };
    assert_eq!(renewed.init(Some(stale), 60_000, None, NOW_MS), Err(TxnError::ProducerFenced));
    assert_eq!(used_up.init(Some(stale), 60_000, Some(72), NOW_MS), Err(TxnError::ProducerFenced));
    // The very last epoch fences, and is never given out.
    let fenced = Metadata { state: Ongoing, ..used_up }.fenced(NOW_MS);
    assert_eq!(fenced.producer.epoch, i16::MAX);
    let after = ready(fenced.completed(NOW_MS).unwrap().init(None, 60_000, Some(73), NOW_MS));
    assert_eq!((after.producer, after.last_epoch), (ProducerIdEpoch { id: 73, epoch: 0 }, NONE_EPOCH));
}

#[test]
fn partitions_begin_a_transaction_or_join_it_and_those_of_the_one_before_are_forgotten() {
    let more = partitions(&[("t", &[1, 2]), ("u", &[0])]);
    for state in [Empty, CompleteCommit, CompleteAbort] {
        let begun = in_state(state).add_partitions(ME, &more, NOW_MS).unwrap().unwrap();
        assert_eq!((begun.state, begun.start_ms, &begun.partitions), (Ongoing, NOW_MS, &more));
        assert_eq!(begun.times_out_at_ms(), Some(NOW_MS + 60_000));
    }
    let joined = in_state(Ongoing).add_partitions(ME, &more, NOW_MS).unwrap().unwrap();
    assert_eq!(joined.partitions, partitions(&[("t", &[0, 1, 2]), ("u", &[0])]));
    assert_eq!(joined.start_ms, NOW_MS - 10, "its time runs from the beginning");
    assert_eq!(joined.add_partitions(ME, &more, NOW_MS), Ok(None));
}

#[test]
fn only_the_producer_of_the_id_may_do_anything() {
    let (other, old) = (ProducerIdEpoch { id: 8, epoch: 3 }, ProducerIdEpoch { epoch: 2, ..ME });
    let newer = ProducerIdEpoch { epoch: 4, ..ME };
    for state in ALL {
        let metadata = in_state(state);
        for (who, why) in [
            (other, TxnError::InvalidProducerIdMapping),
            (old, TxnError::ProducerFenced),
            (newer, TxnError::ProducerFenced),
        ] {
            assert_eq!(metadata.add_partitions(who, &Partitions::new(), NOW_MS), Err(why.clone()), "{state:?}");
            assert_eq!(metadata.end(who, End::Commit, NOW_MS), Err(why.clone()), "{state:?}");
            assert_eq!(metadata.verify(who, "t", 0), Err(why), "{state:?}");
        }
    }
}

#[test]
fn a_transaction_ends_once_and_as_it_was_decided() {
    for (end, prepare, complete) in
        [(End::Commit, PrepareCommit, CompleteCommit), (End::Abort, PrepareAbort, CompleteAbort)]
    {
        let Ok(Ending::Prepare(prepared)) = in_state(Ongoing).end(ME, end, NOW_MS) else { panic!() };
        assert_eq!((prepared.state, prepared.producer), (prepare, ME));
        assert_eq!(prepared.partitions, in_state(Ongoing).partitions);
        let done = prepared.completed(NOW_MS).unwrap();
        assert_eq!((done.state, done.ending(), done.partitions.len()), (complete, Some(end), 0));
        for state in ALL {
            let answer = in_state(state).end(ME, end, NOW_MS);
            let expected = match state {
                Ongoing => continue,
                state if state == complete => Ok(Ending::Done),
                state if state == prepare => Err(TxnError::Concurrent),
                _ => Err(TxnError::InvalidState),
            };
            assert_eq!(answer, expected, "{end:?} in {state:?}");
        }
    }
    assert!([Empty, Ongoing, CompleteCommit, Dead].iter().all(|state| in_state(*state).completed(NOW_MS).is_none()));
}

#[test]
fn a_partition_takes_records_of_a_transaction_only_while_it_is_part_of_it() {
    for state in ALL {
        let expected = match state {
            Ongoing => Ok(()),
            PrepareCommit | PrepareAbort => Err(TxnError::Concurrent),
            _ => Err(TxnError::NotInTransaction),
        };
        assert_eq!(in_state(state).verify(ME, "t", 1), expected, "{state:?}");
    }
    for (topic, index) in [("t", 2), ("u", 0)] {
        assert_eq!(in_state(Ongoing).verify(ME, topic, index), Err(TxnError::NotInTransaction));
    }
}

#[test]
fn timeouts_are_bounded_as_in_kafka() {
    for (timeout_ms, is_taken) in [(-1, false), (0, false), (1, true), (900_000, true), (900_001, false)] {
        assert_eq!(check_timeout(timeout_ms).is_ok(), is_taken, "{timeout_ms}");
    }
}

#[test]
fn states_are_told_by_number_and_by_name() {
    for state in ALL {
        assert_eq!(TransactionState::of(state as i8), Some(state));
        assert_eq!(TransactionState::named(state.name()), Some(state));
    }
    assert_eq!((TransactionState::of(8), TransactionState::of(-1)), (None, None));
    assert_eq!(TransactionState::named("empty"), None);
}

#[test]
fn what_is_due_is_found_and_what_is_being_written_is_left_alone() {
    let mut ids = Ids::default();
    let old = Metadata { start_ms: NOW_MS - 60_000, ..in_state(Ongoing) };
    let idle = Metadata { update_ms: NOW_MS - EXPIRES_AFTER_MS, ..in_state(CompleteCommit) };
    for (id, metadata) in [
        ("young", in_state(Ongoing)),
        ("old", old.clone()),
        ("busy", old.clone()),
        ("prepared", in_state(PrepareCommit)),
        ("idle", idle),
        ("fresh", in_state(Empty)),
    ] {
        ids.insert(id.to_owned(), metadata);
    }
    ids.begin("busy", Ongoing);
    let expected = Due {
        overdue: vec![("old".to_owned(), old.fenced(NOW_MS))],
        unfinished: vec![("prepared".to_owned(), in_state(PrepareCommit))],
        expired: vec!["idle".to_owned()],
        next_ms: Some(NOW_MS),
    };
    assert_eq!(ids.due(NOW_MS), expected);
    assert_eq!(ids.settled("busy"), Err(TxnError::Concurrent));
    assert_eq!(ids.settled("unheard of"), Err(TxnError::InvalidProducerIdMapping));
}

#[test]
fn an_id_that_was_never_written_is_not_there() {
    let mut ids = Ids::default();
    ids.insert("id".to_owned(), Metadata::new(9, 1_000, NOW_MS));
    ids.begin("id", Empty);
    assert_eq!((ids.get("id"), ids.all().count()), (None, 0));
    ids.end("id");
    assert_eq!(ids.settled("id"), Err(TxnError::InvalidProducerIdMapping));
}

#[test]
fn the_number_of_ids_and_what_they_hold_are_bounded_and_endings_always_fit() {
    let mut ids = Ids::default();
    for number in 0..10_000 {
        assert_eq!(ids.check_room(&number.to_string(), &in_state(Empty)), Ok(()));
        ids.insert(number.to_string(), in_state(Empty));
    }
    assert_eq!(ids.check_room("one more", &in_state(Empty)), Err(TxnError::Full));
    assert_eq!(ids.check_room("0", &in_state(Ongoing)), Ok(()));
    let idle_at = NOW_MS + i64::from(TIMEOUT_MS_MAX) + 10;
    assert_eq!((ids.idle(NOW_MS).len(), ids.idle(idle_at).len()), (0, 1_000));
    let mut ids = Ids::default();
    let huge = Metadata { partitions: partitions(&[(&"x".repeat(1 << 20), &[0])]), ..in_state(Ongoing) };
    let taken = (0..100).take_while(|number: &i32| {
        let fits = ids.check_room(&number.to_string(), &huge).is_ok();
        ids.insert(number.to_string(), huge.clone());
        fits
    });
    assert_eq!(taken.count(), 63);
    assert_eq!(ids.check_room("0", &huge), Ok(()));
    assert_eq!(ids.check_room("0", &huge.fenced(NOW_MS).completed(NOW_MS).unwrap()), Ok(()));
    (0..64).for_each(|number| ids.remove(&number.to_string()));
    assert_eq!(ids.check_room("0", &huge), Ok(()));
}

#[test]
fn what_is_open_after_a_power_cut_ends_as_the_coordinator_remembers() {
    let abort = Verdict::End(End::Abort);
    let ended = partitions(&[("t", &[0])]);
    let judge = |state, topic, index| judge(Some(&in_state(state)), Some(&ended), topic, index);
    assert_eq!(super::super::repair::judge(None, None, "t", 0), abort);
    for state in [Ongoing, PrepareCommit, PrepareAbort] {
        assert_eq!(judge(state, "t", 1), Verdict::Leave, "{state:?}");
    }
    assert_eq!(judge(Ongoing, "t", 2), Verdict::Abort);
    assert_eq!(judge(PrepareCommit, "t", 2), abort);
    assert_eq!(judge(Empty, "t", 0), abort);
    assert_eq!(judge(CompleteCommit, "t", 0), Verdict::End(End::Commit));
    assert_eq!(judge(CompleteAbort, "t", 0), abort);
    // Of a transaction of which nothing else is known.
    assert_eq!(judge(CompleteCommit, "t", 1), abort);
}
