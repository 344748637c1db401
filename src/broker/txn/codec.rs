//! The records of `__transaction_state`, byte for byte in Kafka's formats: `TransactionLogKey` v0, `TransactionLogValue`
//! v0 and v1. Version 1 is written; both are read. Reading is total: what cannot be read is None.
//!
//! Key: version i16, transactional id (length i16). Value: version i16, producer id i64, epoch i16, timeout i32, state i8,
//! partitions (topic, indexes i32; null in state Empty), last update i64, start i64; version 1 has compact lengths and
//! tagged fields, 0 of which is the previous producer id.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::metadata::{Metadata, NONE_EPOCH, NONE_ID, Partitions, ProducerIdEpoch, TransactionState};

const KEY_VERSION: i16 = 0;
const VALUE_VERSION: i16 = 1;
const PREVIOUS_ID_TAG: u32 = 0;

/// The record's key; none for an id longer than Kafka's format holds.
pub(super) fn encode_key(transactional_id: &str) -> Option<Bytes> {
    let length = i16::try_from(transactional_id.len()).ok()?;
    let mut out = BytesMut::with_capacity(4 + transactional_id.len());
    out.put_i16(KEY_VERSION);
    out.put_i16(length);
    out.put_slice(transactional_id.as_bytes());
    Some(out.freeze())
}

/// The transactional id.
pub(super) fn decode_key(mut key: &[u8]) -> Option<String> {
    if key.try_get_i16().ok()? != KEY_VERSION {
        return None;
    }
    let length = usize::try_from(key.try_get_i16().ok()?).ok()?;
    if key.len() == length { String::from_utf8(key.to_vec()).ok() } else { None }
}

/// The record's value.
pub(super) fn encode_value(metadata: &Metadata) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(VALUE_VERSION);
    out.put_i64(metadata.producer.id);
    out.put_i16(metadata.producer.epoch);
    out.put_i32(metadata.timeout_ms);
    out.put_i8(metadata.state as i8);
    if metadata.state == TransactionState::Empty {
        put_varint(&mut out, 0);
    } else {
        put_varint(&mut out, metadata.partitions.len() as u32 + 1);
        for (topic, indexes) in &metadata.partitions {
            put_varint(&mut out, topic.len() as u32 + 1);
            out.put_slice(topic.as_bytes());
            put_varint(&mut out, indexes.len() as u32 + 1);
            indexes.iter().for_each(|index| out.put_i32(*index));
            put_varint(&mut out, 0);
        }
    }
    out.put_i64(metadata.update_ms);
    out.put_i64(metadata.start_ms);
    if metadata.previous_id == NONE_ID {
        put_varint(&mut out, 0);
    } else {
        [1, PREVIOUS_ID_TAG, 8].into_iter().for_each(|number| put_varint(&mut out, number));
        out.put_i64(metadata.previous_id);
    }
    out.freeze()
}

/// The way back, from either version.
pub(super) fn decode_value(mut value: &[u8]) -> Option<Metadata> {
    let from = &mut value;
    let is_compact = match from.try_get_i16().ok()? {
        0 => false,
        1 => true,
        _ => return None,
    };
    let producer = ProducerIdEpoch { id: from.try_get_i64().ok()?, epoch: from.try_get_i16().ok()? };
    let timeout_ms = from.try_get_i32().ok()?;
    let state = TransactionState::of(from.try_get_i8().ok()?)?;
    let mut partitions = Partitions::new();
    for _ in 0..length(from, is_compact, 4)?.unwrap_or(0) {
        let name_length = length(from, is_compact, 2)??;
        let (name, rest) = from.split_at_checked(name_length)?;
        *from = rest;
        let indexes = partitions.entry(String::from_utf8(name.to_vec()).ok()?).or_default();
        for _ in 0..length(from, is_compact, 4)?? {
            indexes.insert(from.try_get_i32().ok()?);
        }
        if is_compact {
            tagged(from, |_, _| Some(()))?;
        }
    }
    let (update_ms, start_ms) = (from.try_get_i64().ok()?, from.try_get_i64().ok()?);
    let mut previous_id = NONE_ID;
    if is_compact {
        tagged(from, |tag, mut field| {
            if tag == PREVIOUS_ID_TAG {
                previous_id = field.try_get_i64().ok()?;
            }
            Some(())
        })?;
    }
    let last_epoch = NONE_EPOCH;
    Some(Metadata { producer, last_epoch, previous_id, timeout_ms, state, partitions, start_ms, update_ms })
}

/// A length or count, of `width` bytes in the old form; `Some(None)` is null.
fn length(from: &mut &[u8], is_compact: bool, width: usize) -> Option<Option<usize>> {
    let length = match (is_compact, width) {
        (true, _) => i64::from(varint(from)?) - 1,
        (false, 2) => i64::from(from.try_get_i16().ok()?),
        (false, _) => i64::from(from.try_get_i32().ok()?),
    };
    if length == -1 { Some(None) } else { usize::try_from(length).ok().map(Some) }
}

/// Each tagged field.
fn tagged(from: &mut &[u8], mut field: impl FnMut(u32, &[u8]) -> Option<()>) -> Option<()> {
    for _ in 0..varint(from)? {
        let tag = varint(from)?;
        let size = usize::try_from(varint(from)?).ok()?;
        let (bytes, rest) = from.split_at_checked(size)?;
        *from = rest;
        field(tag, bytes)?;
    }
    Some(())
}

fn varint(from: &mut &[u8]) -> Option<u32> {
    let mut value = 0u64;
    for position in 0..5 {
        let byte = from.try_get_u8().ok()?;
        value |= u64::from(byte & 0x7f) << (7 * position);
        if byte & 0x80 == 0 {
            return u32::try_from(value).ok();
        }
    }
    None
}

fn put_varint(out: &mut BytesMut, mut value: u32) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn metadata() -> Metadata {
        Metadata {
            producer: ProducerIdEpoch { id: 7, epoch: 2 },
            last_epoch: NONE_EPOCH,
            previous_id: NONE_ID,
            timeout_ms: 60_000,
            state: TransactionState::Ongoing,
            partitions: Partitions::from([("ab".to_owned(), BTreeSet::from([0, 5]))]),
            start_ms: 0x0102,
            update_ms: 0x0304,
        }
    }

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.chars().filter_map(|digit| digit.to_digit(16)).map(|digit| digit as u8).collect();
        digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    }

    #[test]
    fn the_bytes_are_those_of_apache_kafka_put_together_by_hand_from_its_schemas() {
        assert_eq!(encode_key("id").unwrap(), bytes("0000 0002 6964"));
        let expected = "0001 0000000000000007 0002 0000ea60 01 02 03 6162 03 00000000 00000005 00 \
                        0000000000000304 0000000000000102 00";
        assert_eq!(encode_value(&metadata()), bytes(expected));
        let empty =
            Metadata { state: TransactionState::Empty, partitions: Partitions::new(), previous_id: 9, ..metadata() };
        let expected = "0001 0000000000000007 0002 0000ea60 00 00 0000000000000304 0000000000000102 \
                        01 00 08 0000000000000009";
        assert_eq!(encode_value(&empty), bytes(expected));
        let old = "0000 0000000000000007 0002 0000ea60 01 00000001 0002 6162 00000002 00000000 00000005 \
                   0000000000000304 0000000000000102";
        assert_eq!(decode_value(&bytes(old)), Some(metadata()));
        let old_empty = "0000 0000000000000007 0002 0000ea60 00 ffffffff 0000000000000304 0000000000000102";
        assert_eq!(decode_value(&bytes(old_empty)), Some(Metadata { previous_id: NONE_ID, ..empty }));
    }

    #[test]
    fn what_was_written_is_read_and_no_cut_of_it_is() {
        for (state, previous_id) in [(0, 9), (1, NONE_ID), (2, 4), (3, NONE_ID), (4, 1), (5, 2)] {
            let state = TransactionState::of(state).unwrap();
            let partitions = if state == TransactionState::Empty { Partitions::new() } else { metadata().partitions };
            let one = Metadata { state, previous_id, partitions, ..metadata() };
            let value = encode_value(&one);
            assert_eq!(decode_value(&value), Some(one));
            for cut in 0..value.len() {
                assert_eq!(decode_value(&value[..cut]), None, "{cut}");
            }
        }
        let key = encode_key("transactional").unwrap();
        assert_eq!(decode_key(&key).unwrap(), "transactional");
        assert!((0..key.len()).all(|cut| decode_key(&key[..cut]).is_none()));
        assert_eq!(encode_key(&"x".repeat(40_000)), None);
        // A count that cannot be is no reason to reserve memory.
        assert_eq!(decode_value(&bytes("0001 0000000000000007 0002 0000ea60 01 ffffffff0f")), None);
    }
}
