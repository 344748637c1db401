//! A record of the log -> a transaction or a dead letter in the batch.

use rdkafka::message::{BorrowedMessage, Headers, Message as _};
use uuid::Uuid;

use crate::clock::Micros;
use crate::sink::{Batch, Fingerprint, Message, fingerprint};
use crate::transaction::{HEADER_RUN, HEADER_RUN_INFO, HEADER_SEQUENCE, MessageId, RunId, RunInfo, Transaction};

/// Bytes of a run's description, at most; a longer one is not ours.
const RUN_INFO_BYTES_MAX: usize = 64 * 1024;

/// A record with its headers read.
pub(super) struct Record<'a> {
    pub message: Message<'a>,
    run_info: Option<RunInfo>,
}

impl<'a> Record<'a> {
    pub(super) fn read(record: &'a BorrowedMessage<'_>, received_at: Micros) -> Self {
        let (identity, run_info) = read_headers(record);
        let message = Message {
            partition: record.partition(),
            offset: record.offset(),
            timestamp_ms: record.timestamp().to_millis(),
            received_at,
            identity,
            key: record.key(),
            payload: record.payload(),
        };
        Record { message, run_info }
    }

    pub(super) fn fingerprint(&self) -> Fingerprint {
        fingerprint(self.message.key, self.message.payload, self.message.identity, self.message.timestamp_ms)
    }

    /// Decodes it; what cannot be read becomes a dead letter. The batch is locked only to copy the result.
    pub(super) fn decode_into(self, push: impl FnOnce(&mut dyn FnMut(&mut Batch))) {
        let message = self.message;
        let decoded = match message.payload {
            Some(payload) => Transaction::decode(payload).map_err(|error| error.to_string()),
            None => Err("the message has no value".to_owned()),
        };
        let mut run_info = self.run_info;
        push(&mut |batch| {
            match &decoded {
                Ok(transaction) => batch.push_transaction(message, transaction),
                Err(reason) => batch.push_dead_letter(message, reason),
            }
            if let (Some(id), Some(info)) = (message.identity, run_info.take()) {
                batch.push_run_info(id.run, info);
            }
        });
    }
}

/// The identity, if both headers are there and well formed; else the message is foreign.
fn read_headers(record: &BorrowedMessage<'_>) -> (Option<MessageId>, Option<RunInfo>) {
    let Some(headers) = record.headers() else { return (None, None) };
    let (mut run, mut sequence, mut info) = (None, None, None);
    for header in headers.iter() {
        let Some(value) = header.value else { continue };
        match header.key {
            HEADER_RUN => run = Uuid::try_parse_ascii(value).ok().map(RunId),
            HEADER_SEQUENCE => sequence = parse_sequence(value),
            HEADER_RUN_INFO if value.len() <= RUN_INFO_BYTES_MAX => info = serde_json::from_slice(value).ok(),
            _ => {}
        }
    }
    let identity = run.zip(sequence).map(|(run, sequence)| MessageId { run, sequence });
    (identity, info)
}

fn parse_sequence(value: &[u8]) -> Option<i64> {
    std::str::from_utf8(value).ok()?.parse().ok().filter(|sequence| *sequence >= 0)
}
