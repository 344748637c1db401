//! Small packs become large ones: a slow stream commits a few messages at a time, and a pack of a few saves nothing.
//!
//! A message is rewritten once. Packs that were written large stay as they are.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use sqlx::PgConnection;

use super::error::SinkError;
use super::packs::SPAN_MAX;

/// Packs with so many messages are large: what a row costs is shared by them.
const LARGE_MESSAGES: i64 = 256;
/// A merged pack has so many messages, where there are so many together.
const MERGED_MESSAGES: i64 = 4096;
/// Packs looked at in one question.
const LOOK_PACKS: i64 = 8192;

/// Packs that nobody will write any more: their commit was seen, or lies so far back that it will not be.
const SETTLED_PACKS: &str = "
select first_offset, last_offset, messages::bigint, committed_at is not null or processed_at < now() - interval '1 minute'
from message_packs
where topic_ref = $1 and partition = $2 and last_offset > $3
order by last_offset
limit $4";

/// Takes the packs out, and puts their messages back in few rows: one, unless distances would not fit into four bytes.
/// The insert reads what the delete returns, so a key is free when it is written.
const MERGE: &str = "
with gone as (
    delete from message_packs where topic_ref = $1 and partition = $2 and last_offset between $3 and $4 returning *
), message as (
    select p.topic_ref, p.partition, p.first_offset + coalesce(m.place, m.number - 1) as \"offset\",
           p.first_sequence + m.sequence as sequence, coalesce(m.run_ref, p.run_ref) as run_ref, m.transaction_id,
           p.scheduled_at + m.scheduled_us * interval '1 microsecond' as scheduled_at,
           p.sent_at + m.sent_us * interval '1 microsecond' as sent_at,
           p.received_at + m.received_us * interval '1 microsecond' as received_at,
           p.processed_at + coalesce(m.processed_us, 0) * interval '1 microsecond' as processed_at,
           case when p.committed_us is null then p.committed_at
                else p.committed_at + m.committed_us * interval '1 microsecond' end as committed_at
    from gone p
    cross join lateral unnest(p.offsets, p.sequences, p.run_refs, p.transaction_ids, p.scheduled_us, p.sent_us,
        p.received_us, p.processed_us, p.committed_us) with ordinality as m(place, sequence, run_ref, transaction_id,
        scheduled_us, sent_us, received_us, processed_us, committed_us, number)
), slotted as (
    -- Within half an hour and 2^30 sequences every distance fits.
    select *, concat_ws('/', coalesce(sequence >> 30, -1), coalesce(floor(extract(epoch from scheduled_at) / 1800), 0),
        coalesce(floor(extract(epoch from sent_at) / 1800), 0), floor(extract(epoch from received_at) / 1800),
        floor(extract(epoch from processed_at) / 1800), coalesce(floor(extract(epoch from committed_at) / 1800), 0)) as slot
    from message
), based as (
    select *, min(\"offset\") over w as first_offset, min(sequence) over w as first_sequence,
           min(scheduled_at) over w as first_scheduled, min(sent_at) over w as first_sent,
           min(received_at) over w as first_received, min(processed_at) over w as first_processed,
           min(committed_at) over w as first_committed
    from slotted
    window w as (partition by slot)
)
insert into message_packs (topic_ref, partition, first_offset, last_offset, messages, run_ref, first_sequence,
    scheduled_at, sent_at, received_at, processed_at, committed_at, offsets, run_refs, sequences, transaction_ids,
    scheduled_us, sent_us, received_us, processed_us, committed_us)
select $1, $2, first_offset, max(\"offset\"), count(*),
       case when count(run_ref) = count(*) and min(run_ref) = max(run_ref) then min(run_ref) end,
       first_sequence, first_scheduled, first_sent, first_received, first_processed, first_committed,
       case when max(\"offset\") - first_offset + 1 > count(*)
            then array_agg((\"offset\" - first_offset)::integer order by \"offset\") end,
       case when count(run_ref) between 1 and count(*) - 1 or min(run_ref) < max(run_ref)
            then array_agg(run_ref order by \"offset\") end,
       case when count(sequence) > 0 then array_agg((sequence - first_sequence)::integer order by \"offset\") end,
       case when count(transaction_id) > 0 then array_agg(transaction_id order by \"offset\") end,
       case when count(scheduled_at) > 0
            then array_agg((extract(epoch from scheduled_at - first_scheduled) * 1000000)::integer order by \"offset\") end,
       case when count(sent_at) > 0
            then array_agg((extract(epoch from sent_at - first_sent) * 1000000)::integer order by \"offset\") end,
       array_agg((extract(epoch from received_at - first_received) * 1000000)::integer order by \"offset\"),
       array_agg((extract(epoch from processed_at - first_processed) * 1000000)::integer order by \"offset\"),
       array_agg((extract(epoch from committed_at - first_committed) * 1000000)::integer order by \"offset\")
from based
group by slot, first_offset, first_sequence, first_scheduled, first_sent, first_received, first_processed,
    first_committed";

/// A pack as the merger looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pack {
    first_offset: i64,
    last_offset: i64,
    messages: i64,
    settled: bool,
}

/// Merges packs, and remembers how far it came.
#[derive(Debug, Default)]
pub struct Merger {
    /// By stream and partition: packs that end here or before are done with.
    done: HashMap<(i32, i32), i64>,
}

impl Merger {
    /// Merges what there is to merge in a stream; returns how many packs went into others.
    ///
    /// # Errors
    /// PostgreSQL's answer; each merge is a transaction of its own.
    pub async fn merge(&mut self, connection: &mut PgConnection, topic_ref: i32) -> Result<u64, SinkError> {
        let partitions: Vec<i32> = sqlx::query_scalar("select partition from partition_offsets where topic_ref = $1")
            .bind(topic_ref)
            .fetch_all(&mut *connection)
            .await?;
        let mut merged = 0;
        for partition in partitions {
            loop {
                let done = self.done.get(&(topic_ref, partition)).copied().unwrap_or(-1);
                let packs: Vec<(i64, i64, i64, bool)> = sqlx::query_as(SETTLED_PACKS)
                    .bind(topic_ref)
                    .bind(partition)
                    .bind(done)
                    .bind(LOOK_PACKS)
                    .fetch_all(&mut *connection)
                    .await?;
                let packs: Vec<Pack> = packs
                    .into_iter()
                    .map(|(first_offset, last_offset, messages, settled)| Pack {
                        first_offset,
                        last_offset,
                        messages,
                        settled,
                    })
                    .collect();
                let (groups, done_now) = groups(&packs);
                for group in groups {
                    let statement = sqlx::query(MERGE).bind(topic_ref).bind(partition);
                    statement.bind(group.start()).bind(group.end()).execute(&mut *connection).await?;
                    merged += packs.iter().filter(|pack| group.contains(&pack.last_offset)).count() as u64;
                }
                let Some(done_now) = done_now else { break };
                self.done.insert((topic_ref, partition), done_now);
                if packs.len() < LOOK_PACKS as usize {
                    break;
                }
            }
        }
        Ok(merged)
    }
}

/// Which packs go together, as ranges of their last offsets, and up to where nothing is left to do.
///
/// What is too little yet at the end waits for more.
fn groups(packs: &[Pack]) -> (Vec<RangeInclusive<i64>>, Option<i64>) {
    let (mut groups, mut done) = (Vec::new(), None);
    let mut open: Vec<Pack> = Vec::new();
    let mut close = |open: &mut Vec<Pack>| {
        if let ([first, .., last], true) = (open.as_slice(), open.len() > 1) {
            groups.push(first.last_offset..=last.last_offset);
        }
        let last = open.last().map(|pack| pack.last_offset);
        open.clear();
        last
    };
    for pack in packs.iter().take_while(|pack| pack.settled) {
        let reaches = open.first().is_none_or(|first| pack.last_offset - first.first_offset <= SPAN_MAX);
        if pack.messages >= LARGE_MESSAGES || !reaches {
            done = close(&mut open).or(done);
        }
        if pack.messages >= LARGE_MESSAGES {
            done = Some(pack.last_offset);
            continue;
        }
        open.push(*pack);
        if open.iter().map(|pack| pack.messages).sum::<i64>() >= MERGED_MESSAGES {
            done = close(&mut open).or(done);
        }
    }
    (groups, done)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packs(sizes: &[i64]) -> Vec<Pack> {
        let mut next = 0;
        let pack = |messages: &i64| {
            let first_offset = next;
            next += messages;
            Pack { first_offset, last_offset: next - 1, messages: *messages, settled: true }
        };
        sizes.iter().map(pack).collect()
    }

    #[test]
    fn small_neighbours_go_together_and_large_packs_stay() {
        assert_eq!(groups(&packs(&[1, 2, 3])), (vec![], None), "too little yet");
        assert_eq!(groups(&packs(&[1, 2, 256])), (vec![0..=2], Some(258)));
        assert_eq!(groups(&packs(&[256, 1, 256, 1])), (vec![], Some(512)), "one alone has nobody to go with");
        let many = packs(&[100; 90]);
        assert_eq!(groups(&many), (vec![99..=4099, 4199..=8199], Some(8199)));
        let mut unsettled = many;
        unsettled[50].settled = false;
        assert_eq!(groups(&unsettled), (vec![99..=4099], Some(4099)));
        let mut far = packs(&[10, 10, 10]);
        far[2].last_offset = SPAN_MAX + 1;
        assert_eq!(groups(&far), (vec![9..=19], Some(19)));
    }
}
