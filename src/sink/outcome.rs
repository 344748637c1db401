//! What a write came to: committed, untouched or fenced; halved, or refused for one message's data.

use super::batch::Item;
use super::error::SinkError;
use super::prepare::{Move, Part};
use super::worker::StoredPart;
use crate::clock::Micros;

/// What was found of a part whose transaction did not report success.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// All of it is there.
    Committed,
    /// Nothing of it is there; it may be written again.
    Untouched,
    /// Others own these partitions now.
    Fenced(Vec<i32>),
}

/// Own epoch and the part's end mean committed; own epoch and the part's start mean untouched.
pub(super) fn judge(topic_ref: i32, moves: &[Move], rows: &[(i32, i64, i64)]) -> Result<Found, SinkError> {
    let mut fenced = Vec::new();
    let (mut committed, mut untouched) = (0, 0);
    for step in moves {
        let row = rows.iter().find(|row| row.0 == step.partition);
        match row {
            Some((_, epoch, next_offset)) if *epoch == step.owned.epoch => {
                committed += usize::from(*next_offset == step.next_offset());
                untouched += usize::from(*next_offset == step.owned.next_offset);
            }
            _ => fenced.push(step.partition),
        }
    }
    let own = moves.len() - fenced.len();
    if own > 0 && committed == own && fenced.is_empty() {
        Ok(Found::Committed)
    } else if !fenced.is_empty() && (untouched == own || committed == own) {
        Ok(Found::Fenced(fenced))
    } else if untouched == own {
        Ok(Found::Untouched)
    } else {
        let what = format!("progress moved without a new owner: expected {moves:?}, found {rows:?}");
        Err(SinkError::Broken { topic_ref, what })
    }
}

/// Halves a refused part; a part of one message becomes a dead letter.
pub(super) fn split<'a>(mut part: Part<'a>, reason: &str, pending: &mut Vec<Part<'a>>) -> Result<(), SinkError> {
    if part.items.len() > 1 {
        let second = part.items.split_off(part.items.len() / 2);
        pending.push(Part { batch: part.batch, items: second, refused: None });
        pending.push(part);
        return Ok(());
    }
    if part.refused.is_some() {
        let what = format!("PostgreSQL refuses a dead letter for its data: {reason}");
        return Err(SinkError::Broken { topic_ref: 0, what });
    }
    tracing::warn!("PostgreSQL refused a message for its data, it becomes a dead letter: {reason}");
    part.refused = Some(format!("refused by PostgreSQL: {reason}"));
    pending.push(part);
    Ok(())
}

pub(super) fn stored_part(
    part: &Part<'_>,
    moves: &[Move],
    processed_at: Micros,
    committed_at: Option<Micros>,
) -> StoredPart {
    let times =
        if part.refused.is_some() { Vec::new() } else { part.items.iter().filter_map(|item| times_of(item)).collect() };
    let is_foreign = |item: &&Item| item.identity.is_none() && (part.refused.is_some() || item.transaction().is_none());
    let dead_letters = moves.iter().map(|step| step.dead_letters as u64).sum();
    let foreign_letters = match dead_letters {
        0 => 0,
        _ => part.items.iter().filter(|item| is_foreign(item)).count() as u64,
    };
    StoredPart {
        messages: moves.iter().map(|step| step.messages as u64).sum(),
        dead_letters,
        foreign_letters,
        processed_at,
        committed_at,
        times,
    }
}

fn times_of(item: &Item) -> Option<(Option<Micros>, Option<Micros>, Micros)> {
    item.transaction().map(|stored| (stored.scheduled_at, stored.sent_at, item.received_at))
}

pub(super) fn broken(topic_ref: i32, error: &sqlx::Error) -> SinkError {
    SinkError::Broken { topic_ref, what: error.to_string() }
}
