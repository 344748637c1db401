//! The JSON schema of a transaction, for those who write or read the topic with other tools.

use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema};
use serde::Serialize;

use super::{CATEGORY_CHARS_MAX, ID_CHARS_MAX, LABEL_CHARS_MAX, MERCHANT_CHARS_MAX, QUANTITY_MAX, SYMBOL_CHARS_MAX};

const DECIMAL_PATTERN: &str = r"^[0-9]{1,15}(\.[0-9]{1,8})?$";
const MCC_PATTERN: &str = r"^[0-9]{4}$";
const COUNTRY_PATTERN: &str = r"^[A-Z]{2}$";
const NO_CONTROL_PATTERN: &str = r"^[^\u0000-\u001f\u007f-\u009f]+$";

/// A finance transaction as it stands in the topic: one JSON object a message. The message key is `user_id`; members
/// that this schema does not name are ignored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(title = "transaction", extend("$id" = "urn:finstream:schema:transaction"))]
pub struct WireTransaction {
    /// The business id. It may repeat: a file replayed, a client that sends twice. Totals count every stored message.
    #[schemars(
        length(min = 1, max = ID_CHARS_MAX), regex(pattern = NO_CONTROL_PATTERN),
        extend("examples" = ["AAPL:20200102T000000Z:open"])
    )]
    pub transaction_id: String,
    /// Whose transaction; also the message key, so that a user's messages stay in order.
    #[schemars(
        length(min = 1, max = ID_CHARS_MAX), regex(pattern = NO_CONTROL_PATTERN), extend("examples" = ["user-000042"])
    )]
    pub user_id: String,
    /// What moved, in units of `currency`, as a plain decimal string; never negative. Of a trade exactly `price` times
    /// `quantity`.
    #[schemars(regex(pattern = DECIMAL_PATTERN), extend("examples" = ["12.50"]))]
    pub amount: String,
    /// ISO 4217 alphabetic code.
    #[schemars(regex(pattern = r"^[A-Z]{3}$"), extend("examples" = ["USD"]))]
    pub currency: String,
    /// What only this kind of transaction has.
    #[serde(flatten)]
    pub detail: WireDetail,
    /// When it happened in the business world: RFC 3339, years 0001 to 9999; digits beyond microseconds are cut off.
    #[schemars(extend("format" = "date-time", "examples" = ["2020-01-02T14:30:00.000000Z"]))]
    pub event_time: String,
    /// When the arrival process wanted the message sent: microseconds since 1970-01-01T00:00:00Z. Latencies are
    /// measured from here. Absent in messages of other producers.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64", extend("examples" = [1_700_000_000_000_000_i64]))]
    pub scheduled_at_us: Option<i64>,
    /// When the message was handed to the Kafka client: microseconds since 1970-01-01T00:00:00Z.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64", extend("examples" = [1_700_000_000_000_150_i64]))]
    pub sent_at_us: Option<i64>,
}

/// What only one kind of transaction has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum WireDetail {
    /// A card purchase, or the attempt of one that was declined.
    Purchase(WirePurchase),
    /// Money back for a purchase.
    Refund(WireRefund),
    /// A trade of a listed instrument; never part of a user's card spend.
    Trade(WireTrade),
}

/// Where a card was used, and what came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(inline)]
pub struct WirePurchase {
    /// Where it was.
    #[serde(flatten)]
    pub merchant: WireMerchant,
    /// Why the issuer declined the attempt. It moved no money: `amount` is 0, and nothing of it counts in totals.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        with = "String", length(min = 1, max = LABEL_CHARS_MAX), regex(pattern = NO_CONTROL_PATTERN),
        extend("examples" = ["insufficient_funds"])
    )]
    pub declined: Option<String>,
    /// What a declined attempt asked for, in units of `currency`, as a plain decimal string.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", regex(pattern = DECIMAL_PATTERN), extend("examples" = ["12.50"]))]
    pub requested_amount: Option<String>,
    /// The label of what is known to be fraud, for those who train or test a detector; others must not look at it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        with = "String", length(min = 1, max = LABEL_CHARS_MAX), regex(pattern = NO_CONTROL_PATTERN),
        extend("examples" = ["card_testing"])
    )]
    pub fraud: Option<String>,
}

/// Where a card gets money back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(inline)]
pub struct WireRefund {
    /// Where it was.
    #[serde(flatten)]
    pub merchant: WireMerchant,
    /// The `transaction_id` of the purchase.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        with = "String", length(min = 1, max = ID_CHARS_MAX), regex(pattern = NO_CONTROL_PATTERN),
        extend("examples" = ["019a3c7e-8a52-7cc0-b1f0-2d1c2f3a4b5c-41"])
    )]
    pub refund_of: Option<String>,
}

/// Where a card is used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(inline)]
pub struct WireMerchant {
    /// The merchant's name.
    #[schemars(
        length(min = 1, max = MERCHANT_CHARS_MAX), regex(pattern = NO_CONTROL_PATTERN),
        extend("examples" = ["Corner Coffee"])
    )]
    pub merchant: String,
    /// What kind of merchant.
    #[schemars(
        length(min = 1, max = CATEGORY_CHARS_MAX), regex(pattern = NO_CONTROL_PATTERN), extend("examples" = ["dining"])
    )]
    pub category: String,
    /// The merchant category code of ISO 18245.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", regex(pattern = MCC_PATTERN), extend("examples" = ["5812"]))]
    pub mcc: Option<String>,
    /// Where the merchant is, by ISO 3166-1 alpha-2.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", regex(pattern = COUNTRY_PATTERN), extend("examples" = ["DE"]))]
    pub country: Option<String>,
}

/// What was traded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(inline)]
pub struct WireTrade {
    /// The instrument's ticker symbol.
    #[schemars(
        length(min = 1, max = SYMBOL_CHARS_MAX), regex(pattern = NO_CONTROL_PATTERN), extend("examples" = ["AAPL"])
    )]
    pub symbol: String,
    /// `buy` or `sell`.
    #[schemars(extend("enum" = ["buy", "sell"]))]
    pub side: String,
    /// Units traded.
    #[schemars(range(min = 1, max = QUANTITY_MAX), extend("examples" = [100]))]
    pub quantity: i64,
    /// Per unit, in units of `currency`, as a plain decimal string.
    #[schemars(regex(pattern = DECIMAL_PATTERN), extend("examples" = ["75.0875"]))]
    pub price: String,
}

/// The schema of [`WireTransaction`] as pretty JSON (draft 2020-12) with a final line break.
pub fn schema_json() -> String {
    // As it is serialized: what may be left out is not required.
    let settings = SchemaSettings::draft2020_12().for_serialize().with_transform(RecursiveTransform(unwrap_lines));
    let schema = settings.into_generator().into_root_schema_for::<WireTransaction>();
    format!("{:#}\n", schema.as_value())
}

/// Line breaks of the source's doc comments mean nothing to a reader of the schema.
fn unwrap_lines(schema: &mut Schema) {
    if let Some(serde_json::Value::String(description)) = schema.get_mut("description") {
        *description = description.replace('\n', " ");
    }
}
