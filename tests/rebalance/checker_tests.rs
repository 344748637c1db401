//! The checker itself: books that balance pass, and each kind of broken promise is caught.

use super::checker::{Books, Fault, Findings, Idle, Member};
use super::load::Stored;
use super::notes::{Life, Note};

const P: u32 = 1;
const S: u64 = 1_000_000;

fn assigned(at_us: u64) -> Note {
    Note::Assigned { partition: P, at_us }
}

fn read(offset: u64, at_us: u64) -> Note {
    Note::Read { partition: P, offset, at_us }
}

fn committed(next_offset: u64, at_us: u64) -> Note {
    Note::Committed { partition: P, next_offset, at_us }
}

fn revoked(at_us: u64) -> Note {
    Note::Revoked { partition: P, at_us }
}

fn member(name: &str, killed_us: Option<u64>, notes: &[Note]) -> Member {
    Member { life: Life { name: name.to_owned(), notes: notes.to_vec() }, killed_us }
}

/// Eight messages, one a second. The first member gives the partition back with two read; the second is killed after it
/// has read 2 to 4 and committed 4; the third takes over when the session has ended.
fn books() -> Books {
    let first = [assigned(S), read(0, S), read(1, 2 * S), committed(2, 2 * S + 1), revoked(2 * S + 2)];
    let second = [assigned(2 * S + 3), read(2, 3 * S), read(3, 4 * S), committed(4, 4 * S + 1), read(4, 5 * S)];
    let third = [assigned(11 * S), read(4, 11 * S + 1), read(5, 11 * S + 2), read(6, 11 * S + 3), read(7, 11 * S + 4)];
    Books {
        group: "g".to_owned(),
        began_us: S,
        members: vec![
            member("first", None, &first),
            member("second", Some(5 * S + 1), &second),
            member("third", None, &third),
        ],
        silences_us: vec![5 * S + 1],
    }
}

fn stored() -> Stored {
    vec![Vec::new(), (1..=8).map(|second| second * S).collect()]
}

fn after(change: impl FnOnce(&mut Books)) -> Findings {
    let mut books = books();
    change(&mut books);
    books.check(&stored())
}

fn notes(books: &mut Books, member: usize) -> &mut Vec<Note> {
    &mut books.members[member].life.notes
}

fn remove(books: &mut Books, member: usize, note: usize) {
    notes(books, member).remove(note);
}

fn doubled(offset: u64, before: &str, again: &str) -> Fault {
    let (before, again) = (before.to_owned(), again.to_owned());
    Fault::Doubled { group: "g".to_owned(), partition: P, offset, before, again }
}

#[test]
fn books_that_balance_pass() {
    let findings = books().check(&stored());
    assert_eq!(findings.faults, []);
    assert_eq!((findings.processed, findings.again_after_kill, findings.again_after_loss), (9, 1, 0));
    assert_eq!((findings.assigned, findings.lost), (3, 0));
    assert_eq!(findings.longest_in_silence, Idle { us: 6 * S + 1, partition: P, offset: 4, in_silence: true });
    assert!(findings.longest.us < S);
}

#[test]
fn a_message_that_is_processed_again_after_its_reader_gave_it_back_is_doubled() {
    let findings = after(|books| notes(books, 1).insert(1, read(1, 2 * S + 4)));
    assert_eq!(findings.faults, [doubled(1, "first", "second")]);
}

#[test]
fn a_message_that_a_killed_member_had_committed_is_doubled() {
    let findings = after(|books| notes(books, 2).insert(1, read(3, 11 * S)));
    assert_eq!(findings.faults, [doubled(3, "second", "third")]);
    assert_eq!(findings.again_after_kill, 1);
}

#[test]
fn a_message_that_was_read_elsewhere_before_its_reader_was_killed_is_doubled() {
    let findings = after(|books| books.members[1].killed_us = Some(11 * S + 9));
    assert!(findings.faults.contains(&doubled(4, "second", "third")), "{:?}", findings.faults);
}

#[test]
fn a_message_that_one_member_processes_twice_is_doubled_even_when_it_is_killed_later() {
    let findings = after(|books| notes(books, 1).push(read(3, 5 * S)));
    assert_eq!(findings.faults, [doubled(3, "second", "second")]);
}

#[test]
fn a_message_that_the_client_hands_over_twice_in_a_row_is_counted_and_one_more_in_between_is_doubled() {
    let findings = after(|books| notes(books, 2).insert(2, read(4, 11 * S + 1)));
    assert_eq!((findings.faults.as_slice(), findings.again_by_client), ([].as_slice(), 1));
    let findings =
        after(|books| notes(books, 2).splice(3..3, [read(4, 11 * S + 2), read(5, 11 * S + 2)]).for_each(drop));
    assert_eq!(findings.faults, [doubled(4, "third", "third"), doubled(5, "third", "third")]);
}

#[test]
fn a_message_that_nobody_processes_is_skipped() {
    let skipped =
        |offset: u64, messages: usize| Fault::Skipped { group: "g".to_owned(), partition: P, offset, messages };
    let findings = after(|books| remove(books, 2, 1));
    assert_eq!(findings.faults, []);
    let findings = after(|books| remove(books, 2, 2));
    assert_eq!(findings.faults, [skipped(5, 1)]);
    let findings = after(|books| notes(books, 2).truncate(3));
    assert_eq!(findings.faults, [skipped(6, 2)]);
}

#[test]
fn a_message_that_was_never_stored_is_caught() {
    let findings = after(|books| notes(books, 2).push(read(8, 12 * S)));
    let member = "third".to_owned();
    assert_eq!(findings.faults, [Fault::NotStored { group: "g".to_owned(), partition: P, offset: 8, member }]);
}

#[test]
fn reading_without_an_assignment_is_caught() {
    let not_assigned = |offset: u64, member: &str| Fault::NotAssigned {
        group: "g".to_owned(),
        partition: P,
        offset,
        member: member.to_owned(),
    };
    let findings = after(|books| {
        notes(books, 0).push(read(2, 2 * S + 3));
        notes(books, 1).remove(1);
    });
    assert!(findings.faults.contains(&not_assigned(2, "first")), "{:?}", findings.faults);
    let findings = after(|books| remove(books, 1, 0));
    assert!(findings.faults.contains(&not_assigned(2, "second")), "{:?}", findings.faults);
}

#[test]
fn a_partition_with_two_owners_at_a_time_is_caught() {
    let shared = |owner: &str, other: &str| {
        let (owner, other) = (owner.to_owned(), other.to_owned());
        Fault::Shared { group: "g".to_owned(), partition: P, owner, other }
    };
    let findings = after(|books| remove(books, 0, 4));
    // The first never gives it back.
    assert_eq!(findings.faults, [shared("first", "second"), shared("first", "third")]);
    let findings = after(|books| notes(books, 1)[0] = assigned(2 * S + 1));
    assert_eq!(findings.faults, [shared("first", "second")]);
}

#[test]
fn a_partition_that_is_idle_for_longer_than_a_session_and_two_seconds_is_caught() {
    let late = |by_us: u64| {
        after(|books| {
            for note in notes(books, 2) {
                if let Note::Read { at_us, .. } | Note::Assigned { at_us, .. } = note {
                    *at_us += by_us;
                }
            }
        })
    };
    assert_eq!(late(2 * S - 1).faults, []);
    let idle = Idle { us: 8 * S + 1, partition: P, offset: 4, in_silence: true };
    assert_eq!(late(2 * S).faults, [Fault::Idle { group: "g".to_owned(), idle }]);
}

#[test]
fn a_partition_that_is_idle_for_a_session_while_nobody_is_silent_is_caught() {
    let idle = Idle { us: 6 * S + 1, partition: P, offset: 4, in_silence: false };
    // Nobody, or somebody when it was over.
    for silences_us in [vec![], vec![11 * S + 1]] {
        let findings = after(|books| books.silences_us = silences_us);
        assert_eq!(findings.faults, [Fault::Idle { group: "g".to_owned(), idle }]);
    }
}

#[test]
fn a_partition_waits_for_its_messages_without_being_idle() {
    let mut stored = stored();
    stored[P as usize][4..].iter_mut().for_each(|acknowledged_us| *acknowledged_us = 11 * S);
    assert_eq!(books().check(&stored).longest_in_silence.us, 1);
}

#[test]
fn what_a_member_processed_of_a_lost_assignment_may_be_processed_again_and_no_more() {
    let lost = |uncommitted: u64| {
        after(|books| {
            let first = notes(books, 0);
            first[3] = committed(uncommitted, 2 * S + 1);
            first[4] = Note::Lost { partition: P, at_us: 2 * S + 5 };
            notes(books, 1).insert(1, read(1, 2 * S + 4));
        })
    };
    let findings = lost(1);
    assert_eq!((findings.faults.as_slice(), findings.lost, findings.again_after_loss), ([].as_slice(), 1, 1));
    assert_eq!(lost(2).faults, [doubled(1, "first", "second")]);
}
