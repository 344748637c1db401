//! A block of intents: consecutive sequences, users by dictionary, amounts as integers.
//!
//! Payload: first sequence, count, then per intent
//! - `user << 1 | format changed`, where user 0 is a new one (length of the prefix shared with the last new one, length
//!   of the rest, the rest) and n is the n-th of this block;
//! - if the format changed (always at first): three letters of currency and one byte of scale;
//! - the amount's mantissa, signed.

use std::collections::HashMap;
use std::str::FromStr;

use rust_decimal::Decimal;

use super::block::PAYLOAD_BYTES_MAX;
use super::{Intent, varint};
use crate::transaction::Currency;

/// Bytes that one intent may add: a user of 64 four-byte characters and change. Longer users are not in any valid
/// transaction.
pub(super) const INTENT_BYTES_MAX: usize = 512;
/// Past this size a block is full.
const BLOCK_FULL_BYTES: usize = PAYLOAD_BYTES_MAX / 4;

/// The block that is being filled.
#[derive(Debug, Default)]
pub(super) struct IntentBlock {
    first_sequence: i64,
    count: u64,
    body: Vec<u8>,
    users: HashMap<Box<str>, u64>,
    last_new_user: String,
    format: Option<(Currency, u32)>,
}

impl IntentBlock {
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether this sequence has to go into another block.
    pub(super) fn must_end_before(&self, sequence: i64) -> bool {
        !self.is_empty()
            && (self.first_sequence.checked_add_unsigned(self.count) != Some(sequence)
                || self.body.len() > BLOCK_FULL_BYTES)
    }

    pub(super) fn push(&mut self, intent: Intent<'_>) {
        debug_assert!(intent.user_id.len() <= INTENT_BYTES_MAX / 2);
        if self.count == 0 {
            self.first_sequence = intent.sequence;
        }
        self.count += 1;
        let format = (intent.currency, intent.amount.scale());
        let format_changed = self.format != Some(format);
        let known = self.users.get(intent.user_id).copied();
        varint::push(&mut self.body, u128::from(known.unwrap_or(0) << 1 | u64::from(format_changed)));
        if known.is_none() {
            self.push_new_user(intent.user_id);
        }
        if format_changed {
            self.body.extend_from_slice(intent.currency.as_str().as_bytes());
            self.body.push(intent.amount.scale() as u8);
            self.format = Some(format);
        }
        varint::push_signed(&mut self.body, intent.amount.mantissa());
    }

    fn push_new_user(&mut self, user_id: &str) {
        let shared = user_id.bytes().zip(self.last_new_user.bytes()).take_while(|(a, b)| a == b).count();
        varint::push(&mut self.body, shared as u128);
        varint::push(&mut self.body, (user_id.len() - shared) as u128);
        self.body.extend_from_slice(&user_id.as_bytes()[shared..]);
        self.last_new_user.clear();
        self.last_new_user.push_str(user_id);
        self.users.insert(user_id.into(), self.users.len() as u64 + 1);
    }

    /// The payload so far.
    pub(super) fn payload_into(&self, out: &mut Vec<u8>) {
        out.clear();
        varint::push_signed(out, i128::from(self.first_sequence));
        varint::push(out, u128::from(self.count));
        out.extend_from_slice(&self.body);
    }

    /// Starts the next block.
    pub(super) fn clear(&mut self) {
        self.count = 0;
        self.body.clear();
        self.users.clear();
        self.last_new_user.clear();
        self.format = None;
    }
}

/// First sequence and count of a block, without reading the rest.
pub(super) fn range_of(mut payload: &[u8]) -> Option<(i64, u64)> {
    Some((varint::take_i64(&mut payload)?, varint::take_u64(&mut payload)?))
}

/// Reads one block; None if it makes no sense. `users` is scratch space.
pub(super) fn decode(mut payload: &[u8], users: &mut UserTable, mut each: impl FnMut(Intent<'_>)) -> Option<()> {
    users.clear();
    let bytes = &mut payload;
    let mut sequence = varint::take_i64(bytes)?;
    let count = varint::take_u64(bytes)?;
    let mut format = None;
    for _ in 0..count {
        let code = varint::take_u64(bytes)?;
        let user = match code >> 1 {
            0 => users.take_new(bytes)?,
            known => usize::try_from(known - 1).ok()?,
        };
        if code & 1 == 1 {
            let (head, rest) = bytes.split_at_checked(4)?;
            format = Some((Currency::from_str(std::str::from_utf8(&head[..3]).ok()?).ok()?, u32::from(head[3])));
            *bytes = rest;
        }
        let (currency, scale) = format?;
        let amount = Decimal::try_from_i128_with_scale(varint::take_signed(bytes)?, scale).ok()?;
        each(Intent { sequence, user_id: users.get(user)?, currency, amount });
        sequence = sequence.checked_add(1)?;
    }
    bytes.is_empty().then_some(())
}

/// The users of the block that is being read, end to end in one buffer.
#[derive(Default)]
pub(super) struct UserTable {
    text: String,
    ends: Vec<usize>,
}

impl UserTable {
    fn clear(&mut self) {
        self.text.clear();
        self.ends.clear();
    }

    fn get(&self, index: usize) -> Option<&str> {
        let start = if index == 0 { 0 } else { *self.ends.get(index - 1)? };
        self.text.get(start..*self.ends.get(index)?)
    }

    fn take_new(&mut self, bytes: &mut &[u8]) -> Option<usize> {
        let shared = usize::try_from(varint::take_u64(bytes)?).ok()?;
        let rest_length = usize::try_from(varint::take_u64(bytes)?).ok()?;
        let (rest, after) = bytes.split_at_checked(rest_length)?;
        *bytes = after;
        // The shared prefix may end inside a character: put the bytes together before looking at them as text.
        let last = self.ends.len().checked_sub(1).and_then(|last| self.get(last)).unwrap_or_default();
        let mut user = last.as_bytes().get(..shared)?.to_vec();
        user.extend_from_slice(rest);
        self.text.push_str(std::str::from_utf8(&user).ok()?);
        self.ends.push(self.text.len());
        Some(self.ends.len() - 1)
    }
}
