//! The checker itself: books that balance pass, and each kind of broken promise is caught.

use std::collections::BTreeMap;

use super::checker::{Evidence, Fault, Record};
use super::message::{Identity, Place};
use super::notes::{Life, Note};

const PLACE: Place = Place(21);
const MESSAGES: u32 = 6;

fn life(name: &str, notes: Vec<Note>) -> Life {
    Life { name: name.to_owned(), notes }
}

fn read(offset: u64, life: u32, sequence: u32) -> Note {
    Note::Read { place: PLACE, offset, life, sequence }
}

fn assigned(at_us: u64) -> Note {
    Note::Assigned { place: PLACE, at_us }
}

fn committed(next_offset: u64, at_us: u64) -> Note {
    Note::Committed { place: PLACE, next_offset, at_us }
}

/// Two producers in turn, 0, 0, 1, 1, 2, 2; a reader that commits 2 and is killed at 4, and one that takes over.
fn books() -> Evidence {
    let identity = |offset: u32| Identity { life: 1 + offset % 2, place: PLACE, sequence: offset / 2 };
    let record = |offset: u32| Record { offset: u64::from(offset), identity: Some(identity(offset)) };
    let delivered = |offset: u32| Note::Delivered {
        place: PLACE,
        offset: (offset != 5).then_some(u64::from(offset)),
        life: identity(offset).life,
        sequence: identity(offset).sequence,
    };
    let reading = |offset: u32| read(u64::from(offset), identity(offset).life, identity(offset).sequence);
    let mut first = vec![assigned(10), reading(0), reading(1), committed(2, 20)];
    first.extend([reading(2), reading(3)]);
    let mut second = vec![assigned(30)];
    second.extend((2..MESSAGES).map(reading));
    Evidence {
        log: BTreeMap::from([(PLACE, (0..MESSAGES).map(record).collect()), (Place(0), Vec::new())]),
        writers: (0..2)
            .map(|writer| life("w", (0..MESSAGES).filter(|o| o % 2 == writer).map(delivered).collect()))
            .collect(),
        readers: vec![life("first", first), life("second", second)],
    }
}

fn log(books: &mut Evidence) -> &mut Vec<Record> {
    books.log.get_mut(&PLACE).unwrap()
}

fn faults_after(change: impl FnOnce(&mut Evidence)) -> Vec<Fault> {
    let mut books = books();
    change(&mut books);
    books.faults()
}

#[test]
fn books_that_balance_pass() {
    assert_eq!(books().faults(), []);
}

#[test]
fn an_acknowledged_message_that_is_not_there_is_lost() {
    // From the end: nothing else in the log tells of it.
    let faults = faults_after(|books| {
        log(books).pop();
    });
    assert!(faults.contains(&Fault::Lost { place: PLACE, offset: None, life: 2, sequence: 2 }), "{faults:?}");
    assert!(faults.contains(&Fault::Vanished { place: PLACE, offset: 5, reader: "second".to_owned() }), "{faults:?}");
}

#[test]
fn a_message_is_missing_when_a_later_one_of_its_producer_is_there() {
    let faults = faults_after(|books| {
        books.writers.clear();
        log(books).remove(2);
        log(books).iter_mut().zip(0..).for_each(|(record, offset)| record.offset = offset);
    });
    assert!(faults.contains(&Fault::Missing { place: PLACE, life: 1, sequence: 1 }), "{faults:?}");
}

#[test]
fn an_offset_that_is_left_out_is_a_gap() {
    let faults = faults_after(|books| log(books)[5].offset = 6);
    assert_eq!(faults, [Fault::Gap { place: PLACE, after: Some(4), offset: 6 }]);
}

#[test]
fn a_message_that_is_there_twice_is_doubled() {
    let faults = faults_after(|books| {
        let again = Record { offset: 6, ..log(books)[2] };
        log(books).push(again);
        books.readers[1].notes.push(read(6, 1, 1));
    });
    assert_eq!(faults, [Fault::Doubled { place: PLACE, offset: 6, life: 1, sequence: 1 }]);
}

#[test]
fn messages_of_one_producer_that_changed_places_are_reordered() {
    let faults = faults_after(|books| {
        books.writers.clear();
        books.readers[1].notes = vec![assigned(30), read(2, 1, 2), read(3, 2, 1), read(4, 1, 1), read(5, 2, 2)];
        books.readers[0].notes.truncate(4);
        let (early, late) = (log(books)[2].identity, log(books)[4].identity);
        log(books)[2].identity = late;
        log(books)[4].identity = early;
    });
    assert_eq!(faults, [Fault::Reordered { place: PLACE, offset: 4, life: 1, sequence: 1 }]);
}

#[test]
fn an_acknowledged_message_whose_offset_moved_is_lost_from_its_place() {
    let faults = faults_after(|books| {
        let Note::Delivered { offset, .. } = &mut books.writers[0].notes[0] else { panic!("a delivery") };
        *offset = Some(1);
    });
    assert_eq!(faults, [Fault::Lost { place: PLACE, offset: Some(1), life: 1, sequence: 0 }]);
}

#[test]
fn bytes_that_nobody_sent_are_a_change() {
    let faults = faults_after(|books| log(books)[3].identity = None);
    assert!(faults.contains(&Fault::Changed { place: PLACE, offset: 3 }), "{faults:?}");
    let faults = faults_after(|books| {
        let elsewhere = Identity { life: 2, place: Place(22), sequence: 1 };
        log(books)[3].identity = Some(elsewhere);
    });
    assert!(faults.contains(&Fault::Changed { place: PLACE, offset: 3 }), "{faults:?}");
}

#[test]
fn a_message_that_was_read_and_is_gone_or_another_has_vanished() {
    let vanished = Fault::Vanished { place: PLACE, offset: 3, reader: "first".to_owned() };
    let faults = faults_after(|books| books.readers[0].notes[5] = read(3, 2, 0));
    assert_eq!(faults, [vanished]);
}

#[test]
fn a_consumer_that_jumps_forward_or_back_is_caught() {
    let jumped =
        |expected: u64, offset: u64| Fault::Jumped { place: PLACE, expected, offset, reader: "second".to_owned() };
    let faults = faults_after(|books| {
        books.readers[1].notes.remove(3);
    });
    assert_eq!(faults, [jumped(4, 5), Fault::Skipped { place: PLACE, offset: 4 }]);
    let faults = faults_after(|books| books.readers[1].notes.push(read(5, 2, 2)));
    assert_eq!(faults, [jumped(6, 5)]);
}

#[test]
fn an_acknowledged_commit_that_is_forgotten_is_caught() {
    let faults = faults_after(|books| books.readers[1].notes.insert(1, read(1, 2, 0)));
    let reader = "second".to_owned();
    assert_eq!(faults, [Fault::CommitLost { place: PLACE, committed: 2, offset: 1, reader }]);
    // One that was acknowledged after the assignment may not be known to it.
    assert_eq!(
        faults_after(|books| {
            books.readers[1].notes.insert(1, read(1, 2, 0));
            books.readers[0].notes[3] = committed(2, 30);
        }),
        []
    );
}

#[test]
fn a_message_that_a_group_never_read_is_skipped() {
    let faults = faults_after(|books| {
        books.readers[1].notes.pop();
    });
    assert_eq!(faults, [Fault::Skipped { place: PLACE, offset: 5 }]);
}

#[test]
fn reading_without_an_assignment_is_caught() {
    let faults = faults_after(|books| {
        books.readers[1].notes.remove(0);
    });
    assert_eq!(faults, [Fault::NotAssigned { place: PLACE, offset: 2, reader: "second".to_owned() }]);
}
