//! What tells one record from another, so that a recreated topic is noticed.

use uuid::Uuid;

use crate::transaction::MessageId;

/// 16 bytes that identify a record.
pub type Fingerprint = [u8; 16];

/// The namespace of the hash; changing it makes every stored fingerprint a mismatch.
const NAMESPACE: Uuid = Uuid::from_u128(0x8f1c_5b0e_3f0a_4f64_9d8e_2f6f_1a57_77d1);

/// Hashes key, value, identity and timestamp of a record.
///
/// A name-based UUID (version 5) is SHA-1 cut to 122 bits: collisions by accident are out of the question, and nobody
/// gains from one made on purpose.
pub fn fingerprint(
    key: Option<&[u8]>,
    payload: Option<&[u8]>,
    identity: Option<MessageId>,
    timestamp_ms: Option<i64>,
) -> Fingerprint {
    let mut name = Vec::with_capacity(64 + key.map_or(0, <[u8]>::len) + payload.map_or(0, <[u8]>::len));
    for part in [key, payload] {
        // The length first, so that bytes cannot wander from one part to the next; -1 tells absent from empty.
        name.extend(part.map_or(-1, |part| part.len() as i64).to_be_bytes());
        name.extend_from_slice(part.unwrap_or_default());
    }
    if let Some(identity) = identity {
        name.extend_from_slice(identity.run.0.as_bytes());
        name.extend(identity.sequence.to_be_bytes());
    }
    name.extend(timestamp_ms.unwrap_or(-1).to_be_bytes());
    *Uuid::new_v5(&NAMESPACE, &name).as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transaction::RunId;

    #[test]
    fn each_part_of_a_record_changes_its_fingerprint() {
        let id = MessageId { run: RunId(Uuid::from_u128(1)), sequence: 2 };
        let next = MessageId { sequence: 3, ..id };
        let original = fingerprint(Some(b"ab"), Some(b"c"), Some(id), Some(5));
        assert_eq!(original, fingerprint(Some(b"ab"), Some(b"c"), Some(id), Some(5)));
        for other in [
            fingerprint(Some(b"a"), Some(b"bc"), Some(id), Some(5)),
            fingerprint(None, Some(b"c"), Some(id), Some(5)),
            fingerprint(Some(b"ab"), None, Some(id), Some(5)),
            fingerprint(Some(b"ab"), Some(b"c"), Some(next), Some(5)),
            fingerprint(Some(b"ab"), Some(b"c"), None, Some(5)),
            fingerprint(Some(b"ab"), Some(b"c"), Some(id), Some(6)),
        ] {
            assert_ne!(original, other);
        }
    }
}
