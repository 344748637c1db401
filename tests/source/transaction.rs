//! The wire form of a transaction: what goes out comes back, and nothing else gets in.
use std::borrow::Cow;

use finstream::clock::Micros;
use finstream::transaction::{
    CardInfo, Currency, Detail, Side, Transaction, WireDetail, WireMerchant, WirePurchase, WireRefund, WireTrade,
    WireTransaction, patch_sent_at, read_sent_at, schema_json,
};
use proptest::prelude::*;
use rust_decimal::Decimal;

fn purchase() -> Transaction<'static> {
    Transaction {
        transaction_id: "t-1".into(),
        user_id: "user-7".into(),
        amount: Decimal::new(1250, 2),
        currency: Currency::USD,
        event_time: Micros(1_577_975_400_000_000),
        scheduled_at: Some(Micros(1_700_000_000_000_000)),
        sent_at: Some(Micros(1_700_000_000_000_150)),
        detail: Detail::Purchase { merchant: "Corner \"Coffee\"".into(), category: "dining".into() },
        card: CardInfo::default(),
    }
}

fn declined() -> Transaction<'static> {
    let card = CardInfo {
        mcc: Some("5812".into()),
        country: Some("DE".into()),
        declined: Some("do_not_honor".into()),
        requested_amount: Some(Decimal::new(1250, 2)),
        fraud: Some("card_testing".into()),
        ..CardInfo::default()
    };
    Transaction { amount: Decimal::new(0, 2), card, ..purchase() }
}

fn trade() -> Transaction<'static> {
    Transaction {
        amount: Decimal::new(7_508_750, 4),
        detail: Detail::Trade {
            symbol: "AAPL".into(),
            side: Side::Sell,
            quantity: 10,
            price: Decimal::new(750_875, 4),
        },
        ..purchase()
    }
}

fn encoded(transaction: &Transaction<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    transaction.encode_into(&mut out);
    out
}

fn purchase_with(member: &str, value: &str) -> String {
    let mut object: serde_json::Value = serde_json::from_slice(&encoded(&purchase())).unwrap();
    object[member] = serde_json::from_str(value).unwrap();
    object.to_string()
}

fn refusal(bytes: &[u8]) -> String {
    Transaction::decode(bytes).expect_err("must be refused").to_string()
}

#[test]
fn the_bytes_of_a_purchase_and_of_a_trade_never_change() {
    assert_eq!(
        String::from_utf8(encoded(&purchase())).unwrap(),
        r#"{"transaction_id":"t-1","type":"purchase","user_id":"user-7","amount":"12.50","currency":"USD","merchant":"Corner \"Coffee\"","category":"dining","event_time":"2020-01-02T14:30:00.000000Z","scheduled_at_us":1700000000000000,"sent_at_us":1700000000000150}"#
    );
    assert_eq!(
        String::from_utf8(encoded(&trade())).unwrap(),
        r#"{"transaction_id":"t-1","type":"trade","user_id":"user-7","amount":"750.8750","currency":"USD","symbol":"AAPL","side":"sell","quantity":10,"price":"75.0875","event_time":"2020-01-02T14:30:00.000000Z","scheduled_at_us":1700000000000000,"sent_at_us":1700000000000150}"#
    );
}

#[test]
fn what_was_encoded_decodes_to_the_same_and_borrows_what_needs_no_unescaping() {
    for transaction in [purchase(), trade()] {
        let bytes = encoded(&transaction);
        let decoded = Transaction::decode(&bytes).unwrap();
        assert_eq!(decoded, transaction);
        assert!(matches!(decoded.user_id, Cow::Borrowed(_)));
    }
}

#[test]
fn a_message_cut_at_any_length_is_refused() {
    let bytes = encoded(&trade());
    for length in 0..bytes.len() {
        assert!(Transaction::decode(&bytes[..length]).is_err(), "{length} bytes");
    }
}

#[test]
fn sent_at_is_patched_in_place_whatever_its_size() {
    for sent_at in [0, -1, 5, 1_700_000_000_000_151, 9_999_999_999_999_999] {
        let mut bytes = encoded(&purchase());
        let length = bytes.len();
        assert!(patch_sent_at(&mut bytes, Micros(sent_at)));
        assert_eq!(bytes.len(), length);
        assert_eq!(Transaction::decode(&bytes).unwrap().sent_at, Some(Micros(sent_at)));
        assert_eq!(read_sent_at(&bytes), Some(Micros(sent_at)));
    }
    let mut without = encoded(&Transaction { sent_at: None, ..purchase() });
    assert!(!patch_sent_at(&mut without, Micros(1)));
    assert!(!patch_sent_at(&mut [], Micros(1)));
}

#[test]
fn members_that_are_not_known_are_ignored() {
    let bytes = purchase_with("loyalty", r#"{"points": [1, 2, {"deep": null}]}"#);
    assert_eq!(Transaction::decode(bytes.as_bytes()).unwrap(), purchase());
}

#[test]
fn a_refusal_names_the_field_the_value_and_the_limit() {
    let long_user = format!("\"{}\"", "x".repeat(10_000));
    for (member, value, expected) in [
        ("user_id", long_user.as_str(), "has 10000 characters; at most 64 are allowed"),
        ("user_id", r#""a\u0000b""#, "user_id \"a\\0b\" holds a control character"),
        ("user_id", r#""""#, "user_id is empty"),
        ("merchant", r#""\u0085""#, "merchant \"\\u{85}\" holds a control character"),
        ("amount", r#""1000000000000000.00""#, "has more than 15 digits before the point"),
        ("amount", r#""-1.00""#, "amount \"-1.00\" is negative"),
        ("amount", r#""1e3""#, "amount \"1e3\" is not a plain decimal"),
        ("amount", "12.5", "amount: invalid type: floating point `12.5`, expected a string"),
        ("currency", r#""usd""#, "currency \"usd\" is not three upper-case letters"),
        ("event_time", r#""10000-01-01T00:00:00Z""#, "is not an RFC 3339 time in the years 0001 to 9999"),
        ("scheduled_at_us", "9223372036854775807", "scheduled_at_us \"9223372036854775807\" is outside"),
        ("sent_at_us", "1.5", "sent_at_us: invalid type: floating point"),
        ("type", r#""gift""#, "type \"gift\" is none of purchase, refund, trade"),
        ("transaction_id", "null", "transaction_id: invalid type: null, expected a string"),
    ] {
        let refused = refusal(purchase_with(member, value).as_bytes());
        assert!(refused.contains(expected), "{refused}");
        assert!(refused.len() < 200, "{refused}");
    }
}

#[test]
fn a_trade_whose_amount_is_not_price_times_quantity_is_refused() {
    let wrong = Transaction { amount: Decimal::new(7_508_751, 4), ..trade() };
    assert_eq!(refusal(&encoded(&wrong)), "amount 750.8751 is not price 75.0875 times quantity 10");
    let text = String::from_utf8(encoded(&trade())).unwrap();
    for quantity in ["0", "-10", "1000000000000001"] {
        let bytes = text.replace("\"quantity\":10", &format!("\"quantity\":{quantity}"));
        assert!(refusal(bytes.as_bytes()).contains("is not within 1 to 10^15"));
    }
}

#[test]
fn missing_doubled_and_foreign_shapes_are_refused() {
    assert_eq!(refusal(b"{}"), "type is missing");
    assert!(refusal(b"[]").contains("expected a JSON object"));
    assert!(refusal(b"\xff\xfe").starts_with("not a transaction"));
    assert!(refusal(br#"{"amount":"1","amount":"2"}"#).contains("amount appears twice"));
    assert!(refusal(&[b'['; 100_000]).starts_with("not a transaction"));
    let mut trailing = encoded(&purchase());
    trailing.extend_from_slice(b"{}");
    assert!(refusal(&trailing).contains("trailing"));
}

#[test]
fn a_declined_attempt_says_so_and_moves_nothing() {
    let bytes = encoded(&declined());
    assert!(
        String::from_utf8(bytes.clone()).unwrap().contains(
            r#""amount":"0.00","currency":"USD","merchant":"Corner \"Coffee\"","category":"dining","mcc":"5812","country":"DE","declined":"do_not_honor","requested_amount":"12.50","fraud":"card_testing","event_time""#
        )
    );
    let decoded = Transaction::decode(&bytes).unwrap();
    assert!(decoded == declined() && decoded.is_declined() && !purchase().is_declined());
    // Money that moved counts, whatever else is said of it.
    assert!(!Transaction { amount: Decimal::ONE, ..declined() }.is_declined());
    // So does a purchase of nothing by a producer that has a member `declined` of its own.
    let card = CardInfo { requested_amount: None, ..declined().card };
    assert!(!Transaction { amount: Decimal::ZERO, card, ..declined() }.is_declined());
}

/// How the schema grows: members that an older reader does not know are ignored by it, and those that an older writer does
/// not write are absent. What others have used the new names for must not become a refusal.
#[test]
fn old_and_new_readers_and_writers_understand_each_other() {
    // What a reader of the first schema knew.
    const FIRST: [&str; 12] = [
        "transaction_id",
        "type",
        "user_id",
        "amount",
        "currency",
        "merchant",
        "category",
        "symbol",
        "side",
        "quantity",
        "price",
        "event_time",
    ];
    let new: serde_json::Value = serde_json::from_slice(&encoded(&declined())).unwrap();
    let old: serde_json::Map<_, _> = new
        .as_object()
        .unwrap()
        .iter()
        .filter(|(name, _)| FIRST.contains(&name.as_str()))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    let read = serde_json::to_string(&old).unwrap();
    // An old reader counts a purchase that moved nothing: no cent is wrong.
    assert_eq!((&old["type"], &old["amount"]), (&"purchase".into(), &"0.00".into()));
    assert!(matches!(Transaction::decode(read.as_bytes()).unwrap().detail, Detail::Purchase { .. }));
    for (member, value) in [
        ("mcc", "5812"),
        ("mcc", "\"food\""),
        ("country", "\"Germany\""),
        ("country", "{\"iso\":[1,\"DE\",null]}"),
        ("refund_of", "[]"),
        ("declined", "true"),
        ("declined", "\"\""),
        ("requested_amount", "12.5"),
        ("fraud", "0.02"),
        ("fraud", "null"),
        ("fraud", "1e999"),
        ("fraud", r#""\ud800""#),
        ("mcc", r#"[[{"a": -1e-999}], "\n"]"#),
    ] {
        // As it stands: not every one of them is a value that serde_json can hold.
        let rest = String::from_utf8(encoded(&purchase())).unwrap();
        let message = format!("{{\"{member}\":{value},{}", &rest[1..]);
        let decoded =
            Transaction::decode(message.as_bytes()).unwrap_or_else(|error| panic!("{member} {value}: {error}"));
        assert!(decoded == purchase() && !decoded.is_declined(), "{member} {value}: {decoded:?}");
    }
    let schema: serde_json::Value = serde_json::from_str(&schema_json()).unwrap();
    for kind in schema["oneOf"].as_array().unwrap() {
        let required: Vec<&str> =
            kind["required"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        assert!(required.iter().all(|name| FIRST.contains(name)), "{required:?}: a new member may never be required");
        assert_ne!(kind["additionalProperties"], false, "what is not known is ignored");
    }
}

#[test]
fn the_schema_file_is_the_one_that_the_types_generate() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/schema/transaction.schema.json");
    let stored = std::fs::read_to_string(path).unwrap_or_default();
    if stored != schema_json() && std::env::var_os("UPDATE_SCHEMA").is_some() {
        std::fs::write(path, schema_json()).unwrap();
        return;
    }
    assert!(stored == schema_json(), "{path} is old: run UPDATE_SCHEMA=1 cargo test --test source schema");
}

/// The same transaction through serde: an independent check of the hand-written encoder.
fn through_serde(transaction: &Transaction<'_>) -> serde_json::Value {
    let text = |text: &Option<Cow<'_, str>>| text.as_ref().map(ToString::to_string);
    let card = &transaction.card;
    let merchant = |merchant: &str, category: &str| WireMerchant {
        merchant: merchant.into(),
        category: category.into(),
        mcc: text(&card.mcc),
        country: text(&card.country),
    };
    let detail = match &transaction.detail {
        Detail::Purchase { merchant: name, category } => WireDetail::Purchase(WirePurchase {
            merchant: merchant(name, category),
            declined: text(&card.declined),
            requested_amount: card.requested_amount.map(|amount| amount.to_string()),
            fraud: text(&card.fraud),
        }),
        Detail::Refund { merchant: name, category } => {
            WireDetail::Refund(WireRefund { merchant: merchant(name, category), refund_of: text(&card.refund_of) })
        }
        Detail::Trade { symbol, side, quantity, price } => WireDetail::Trade(WireTrade {
            symbol: symbol.to_string(),
            side: side.as_str().into(),
            quantity: *quantity,
            price: price.to_string(),
        }),
    };
    serde_json::to_value(WireTransaction {
        transaction_id: transaction.transaction_id.to_string(),
        user_id: transaction.user_id.to_string(),
        amount: transaction.amount.to_string(),
        currency: transaction.currency.to_string(),
        detail,
        event_time: transaction.event_time.to_string(),
        scheduled_at_us: transaction.scheduled_at.map(|time| time.0),
        sent_at_us: transaction.sent_at.map(|time| time.0),
    })
    .unwrap()
}

prop_compose! {
    fn any_text(max: usize)(text in proptest::collection::vec(any::<char>(), 1..=max)) -> String {
        text.into_iter().collect()
    }
}

prop_compose! {
    fn any_card()(
        id in any_text(64), user in any_text(64), merchant in any_text(128), category in any_text(64),
        mantissa in 0i64..1_000_000_000_000_000_000, scale in 3u32..=8, refund in any::<bool>(),
        event_time in -62_135_596_800_000_000i64..=253_402_300_799_999_999,
        scheduled_at in proptest::option::of(0i64..9_999_999_999_999_999), info in any::<[bool; 6]>(),
    ) -> Transaction<'static> {
        let (merchant, category) = (merchant.into(), category.into());
        let card = CardInfo {
            mcc: info[0].then(|| "5411".into()),
            country: info[1].then(|| "BH".into()),
            refund_of: (refund && info[2]).then(|| "a-1".into()),
            declined: (!refund && info[3]).then(|| "expired_card".into()),
            requested_amount: (!refund && info[4]).then(|| Decimal::new(mantissa, scale)),
            fraud: (!refund && info[5]).then(|| "reported".into()),
        };
        Transaction {
            transaction_id: id.into(),
            user_id: user.into(),
            amount: Decimal::new(mantissa, scale),
            currency: Currency::USD,
            event_time: Micros(event_time),
            scheduled_at: scheduled_at.map(Micros),
            sent_at: scheduled_at.map(|time| Micros(time / 2)),
            detail: match refund {
                true => Detail::Refund { merchant, category },
                false => Detail::Purchase { merchant, category },
            },
            card,
        }
    }
}

proptest! {
    #[test]
    fn the_encoder_agrees_with_serde_and_the_decoder_with_both(card in any_card()) {
        let bytes = encoded(&card);
        let parsed: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        prop_assert_eq!(&parsed, &through_serde(&card));
        let has_control = [&card.transaction_id, &card.user_id].iter().any(|text| text.chars().any(char::is_control))
            || match &card.detail {
                Detail::Purchase { merchant, category } | Detail::Refund { merchant, category } =>
                    merchant.chars().chain(category.chars()).any(char::is_control),
                Detail::Trade { .. } => false,
            };
        match Transaction::decode(&bytes) {
            Ok(decoded) => prop_assert!(!has_control && decoded == card),
            Err(error) => prop_assert!(has_control, "{}", error),
        }
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), at in 0usize..300) {
        let _ = Transaction::decode(&bytes);
        let mut damaged = encoded(&trade());
        let at = at % damaged.len();
        damaged.splice(at..at, bytes.iter().copied().take(2));
        let _ = Transaction::decode(&damaged);
    }
}
