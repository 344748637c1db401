//! Synthetic card transactions: the same for the same seed, and what their flags say of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::support::{drain, refusal};
use finstream::clock::Micros;
use finstream::config::{EventTimes, Shares, SourceSettings, SyntheticSettings};
use finstream::source::{self, DerivedIds, Draft, Kind};
use finstream::transaction::{MessageId, RunId, Transaction};
use rust_decimal::Decimal;
use uuid::Uuid;

const MANY: usize = 200_000;
const MONDAY_US: i64 = 1_767_571_200_000_000;
const DAY_US: i64 = 86_400_000_000;

fn settings(seed: u64) -> SyntheticSettings {
    let (shares, event_times) = (Shares::default(), EventTimes::Live);
    SyntheticSettings { users: 10_000, zipf_exponent: 1.0, seed, shares, event_times }
}

fn take(settings: SyntheticSettings, count: usize) -> Vec<Draft> {
    drain(source::open(&SourceSettings::Synthetic(settings)).unwrap().as_mut(), count)
}

/// As they stand in the topic, with fixed times.
fn encoded(drafts: &[Draft]) -> Vec<Vec<u8>> {
    let run = RunId(Uuid::from_u128(7));
    let mut ids = DerivedIds::default();
    let encode = |(sequence, draft): (usize, &Draft)| {
        let (id, mut bytes) = (MessageId { run, sequence: sequence as i64 }, Vec::new());
        let times = (Micros(1_700_000_000_000_000), Micros(1_700_000_000_000_001));
        draft.transaction(id, &mut ids, times.0, times.1).encode_into(&mut bytes);
        bytes
    };
    drafts.iter().enumerate().map(encode).collect()
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_one_others() {
    let bytes = |seed| encoded(&take(settings(seed), 20_000));
    assert!(bytes(7) == bytes(7) && bytes(7) != bytes(8));
    // On every machine: whoever changes what a seed gives changes this number, and says so in the change log.
    let sum = bytes(1).iter().fold(0, |sum, bytes| crc32c::crc32c_append(sum, bytes));
    assert_eq!(sum, 137_240_908);
}

#[test]
fn each_share_is_the_one_that_was_asked_for() {
    for (shares, seed) in [
        (Shares::default(), 1),
        (Shares { refunds: 0.1, declines: 0.2, fraud: 0.05, late: 0.3, duplicates: 0.02 }, 2),
        (Shares { refunds: 0.4, declines: 0.1, fraud: 0.05, late: 0.0, duplicates: 0.05 }, 4),
        (Shares { refunds: 0.0, declines: 0.0, fraud: 0.0, late: 0.0, duplicates: 0.0 }, 3),
    ] {
        let drafts = take(SyntheticSettings { shares, ..settings(seed) }, MANY);
        let share = |of: &dyn Fn(&&Draft) -> bool| drafts.iter().filter(of).count() as f64 / MANY as f64;
        // Fraud comes in bursts: fewer independent draws.
        for (what, asked, found, slack) in [
            ("refunds", shares.refunds, share(&|draft| draft.kind == Kind::Refund && draft.repeats.is_none()), 0.03),
            ("declines", shares.declines, share(&|draft| draft.declined.is_some() && draft.fraud.is_none()), 0.05),
            ("fraud", shares.fraud, share(&|draft| draft.fraud.is_some()), 0.2),
            ("late", shares.late, share(&|draft| draft.late_us > 0), 0.03),
            ("duplicates", shares.duplicates, share(&|draft| draft.repeats.is_some()), 0.05),
        ] {
            let slack = if asked == 0.0 { 0.0 } else { slack * asked + 3.0 * (asked / MANY as f64).sqrt() };
            assert!((found - asked).abs() <= slack, "{what}: {found}, not {asked}");
        }
    }
}

#[test]
fn all_of_them_decode_and_are_exact_in_their_currency() {
    let shares = Shares { fraud: 0.02, duplicates: 0.01, ..Shares::default() };
    let drafts = take(SyntheticSettings { shares, ..settings(1) }, 50_000);
    let mut by_user: BTreeMap<&str, usize> = BTreeMap::new();
    let mut digits = BTreeMap::new();
    for (draft, bytes) in drafts.iter().zip(encoded(&drafts)) {
        *by_user.entry(&draft.user_id).or_default() += 1;
        let transaction = Transaction::decode(&bytes).unwrap();
        assert_eq!(transaction.is_declined(), draft.declined.is_some());
        let asked = draft.requested_amount.unwrap_or(draft.amount);
        assert!(asked > Decimal::ZERO && asked < Decimal::from(10_000_000), "{asked}");
        assert_eq!(asked.scale(), draft.currency.minor_unit_digits());
        digits.insert(draft.currency.to_string(), asked.scale());
    }
    // Zipf: the first user leads by far, and most users are seen rarely.
    assert_eq!(by_user.iter().max_by_key(|(_, count)| **count).unwrap().0, &"user-000001");
    assert!(by_user.len() > 1_000);
    let of = |currency: &str| digits.get(currency).copied();
    assert_eq!((of("USD"), of("JPY"), of("BHD"), digits.len()), (Some(2), Some(0), Some(3), 8));
}

#[test]
fn refunds_and_duplicates_refer_to_what_was_sent() {
    let shares = Shares { refunds: 0.1, duplicates: 0.1, fraud: 0.01, ..Shares::default() };
    let drafts = take(SyntheticSettings { shares, ..settings(4) }, 50_000);
    let mut refunded = BTreeSet::new();
    for (place, draft) in drafts.iter().enumerate() {
        if let Some(repeated) = draft.repeats {
            let original = &drafts[repeated as usize];
            let as_sent = Draft { repeats: None, late_us: original.late_us, event_time: None, ..draft.clone() };
            assert!(repeated < place as i64 && &as_sent == original);
        } else if let Some(purchase) = draft.refund_of {
            let purchase_draft = &drafts[purchase as usize];
            assert!(draft.kind == Kind::Refund && purchase < place as i64 && refunded.insert(purchase));
            assert!(draft.amount <= purchase_draft.amount && draft.user_id == purchase_draft.user_id);
            assert!(purchase_draft.kind == Kind::Purchase && purchase_draft.declined.is_none());
            assert_eq!((&draft.merchant, draft.currency), (&purchase_draft.merchant, purchase_draft.currency));
        }
    }
    let bytes = encoded(&drafts);
    let place = drafts.iter().position(|draft| draft.refund_of.is_some() && draft.repeats.is_none()).unwrap();
    let refund = Transaction::decode(&bytes[place]).unwrap();
    let purchase = Transaction::decode(&bytes[drafts[place].refund_of.unwrap() as usize]).unwrap();
    assert_eq!(refund.card.refund_of, Some(purchase.transaction_id));
}

#[test]
fn stolen_cards_are_tried_out_in_bursts_and_used_where_their_owner_cannot_be() {
    let shares = Shares { fraud: 0.05, ..Shares::default() };
    let drafts = take(SyntheticSettings { shares, ..settings(5) }, MANY);
    let of = |label: &str| -> Vec<(usize, &Draft)> {
        drafts.iter().enumerate().filter(|(_, draft)| draft.fraud == Some(label)).collect()
    };
    let (tests, travels) = (of("card_testing"), of("impossible_travel"));
    assert!(tests.len() > 5_000 && travels.len() > 500);
    let declined = tests.iter().filter(|(_, draft)| draft.declined.is_some()).count() as f64 / tests.len() as f64;
    assert!((0.5..0.7).contains(&declined), "{declined}");
    let mut by_user: HashMap<&str, Vec<usize>> = HashMap::new();
    tests.iter().for_each(|(place, draft)| by_user.entry(&draft.user_id).or_default().push(*place));
    let gaps: Vec<usize> =
        by_user.values().flat_map(|places| places.windows(2).map(|pair| pair[1] - pair[0])).collect();
    let close = gaps.iter().filter(|gap| **gap <= 40).count() as f64 / gaps.len() as f64;
    assert!(close > 0.8, "{close} of the attempts come within 40 messages");
    // At home just before: nobody travels in minutes.
    let home: HashMap<&str, &str> =
        drafts.iter().filter(|draft| draft.fraud.is_none()).map(|draft| (&*draft.user_id, draft.country)).collect();
    assert!(travels.iter().all(|(_, draft)| home[&*draft.user_id] != draft.country));
}

#[test]
fn users_keep_their_hours() {
    let settings = SyntheticSettings { event_times: EventTimes::Calendar, ..settings(6) };
    let mut source = source::open(&SourceSettings::Synthetic(settings)).unwrap();
    assert!(source.has_event_times());
    let drafts = drain(source.as_mut(), MANY);
    let times: Vec<i64> = drafts.iter().map(|draft| draft.event_time.unwrap().0 - MONDAY_US).collect();
    assert!(times.is_sorted() && times[0] >= 0);
    // 16,000 transactions of 10,000 users a day.
    let days = *times.last().unwrap() as f64 / DAY_US as f64;
    assert!((11.0..14.0).contains(&days), "{days} days");
    // Of Americans, whose clocks are five hours behind.
    let at_home = |category: &'static str| {
        drafts.iter().zip(&times).filter(move |(draft, _)| draft.category == category && draft.country == "US").map(
            |(_, time)| {
                let local = time - 5 * 3_600_000_000;
                (local.div_euclid(DAY_US).rem_euclid(7), local.rem_euclid(DAY_US) / 3_600_000_000)
            },
        )
    };
    let share = |category, of: &dyn Fn((i64, i64)) -> bool| {
        at_home(category).filter(|local| of(*local)).count() as f64 / at_home(category).count() as f64
    };
    let shares = [
        share("dining", &|(_, hour)| (12..15).contains(&hour) || (18..21).contains(&hour)),
        share("dining", &|(_, hour)| (3..6).contains(&hour)),
        share("transport", &|(day, hour)| day < 5 && (6..9).contains(&hour)),
        share("health", &|(_, hour)| hour < 6),
        // Two of these twelve and a half days would be 0.16.
        share("entertainment", &|(day, _)| day >= 5),
    ];
    let expected = [0.4..0.7, 0.0..0.02, 0.12..0.4, 0.0..0.002, 0.22..0.5];
    assert!(expected.iter().zip(&shares).all(|(range, share)| range.contains(share)), "{shares:?}");
}

#[test]
fn amounts_are_as_large_as_card_payments_are() {
    let shares = Shares { fraud: 0.0, ..Shares::default() };
    let drafts = take(SyntheticSettings { shares, zipf_exponent: 0.0, ..settings(1) }, MANY);
    let dollars: Vec<f64> = drafts
        .iter()
        .filter(|draft| draft.country == "US" && draft.kind == Kind::Purchase && draft.declined.is_none())
        .map(|draft| draft.amount.to_string().parse().unwrap())
        .collect();
    let mean = dollars.iter().sum::<f64>() / dollars.len() as f64;
    let small = dollars.iter().filter(|usd| **usd < 25.0).count() as f64 / dollars.len() as f64;
    // docs/SOURCES.md says whose figures these are.
    assert!((45.0..60.0).contains(&mean), "mean {mean}");
    assert!((0.5..0.65).contains(&small), "{small} below 25 dollars");
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let with =
        |users, zipf_exponent| SourceSettings::Synthetic(SyntheticSettings { users, zipf_exponent, ..settings(1) });
    assert!(refusal(&with(0, 1.0)).contains("--users 0 is not within"));
    assert!(refusal(&with(1, f64::NAN)).contains("--zipf NaN is not within"));
    assert!(source::open(&with(1, 0.0)).is_ok());
    let shares = Shares { refunds: 0.0, declines: 0.0, fraud: 1.0, late: 1.0, duplicates: 0.0 };
    let all_fraud = take(SyntheticSettings { shares, users: 3, ..settings(1) }, 5_000);
    assert!(all_fraud.iter().filter(|draft| draft.fraud.is_some()).count() > 4_000);
}
