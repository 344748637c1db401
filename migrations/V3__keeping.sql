-- What is kept, and how: latency rows packed into arrays.

alter table schema_owner add column books_id uuid not null default gen_random_uuid();
comment on column schema_owner.books_id is 'Whose books these are, for what lies outside of PostgreSQL: checkpoints of the audit, values in finance.aggregates.';

-- One row a batch and partition, or many of these merged into one.
create table message_packs (
    topic_ref        integer not null,
    partition        integer not null,
    first_offset     bigint not null,
    last_offset      bigint not null,
    messages         integer not null,
    run_ref          integer,
    first_sequence   bigint,
    scheduled_at     timestamptz,
    sent_at          timestamptz,
    received_at      timestamptz not null,
    processed_at     timestamptz not null,
    committed_at     timestamptz,
    offsets          integer[],
    run_refs         integer[],
    sequences        integer[],
    transaction_ids  text[] collate "C",
    scheduled_us     integer[],
    sent_us          integer[],
    received_us      integer[] not null,
    processed_us     integer[],
    committed_us     integer[],
    constraint message_packs_pkey primary key (topic_ref, partition, last_offset),
    constraint message_packs_span_check check (last_offset - first_offset between 0 and 65535)
) with (fillfactor = 70);
comment on table message_packs is 'What messages and batches hold, as arrays with one element a message (--latency-layout packed): each element is a distance from the column of the same name, *_us in microseconds. Read it through unpacked_messages.';
comment on column message_packs.run_ref is 'Of all messages, unless run_refs has one for each.';
comment on column message_packs.offsets is 'Null where offsets have no gaps.';
comment on column message_packs.transaction_ids is 'Null where all are run_id || ''-'' || sequence.';
comment on column message_packs.processed_us is 'Null where all messages are of one batch.';
comment on column message_packs.committed_us is 'Null where all messages are of one batch; an element is null where the commit was not seen.';
comment on constraint message_packs_pkey on message_packs is 'Packs are found by offset: those that may hold one end at it or less than 65,536 behind it.';
comment on constraint message_packs_span_check on message_packs is 'Bounds how far behind an offset its pack may end.';

create view unpacked_messages as
select p.topic_ref,
       p.partition,
       p.first_offset + coalesce(m.place, m.number - 1)                 as "offset",
       p.first_sequence + m.sequence                                    as sequence,
       coalesce(m.run_ref, p.run_ref)                                   as run_ref,
       m.transaction_id,
       p.scheduled_at + m.scheduled_us * interval '1 microsecond'       as scheduled_at,
       p.sent_at + m.sent_us * interval '1 microsecond'                 as sent_at,
       p.received_at + m.received_us * interval '1 microsecond'         as received_at,
       p.processed_at + coalesce(m.processed_us, 0) * interval '1 microsecond' as processed_at,
       case when p.committed_us is null then p.committed_at
            else p.committed_at + m.committed_us * interval '1 microsecond' end as committed_at,
       p.last_offset                                                    as pack_last_offset
from message_packs p
cross join lateral unnest(p.offsets, p.sequences, p.run_refs, p.transaction_ids, p.scheduled_us, p.sent_us,
    p.received_us, p.processed_us, p.committed_us) with ordinality
    as m(place, sequence, run_ref, transaction_id, scheduled_us, sent_us, received_us, processed_us, committed_us, number);
comment on view unpacked_messages is 'The messages of message_packs, one row each; the pack of an offset ends at it or less than 65,536 behind it.';

create or replace view message_latencies as
select r.run_id,
       m.sequence,
       coalesce(m.transaction_id, r.run_id::text || '-' || m.sequence::text) as transaction_id,
       s.topic,
       m.partition,
       m."offset",
       m.scheduled_at,
       m.sent_at,
       m.received_at,
       m.processed_at,
       m.committed_at,
       extract(epoch from m.sent_at - m.scheduled_at) * 1000      as scheduled_to_sent_ms,
       extract(epoch from m.received_at - m.sent_at) * 1000       as sent_to_received_ms,
       extract(epoch from m.processed_at - m.received_at) * 1000  as received_to_processed_ms,
       extract(epoch from m.committed_at - m.processed_at) * 1000 as processed_to_committed_ms,
       extract(epoch from m.committed_at - m.scheduled_at) * 1000 as scheduled_to_committed_ms
from (
    select topic_ref, partition, "offset", sequence, run_ref, transaction_id, scheduled_at, sent_at, received_at,
           b.processed_at, b.committed_at
    from messages m
    left join lateral (
        select processed_at, committed_at
        from batches
        where batches.topic_ref = m.topic_ref and batches.partition = m.partition and batches.last_offset >= m."offset"
        order by batches.last_offset
        limit 1
    ) b on true
    union all
    select topic_ref, partition, "offset", sequence, run_ref, transaction_id, scheduled_at, sent_at, received_at,
           processed_at, committed_at
    from unpacked_messages
) m
join streams s using (topic_ref)
left join runs r using (run_ref);

-- As before, and the packs from their arrays: integers are subtracted, no time is made of them. Milliseconds have more
-- digits than before: one message whose clock is thousands of years away must not make the view unreadable.
drop view stage_latency_percentiles;
create view stage_latency_percentiles as
with latencies as (
    select m.run_ref,
           (date_part('epoch', m.sent_at - m.scheduled_at) * 1e6)::bigint      as scheduled_to_sent,
           (date_part('epoch', m.received_at - m.sent_at) * 1e6)::bigint       as sent_to_received,
           (date_part('epoch', b.processed_at - m.received_at) * 1e6)::bigint  as received_to_processed,
           (date_part('epoch', b.committed_at - b.processed_at) * 1e6)::bigint as processed_to_committed,
           (date_part('epoch', b.committed_at - m.scheduled_at) * 1e6)::bigint as scheduled_to_committed
    from batches b
    cross join lateral (
        select run_ref, scheduled_at, sent_at, received_at
        from messages
        where messages.topic_ref = b.topic_ref
          and messages.partition = b.partition
          and messages."offset" between b.first_offset and b.last_offset
        offset 0 -- A fence: a join of the two tables as wholes would compare every batch with every message.
    ) m
    union all
    select coalesce(m.run_ref, p.run_ref),
           p.scheduled_to_sent + m.sent_us - m.scheduled_us,
           p.sent_to_received + m.received_us - m.sent_us,
           p.received_to_processed + coalesce(m.processed_us, 0) - m.received_us,
           p.processed_to_committed + m.committed_us - coalesce(m.processed_us, 0),
           p.scheduled_to_committed + m.committed_us - m.scheduled_us
    from (
        select run_ref, run_refs, scheduled_us, sent_us, received_us, processed_us,
               coalesce(committed_us, array_fill(0, array[messages]))              as committed_us,
               (date_part('epoch', sent_at - scheduled_at) * 1e6)::bigint          as scheduled_to_sent,
               (date_part('epoch', received_at - sent_at) * 1e6)::bigint           as sent_to_received,
               (date_part('epoch', processed_at - received_at) * 1e6)::bigint      as received_to_processed,
               (date_part('epoch', committed_at - processed_at) * 1e6)::bigint     as processed_to_committed,
               (date_part('epoch', committed_at - scheduled_at) * 1e6)::bigint     as scheduled_to_committed
        from message_packs
    ) p
    cross join lateral unnest(p.run_refs, p.scheduled_us, p.sent_us, p.received_us, p.processed_us, p.committed_us)
        as m(run_ref, scheduled_us, sent_us, received_us, processed_us, committed_us)
), runs_measured as (
    select run_ref,
           count(*) as messages,
           array[count(scheduled_to_sent), count(sent_to_received), count(received_to_processed), count(processed_to_committed), count(scheduled_to_committed)] as present,
           array[count(*) filter (where scheduled_to_sent < 0),
                 count(*) filter (where sent_to_received < 0),
                 count(*) filter (where received_to_processed < 0),
                 count(*) filter (where processed_to_committed < 0),
                 count(*) filter (where scheduled_to_committed < 0)] as negative,
           percentile_disc(array[0.5, 0.9, 0.99, 0.999, 1]) within group (order by scheduled_to_sent) as scheduled_to_sent,
           percentile_disc(array[0.5, 0.9, 0.99, 0.999, 1]) within group (order by sent_to_received) as sent_to_received,
           percentile_disc(array[0.5, 0.9, 0.99, 0.999, 1]) within group (order by received_to_processed) as received_to_processed,
           percentile_disc(array[0.5, 0.9, 0.99, 0.999, 1]) within group (order by processed_to_committed) as processed_to_committed,
           percentile_disc(array[0.5, 0.9, 0.99, 0.999, 1]) within group (order by scheduled_to_committed) as scheduled_to_committed
    from latencies
    group by run_ref
)
select r.run_id,
       r.first_seen,
       stage.name                              as stage,
       m.present[stage.place]                  as messages,
       m.messages - m.present[stage.place]     as missing,
       m.negative[stage.place]                 as negative,
       (stage.us[1] / 1000.0)::numeric(20, 3)  as p50_ms,
       (stage.us[2] / 1000.0)::numeric(20, 3)  as p90_ms,
       (stage.us[3] / 1000.0)::numeric(20, 3)  as p99_ms,
       (stage.us[4] / 1000.0)::numeric(20, 3)  as p999_ms,
       (stage.us[5] / 1000.0)::numeric(20, 3)  as max_ms
from runs_measured m
join runs r using (run_ref)
cross join lateral (values
    (1, 'scheduled -> sent', m.scheduled_to_sent),
    (2, 'sent -> received', m.sent_to_received),
    (3, 'received -> processed', m.received_to_processed),
    (4, 'processed -> committed', m.processed_to_committed),
    (5, 'scheduled -> committed', m.scheduled_to_committed)
) as stage(place, name, us)
order by r.first_seen desc, stage.place;
comment on view stage_latency_percentiles is 'Latency per run, newest first, stage by stage, in milliseconds; missing and negative values are counted, not dropped.';

create or replace view repeated_transactions as
with stored as (
    select run_ref, sequence, transaction_id, received_at from messages
    union all
    select run_ref, sequence, transaction_id, received_at from unpacked_messages
)
select transaction_id, count(*) as stored, min(received_at) as first_received, max(received_at) as last_received
from (
    select s.transaction_id, s.received_at from stored s where s.transaction_id is not null
) named
group by transaction_id
having count(*) > 1
union all
select r.run_id::text || '-' || s.sequence::text, count(*), min(s.received_at), max(s.received_at)
from stored s
join runs r using (run_ref)
where s.transaction_id is null
group by r.run_id, s.sequence
having count(*) > 1;

-- What retention has removed.
create table retention_cuts (
    topic_ref   integer not null references streams,
    partition   integer not null,
    cut_before  bigint not null,
    cut_at      timestamptz not null default now(),
    constraint retention_cuts_pkey primary key (topic_ref, partition)
);
comment on table retention_cuts is 'Latency rows (messages, batches, message_packs) before these offsets were removed after a balanced audit had covered them; totals are kept. Written with the removal.';
comment on column retention_cuts.cut_before is 'An audit without a checkpoint at or beyond this offset cannot prove these books.';
comment on constraint retention_cuts_pkey on retention_cuts is 'One row a partition: the cut only moves on.';
