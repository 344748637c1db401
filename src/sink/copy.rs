//! Message rows in the binary form of COPY.
//!
//! Source: PostgreSQL's page "COPY", section "Binary Format".

use super::values::Time;
use crate::clock::Micros;

/// The statement whose columns [`CopyRows`] writes.
pub(super) const COPY_MESSAGES: &str = "copy messages (\"offset\", sequence, scheduled_at, sent_at, received_at, \
                                        topic_ref, partition, run_ref, transaction_id) from stdin with (format binary)";
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
const COLUMNS: i16 = 9;
/// A row without its transaction id.
const ROW_BYTES: usize = 2 + COLUMNS as usize * 4 + 5 * 8 + 3 * 4;
const NULL: i32 = -1;
const END: i16 = -1;

/// One row of `messages`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    pub offset: i64,
    pub sequence: Option<i64>,
    pub scheduled_at: Option<Micros>,
    pub sent_at: Option<Micros>,
    pub received_at: Micros,
    pub topic_ref: i32,
    pub partition: i32,
    pub run_ref: Option<i32>,
    pub transaction_id: Option<&'a str>,
}

/// Rows on their way to PostgreSQL.
#[derive(Debug)]
pub(super) struct CopyRows {
    bytes: Vec<u8>,
    rows: u64,
}

impl CopyRows {
    pub(super) fn with_capacity(rows: usize) -> Self {
        let mut bytes = Vec::with_capacity(SIGNATURE.len() + 8 + rows * ROW_BYTES + 2);
        bytes.extend_from_slice(SIGNATURE);
        // No flags, no header extension.
        bytes.extend_from_slice(&[0; 8]);
        CopyRows { bytes, rows: 0 }
    }

    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    pub(super) fn push(&mut self, row: &Row<'_>) {
        self.bytes.extend(COLUMNS.to_be_bytes());
        self.int8(Some(row.offset));
        self.int8(row.sequence);
        self.int8(row.scheduled_at.map(|time| Time(time).postgres_micros()));
        self.int8(row.sent_at.map(|time| Time(time).postgres_micros()));
        self.int8(Some(Time(row.received_at).postgres_micros()));
        self.int4(Some(row.topic_ref));
        self.int4(Some(row.partition));
        self.int4(row.run_ref);
        match row.transaction_id {
            Some(text) => {
                self.bytes.extend((text.len() as i32).to_be_bytes());
                self.bytes.extend_from_slice(text.as_bytes());
            }
            None => self.bytes.extend(NULL.to_be_bytes()),
        }
        self.rows += 1;
    }

    /// All of it, ended.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.bytes.extend(END.to_be_bytes());
        self.bytes
    }

    fn int8(&mut self, value: Option<i64>) {
        match value {
            Some(value) => {
                self.bytes.extend(8i32.to_be_bytes());
                self.bytes.extend(value.to_be_bytes());
            }
            None => self.bytes.extend(NULL.to_be_bytes()),
        }
    }

    fn int4(&mut self, value: Option<i32>) {
        match value {
            Some(value) => {
                self.bytes.extend(4i32.to_be_bytes());
                self.bytes.extend(value.to_be_bytes());
            }
            None => self.bytes.extend(NULL.to_be_bytes()),
        }
    }
}
