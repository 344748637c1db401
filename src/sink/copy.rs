//! Message rows in the binary form of COPY, one a message or packed into arrays.
//!
//! Source: PostgreSQL's page "COPY", section "Binary Format".

use super::packs::CopyPacks;
use super::values::Time;
use crate::clock::Micros;
use crate::config::LatencyLayout;

const COPY_MESSAGES: &str = "copy messages (\"offset\", sequence, scheduled_at, sent_at, received_at, topic_ref, \
                             partition, run_ref, transaction_id) from stdin with (format binary)";
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
const COLUMNS: i16 = 9;
/// A row without its transaction id.
const ROW_BYTES: usize = 2 + COLUMNS as usize * 4 + 5 * 8 + 3 * 4;
const NULL: i32 = -1;
const END: i16 = -1;

/// One message's row.
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

/// All rows of a part, ready to be sent.
#[derive(Debug)]
pub(super) struct EncodedRows {
    pub table: &'static str,
    pub statement: &'static str,
    /// Of the table: a pack is one.
    pub rows: u64,
    pub bytes: Vec<u8>,
    /// Where in `bytes` the time of processing belongs.
    stamps: Vec<usize>,
}

impl EncodedRows {
    /// Writes the time of processing into the rows that carry it.
    pub(super) fn stamp(&mut self, processed_at: Micros) {
        let time = Time(processed_at).postgres_micros().to_be_bytes();
        for at in &self.stamps {
            if let Some(place) = self.bytes.get_mut(*at..*at + time.len()) {
                place.copy_from_slice(&time);
            }
        }
    }
}

/// Rows on their way to PostgreSQL, in the order of their partitions and offsets.
#[derive(Debug)]
pub(super) enum CopyRows<'a> {
    Rows { out: CopyBytes, rows: u64 },
    Packs(CopyPacks<'a>),
}

impl<'a> CopyRows<'a> {
    pub(super) fn new(layout: LatencyLayout, rows: usize) -> Self {
        match layout {
            LatencyLayout::Rows => CopyRows::Rows { out: CopyBytes::with_capacity(rows * ROW_BYTES), rows: 0 },
            LatencyLayout::Packed => CopyRows::Packs(CopyPacks::default()),
        }
    }

    pub(super) fn push(&mut self, row: Row<'a>) {
        match self {
            CopyRows::Rows { out, rows } => {
                *rows += 1;
                out.columns(COLUMNS);
                out.int8(Some(row.offset));
                out.int8(row.sequence);
                out.time(row.scheduled_at);
                out.time(row.sent_at);
                out.time(Some(row.received_at));
                out.int4(Some(row.topic_ref));
                out.int4(Some(row.partition));
                out.int4(row.run_ref);
                out.text(row.transaction_id);
            }
            CopyRows::Packs(packs) => packs.push(row),
        }
    }

    /// All of it, ended.
    pub(super) fn finish(self) -> EncodedRows {
        match self {
            CopyRows::Rows { out, rows } => EncodedRows {
                table: "messages",
                statement: COPY_MESSAGES,
                rows,
                bytes: out.finish(),
                stamps: Vec::new(),
            },
            CopyRows::Packs(packs) => {
                let (statement, rows, bytes, stamps) = packs.finish();
                EncodedRows { table: "message_packs", statement, rows, bytes, stamps }
            }
        }
    }
}

/// The stream of COPY, column by column.
#[derive(Debug)]
pub(super) struct CopyBytes(Vec<u8>);

impl CopyBytes {
    pub(super) fn with_capacity(bytes: usize) -> Self {
        let mut out = Vec::with_capacity(SIGNATURE.len() + 8 + bytes + 2);
        out.extend_from_slice(SIGNATURE);
        // No flags, no header extension.
        out.extend_from_slice(&[0; 8]);
        CopyBytes(out)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Begins a row.
    pub(super) fn columns(&mut self, columns: i16) {
        self.0.extend(columns.to_be_bytes());
    }

    pub(super) fn int8(&mut self, value: Option<i64>) {
        self.value(value.map(i64::to_be_bytes));
    }

    pub(super) fn int4(&mut self, value: Option<i32>) {
        self.value(value.map(i32::to_be_bytes));
    }

    pub(super) fn time(&mut self, value: Option<Micros>) {
        self.int8(value.map(|time| Time(time).postgres_micros()));
    }

    pub(super) fn text(&mut self, value: Option<&str>) {
        match value {
            Some(text) => {
                self.0.extend((text.len() as i32).to_be_bytes());
                self.0.extend_from_slice(text.as_bytes());
            }
            None => self.null(),
        }
    }

    pub(super) fn null(&mut self) {
        self.0.extend(NULL.to_be_bytes());
    }

    /// An array of one dimension, whose elements `each` writes.
    pub(super) fn array<T: Copy>(&mut self, element_oid: i32, elements: &[Option<T>], each: impl Fn(&mut Self, T)) {
        let length_at = self.0.len();
        self.null();
        let has_null = elements.iter().any(Option::is_none);
        for word in [1, i32::from(has_null), element_oid, elements.len() as i32, 1] {
            self.0.extend(word.to_be_bytes());
        }
        for element in elements {
            match element {
                Some(element) => each(self, *element),
                None => self.null(),
            }
        }
        let length = (self.0.len() - length_at - 4) as i32;
        self.0[length_at..length_at + 4].copy_from_slice(&length.to_be_bytes());
    }

    /// All of it, ended.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.0.extend(END.to_be_bytes());
        self.0
    }

    fn value<const N: usize>(&mut self, value: Option<[u8; N]>) {
        match value {
            Some(bytes) => {
                self.0.extend((N as i32).to_be_bytes());
                self.0.extend(bytes);
            }
            None => self.null(),
        }
    }
}
