//! What the snapshot holds besides latency rows, written to a temporary file, so that the snapshot can end.
//!
//! PostgreSQL keeps every version of a row that an open snapshot may see, and a total under load has a new one with each
//! batch: a snapshot that stays open for a minute halves what the sink stores meanwhile.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Seek, Write};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::AuditError;
use super::rows::{StoredCategoryWindow, StoredMessage, StoredSymbol, StoredSymbolWindow, StoredTotal, StoredUser};

/// What the feeder sends, in this order for each partition: dead letters (one piece), rows, `RowsEnd`, totals of all
/// kinds, `PartitionEnd`. Messages of earlier lives come before all partitions.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Piece {
    /// Rows of earlier lives of the topic.
    EarlierRows(Vec<StoredMessage>),
    /// Dead letters of earlier lives.
    EarlierDeadLetters(Vec<StoredMessage>),
    /// All dead letters of a partition, by offset.
    DeadLetters(Vec<StoredMessage>),
    /// Rows of a partition, by offset.
    Rows(Vec<StoredMessage>),
    /// No more rows of this partition.
    RowsEnd,
    Users(Vec<StoredUser>),
    Symbols(Vec<StoredSymbol>),
    CategoryWindows(Vec<StoredCategoryWindow>),
    SymbolWindows(Vec<StoredSymbolWindow>),
    /// No more of this partition.
    PartitionEnd,
    /// Totals over all partitions, as they should be published; behind all partitions.
    Totals(Vec<StoredTotal>),
    /// No more at all.
    End,
}

/// Writes pieces down, a line of JSON each, until nobody sends any more. The file has no name, and is gone with the process.
pub(super) fn write_down(mut pieces: mpsc::Receiver<Piece>) -> Result<File, AuditError> {
    let mut writer = BufWriter::new(tempfile::tempfile().map_err(failed)?);
    while let Some(piece) = pieces.blocking_recv() {
        serde_json::to_writer(&mut writer, &piece).map_err(|error| failed(error.into()))?;
        writer.write_all(b"\n").map_err(failed)?;
    }
    let mut file = writer.into_inner().map_err(|error| failed(error.into_error()))?;
    file.rewind().map_err(failed)?;
    Ok(file)
}

/// Sends the pieces of such a file in the order in which they came, until nobody listens any more.
pub(super) fn read_back(file: File, pieces: &mpsc::Sender<Result<Piece, AuditError>>) {
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    loop {
        line.clear();
        let piece = match reader.read_until(b'\n', &mut line) {
            Ok(0) => return,
            Ok(_) => serde_json::from_slice(&line).map_err(|error| failed(error.into())),
            Err(error) => Err(failed(error)),
        };
        if pieces.blocking_send(piece).is_err() {
            return;
        }
    }
}

fn failed(source: std::io::Error) -> AuditError {
    AuditError::Spool { dir: std::env::temp_dir(), source }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_back_in_their_order() {
        let message = StoredMessage { offset: 7, run_ref: 1, sequence: -1 };
        let (sender, receiver) = mpsc::channel(8);
        for piece in [Piece::DeadLetters(vec![message]), Piece::RowsEnd, Piece::End] {
            sender.blocking_send(piece).unwrap();
        }
        drop(sender);
        let file = write_down(receiver).unwrap();
        let (sender, mut pieces) = mpsc::channel(8);
        read_back(file, &sender);
        drop(sender);
        let mut next = || pieces.blocking_recv().map(Result::unwrap);
        assert!(matches!(next(), Some(Piece::DeadLetters(letters)) if letters == [message]));
        assert!(matches!(next(), Some(Piece::RowsEnd)));
        assert!(matches!(next(), Some(Piece::End)));
        assert!(next().is_none());
    }
}
