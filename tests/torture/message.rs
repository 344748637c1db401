//! Where messages go, who wrote them, and the bytes that show both.

/// Topics; each has a group of its own.
pub const TOPICS: u32 = 10;
/// Partitions of a topic.
pub const PARTITIONS_PER_TOPIC: u32 = 20;
const HEADER_BYTES: usize = 12;
const SMALL_BYTES_MAX: u64 = 400;
const LARGE_BYTES_MAX: u64 = 8_000;

/// A partition of one of the topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(pub u32);

impl Place {
    pub const COUNT: u32 = TOPICS * PARTITIONS_PER_TOPIC;

    pub fn all() -> impl Iterator<Item = Place> {
        (0..Self::COUNT).map(Place)
    }

    pub fn of(topic: &str, partition: i32) -> Option<Place> {
        let number: u32 = topic.strip_prefix("torture-")?.parse().ok()?;
        Some(Place(number * PARTITIONS_PER_TOPIC + u32::try_from(partition).ok()?))
    }

    pub fn topic(self) -> String {
        topic(self.0 / PARTITIONS_PER_TOPIC)
    }

    pub fn partition(self) -> i32 {
        (self.0 % PARTITIONS_PER_TOPIC) as i32
    }

    /// One in ten partitions gets large messages, so that its segments are full soon.
    fn bytes_max(self) -> u64 {
        if self.0.is_multiple_of(10) { LARGE_BYTES_MAX } else { SMALL_BYTES_MAX }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.topic(), self.partition())
    }
}

pub fn topic(number: u32) -> String {
    format!("torture-{number}")
}

/// What a message is: nothing else decides its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// One producer from its start to its end; none has the number of another.
    pub life: u32,
    pub place: Place,
    /// From 0, for each life and place.
    pub sequence: u32,
}

impl Identity {
    pub fn payload(self) -> Vec<u8> {
        let mut random = u64::from(self.life) << 32 ^ u64::from(self.place.0) << 24 ^ u64::from(self.sequence);
        let filler_bytes = (mixed(&mut random) % self.place.bytes_max()) as usize;
        let mut payload = Vec::with_capacity(HEADER_BYTES + filler_bytes + 8);
        for number in [self.life, self.place.0, self.sequence] {
            payload.extend(number.to_le_bytes());
        }
        while payload.len() < HEADER_BYTES + filler_bytes {
            payload.extend(mixed(&mut random).to_le_bytes());
        }
        payload.truncate(HEADER_BYTES + filler_bytes);
        payload
    }

    /// None when a single byte is not what was sent.
    pub fn of(payload: &[u8]) -> Option<Identity> {
        let number = |at: usize| Some(u32::from_le_bytes(payload.get(at..at + 4)?.try_into().ok()?));
        let identity = Identity { life: number(0)?, place: Place(number(4)?), sequence: number(8)? };
        (identity.place.0 < Place::COUNT && identity.payload() == payload).then_some(identity)
    }
}

/// The next number of splitmix64.
fn mixed(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[test]
fn a_changed_byte_leaves_no_identity() {
    let identity = Identity { life: 7, place: Place(110), sequence: 3 };
    let payload = identity.payload();
    assert_eq!(Identity::of(&payload), Some(identity));
    for at in 0..payload.len() {
        let mut changed = payload.clone();
        changed[at] ^= 1;
        assert_ne!(Identity::of(&changed), Some(identity), "byte {at}");
        assert_eq!(Identity::of(&payload[..at]), None, "{at} bytes");
    }
}
