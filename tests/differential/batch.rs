//! Record batches as a client writes them, whole or wrong in one place, and as an answer carries them.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::records::{Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType};

/// 2023-11-14, in milliseconds: every record's time, unless a scenario says otherwise.
pub const TIME_MS: i64 = 1_700_000_000_000;

const CRC_AT: usize = 17;
const MAGIC_AT: usize = 16;
const ATTRIBUTES_AT: usize = 21;
const SEQUENCE_AT: usize = 53;
const HEADER_BYTES: usize = 61;

/// What a batch says of itself.
#[derive(Clone, Debug)]
pub struct Batch {
    pub records: usize,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub sequence: i32,
    pub time_ms: i64,
    pub has_key: bool,
    pub value_bytes: usize,
    pub transactional: bool,
}

impl Default for Batch {
    fn default() -> Batch {
        Batch {
            records: 1,
            producer_id: -1,
            producer_epoch: -1,
            sequence: -1,
            time_ms: TIME_MS,
            has_key: true,
            value_bytes: 5,
            transactional: false,
        }
    }
}

impl Batch {
    pub fn of(records: usize) -> Batch {
        Batch { records, ..Batch::default() }
    }

    /// Of an idempotent producer.
    pub fn from_producer(producer_id: i64, producer_epoch: i16, sequence: i32, records: usize) -> Batch {
        Batch { records, producer_id, producer_epoch, sequence, ..Batch::default() }
    }

    pub fn transactional(self) -> Batch {
        Batch { transactional: true, ..self }
    }

    /// Its bytes; each record is a millisecond later than the one before.
    pub fn bytes(&self) -> Bytes {
        let record = |number: usize| Record {
            transactional: self.transactional,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: -1,
            producer_id: self.producer_id,
            producer_epoch: self.producer_epoch,
            timestamp_type: TimestampType::Creation,
            offset: number as i64,
            // The encoder begins another batch where sequences have a gap: the first one is put in by hand.
            sequence: number as i32,
            timestamp: self.time_ms + number as i64,
            key: self.has_key.then(|| Bytes::from(format!("key {number}"))),
            value: Some(Bytes::from(vec![b'v'; self.value_bytes])),
            headers: IndexMap::new(),
        };
        let records: Vec<Record> = (0..self.records).map(record).collect();
        let mut out = BytesMut::new();
        let options = RecordEncodeOptions { version: 2, compression: Compression::None };
        RecordBatchEncoder::encode(&mut out, records.iter(), &options).unwrap();
        out[SEQUENCE_AT..SEQUENCE_AT + 4].copy_from_slice(&self.sequence.to_be_bytes());
        seal(out)
    }
}

/// The batch with a checksum that fits what it says now.
pub fn seal(mut batch: BytesMut) -> Bytes {
    let crc = crc32c::crc32c(&batch[ATTRIBUTES_AT..]);
    batch[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_be_bytes());
    batch.freeze()
}

/// The batch with its records packed; codecs by their number in the protocol: gzip, snappy, lz4, zstd.
pub fn packed(batch: &Bytes, codec: u8) -> Bytes {
    use std::io::Write;
    let records = &batch[HEADER_BYTES..];
    let packed = match codec {
        1 => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(records).unwrap();
            encoder.finish().unwrap()
        }
        2 => snap::raw::Encoder::new().compress_vec(records).unwrap(),
        3 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
            encoder.write_all(records).unwrap();
            encoder.finish().unwrap()
        }
        _ => zstd::encode_all(records, 0).unwrap(),
    };
    let mut out = BytesMut::from(&batch[..HEADER_BYTES]);
    out[ATTRIBUTES_AT + 1] |= codec;
    out.extend_from_slice(&packed);
    let length = (out.len() - 12) as u32;
    out[8..12].copy_from_slice(&length.to_be_bytes());
    seal(out)
}

/// One byte or more of a batch replaced; the checksum is left as it was.
pub fn forge(batch: &Bytes, at: usize, bytes: &[u8]) -> Bytes {
    let mut forged = BytesMut::from(&batch[..]);
    forged[at..at + bytes.len()].copy_from_slice(bytes);
    forged.freeze()
}

/// The same with a checksum that fits.
pub fn forge_sealed(batch: &Bytes, at: usize, bytes: &[u8]) -> Bytes {
    seal(BytesMut::from(&forge(batch, at, bytes)[..]))
}

/// The same with another magic byte.
pub fn with_magic(batch: &Bytes, magic: u8) -> Bytes {
    forge(batch, MAGIC_AT, &[magic])
}

/// A message of the format before the present one, whole and with its checksum, as clients of 2014 send it.
pub fn old_message(magic: u8) -> Bytes {
    let mut message = BytesMut::new();
    message.put_u8(magic);
    message.put_u8(0);
    if magic == 1 {
        message.put_i64(TIME_MS);
    }
    message.put_i32(-1);
    message.put_i32(1);
    message.put_u8(b'v');
    let mut hasher = flate2::Crc::new();
    hasher.update(&message);
    let mut out = BytesMut::new();
    out.put_i64(0);
    out.put_i32(4 + message.len() as i32);
    out.put_u32(hasher.sum());
    out.extend_from_slice(&message);
    out.freeze()
}

/// One line for each batch of an answer: its header, less what depends on when it was written. The producer is told apart
/// by the caller.
pub fn describe(mut records: &[u8], producer: &mut dyn FnMut(i64) -> String) -> Vec<String> {
    let mut lines = Vec::new();
    while records.len() >= HEADER_BYTES {
        let length = 12 + (&records[8..]).get_i32() as usize;
        let mut head = records;
        let base_offset = head.get_i64();
        let bytes = head.get_i32() + 12;
        let (epoch, magic) = (head.get_i32(), head.get_u8());
        head.advance(4);
        let (attributes, last_delta) = (head.get_i16(), head.get_i32());
        let (first_ms, max_ms) = (head.get_i64(), head.get_i64());
        let time = |ms: i64| if (0..TIME_MS + 1_000_000_000).contains(&ms) { ms.to_string() } else { "now".to_owned() };
        let (id, producer_epoch, sequence, count) = (head.get_i64(), head.get_i16(), head.get_i32(), head.get_i32());
        // How well a codec packs is its own affair.
        let size = if attributes & 7 == 0 { format!("{bytes} bytes") } else { "compressed".to_owned() };
        lines.push(format!(
            "offset {base_offset} last +{last_delta} magic {magic} leader epoch {epoch} attributes {attributes} times {} \
             {} producer {} epoch {producer_epoch} sequence {sequence} count {count}, {size}",
            time(first_ms),
            time(max_ms),
            producer(id),
        ));
        if length > records.len() {
            lines.push("cut off".to_owned());
            return lines;
        }
        records = &records[length..];
    }
    if !records.is_empty() {
        lines.push(format!("{} bytes of a batch", records.len()));
    }
    lines
}
