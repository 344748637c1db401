-- The tables of finstream. Unqualified names: the schema is chosen by the connection's search_path.
-- Offsets count records of a Kafka partition; times are timestamptz with microseconds; money is numeric.

-- One row: what this schema belongs to.
create table schema_owner (
    singleton       boolean primary key default true check (singleton),
    consumer_group  text not null
);
comment on table schema_owner is 'The consumer group whose totals live in this schema; another group needs a schema of its own.';
comment on constraint schema_owner_pkey on schema_owner is 'One row only.';

-- A stream is a topic of one cluster in one life.
create table streams (
    topic_ref   integer generated always as identity primary key,
    cluster_id  text not null,
    topic       text not null,
    life        integer not null default 1,
    created_at  timestamptz not null default now(),
    retired_at  timestamptz,
    constraint streams_life_key unique (cluster_id, topic, life)
);
comment on table streams is 'A topic of one cluster in one life; reset opens a new life. topic_ref leads every key that holds an offset.';
comment on constraint streams_pkey on streams is 'The small integer that offset-keyed tables lead with.';
comment on constraint streams_life_key on streams is 'Two processes that see a new topic at once must agree on one row.';
create unique index streams_current_key on streams (topic) where retired_at is null;
comment on index streams_current_key is 'Only one life of a topic is current, so that a different cluster is noticed instead of mixed in.';

-- The truth about progress.
create table partition_offsets (
    topic_ref            integer not null references streams,
    partition            integer not null,
    first_offset         bigint not null default 0,
    next_offset          bigint not null,
    owner_epoch          bigint not null default 0,
    fingerprint          bytea,
    owner_instance       text,
    owner_pid            integer,
    owner_backend_start  timestamptz,
    messages             bigint not null default 0,
    dead_letters         bigint not null default 0,
    updated_at           timestamptz not null default now(),
    constraint partition_offsets_pkey primary key (topic_ref, partition)
) with (fillfactor = 50);
comment on table partition_offsets is 'next_offset is the last applied or dead-lettered data record + 1; it moves by compare-and-set in the transaction that writes the batch.';
comment on column partition_offsets.first_offset is 'Where this life of the topic begins; records before it were counted in an earlier life, or had been deleted.';
comment on column partition_offsets.fingerprint is 'Identifies the record at next_offset - 1, so that a recreated topic is noticed.';
comment on constraint partition_offsets_pkey on partition_offsets is 'One row, one writer a partition.';

-- Offsets that a person agreed to skip.
create table skipped_ranges (
    topic_ref    integer not null references streams,
    partition    integer not null,
    from_offset  bigint not null,
    to_offset    bigint not null,
    recorded_at  timestamptz not null default now(),
    constraint skipped_ranges_pkey primary key (topic_ref, partition, from_offset)
);
comment on table skipped_ranges is 'Ranges [from_offset, to_offset) skipped by finstream reset --accept-loss; the audit names them.';
comment on constraint skipped_ranges_pkey on skipped_ranges is 'A range is recorded once.';

-- Each start of a producer is a run.
create table runs (
    run_ref     integer generated always as identity primary key,
    run_id      uuid not null,
    first_seen  timestamptz not null default now(),
    started_at  timestamptz,
    command     text,
    source      text,
    rate        text,
    seed        bigint,
    durability  text,
    version     text,
    constraint runs_run_id_key unique (run_id)
);
comment on table runs is 'Runs of producers, registered by the consumer that first sees one; details come with a run''s first messages.';
comment on constraint runs_pkey on runs is 'The small integer that message rows carry.';
comment on constraint runs_run_id_key on runs is 'Two consumers that see a new run at once must agree on one row.';

-- One row a message. Narrow on purpose: 93 bytes of heap and 32 of index without transaction_id.
create table messages (
    "offset"        bigint not null,
    sequence        bigint,
    scheduled_at    timestamptz,
    sent_at         timestamptz,
    received_at     timestamptz not null,
    topic_ref       integer not null,
    partition       integer not null,
    run_ref         integer,
    transaction_id  text collate "C",
    constraint messages_pkey primary key (topic_ref, partition, "offset")
);
comment on table messages is 'One row a stored message. transaction_id is null where it is run_id || ''-'' || sequence.';
comment on constraint messages_pkey on messages is 'A message is counted once: redelivery of an offset cannot make a second row.';

-- One row a micro-batch and partition.
create table batches (
    topic_ref     integer not null,
    partition     integer not null,
    first_offset  bigint not null,
    last_offset   bigint not null,
    messages      integer not null,
    processed_at  timestamptz not null,
    committed_at  timestamptz,
    constraint batches_pkey primary key (topic_ref, partition, last_offset)
) with (fillfactor = 70);
comment on table batches is 'When a micro-batch was processed and when our clock saw its commit return (written with the worker''s next transaction; null when a crash came between).';
comment on constraint batches_pkey on batches is 'The batch of a message is the one with the smallest last_offset at or beyond it.';

-- Totals per user and currency, kept per partition: a row has one writer.
create table user_aggregates (
    user_id      text collate "C" not null,
    currency     text collate "C" not null,
    topic_ref    integer not null,
    partition    integer not null,
    purchases    bigint not null,
    spend        numeric not null,
    refunds      bigint not null,
    refunded     numeric not null,
    trades       bigint not null,
    traded       numeric not null,
    first_event  timestamptz not null,
    last_event   timestamptz not null,
    last_offset  bigint not null,
    version      bigint not null,
    constraint user_aggregates_pkey primary key (user_id, currency, topic_ref, partition)
) with (fillfactor = 50);
comment on table user_aggregates is 'Per user, currency and partition; the view user_totals adds them up. Trades never count as spend.';
comment on column user_aggregates.last_offset is 'Offset of the last message counted: the upsert''s guard.';
comment on column user_aggregates.version is 'Writes so far; the sum over partitions is the version in finance.aggregates.';
comment on constraint user_aggregates_pkey on user_aggregates is 'The upsert''s arbiter.';

-- Totals per symbol and currency, kept per partition.
create table symbol_aggregates (
    symbol             text collate "C" not null,
    currency           text collate "C" not null,
    topic_ref          integer not null,
    partition          integer not null,
    trades             bigint not null,
    quantity           numeric not null,
    notional           numeric not null,
    last_price         numeric not null,
    last_price_event   timestamptz not null,
    last_price_offset  bigint not null,
    last_offset        bigint not null,
    version            bigint not null,
    constraint symbol_aggregates_pkey primary key (symbol, currency, topic_ref, partition)
) with (fillfactor = 50);
comment on table symbol_aggregates is 'Per symbol, currency and partition; the view symbol_totals adds them up. The last price goes by (event time, partition, offset).';
comment on constraint symbol_aggregates_pkey on symbol_aggregates is 'The upsert''s arbiter.';

-- What could not be read, or was refused for its data.
create table dead_letters (
    topic_ref    integer not null,
    partition    integer not null,
    "offset"     bigint not null,
    received_at  timestamptz not null,
    reason       text not null,
    run_ref      integer,
    sequence     bigint,
    key          bytea,
    payload      bytea,
    constraint dead_letters_pkey primary key (topic_ref, partition, "offset")
);
comment on table dead_letters is 'Messages that do not parse or that PostgreSQL refused for their data, with their bytes; the rest of their batch was stored.';
comment on constraint dead_letters_pkey on dead_letters is 'A message is refused once.';

-- Which totals a batch changed; the publisher of finance.aggregates reads and deletes them.
create table aggregate_changes (
    topic_ref          integer not null,
    partition          integer not null,
    last_offset        bigint not null,
    user_ids           text[] not null,
    user_currencies    text[] not null,
    symbols            text[] not null,
    constraint aggregate_changes_pkey primary key (topic_ref, partition, last_offset)
);
comment on table aggregate_changes is 'One row a batch and partition, until its totals are published.';
comment on constraint aggregate_changes_pkey on aggregate_changes is 'Changes are read in offset order.';

-- Views for people.

create view user_totals as
select user_id,
       currency,
       sum(purchases + refunds)::bigint as transactions,
       sum(purchases)::bigint           as purchases,
       sum(spend)                       as spend,
       sum(refunds)::bigint             as refunds,
       sum(refunded)                    as refunded,
       sum(spend - refunded)            as net_spend,
       sum(trades)::bigint              as trades,
       sum(traded)                      as traded,
       min(first_event)                 as first_event,
       max(last_event)                  as last_event
from user_aggregates
group by user_id, currency;
comment on view user_totals is 'Exact totals per user and currency, for the life of the data directory.';

create view symbol_totals as
select symbol,
       currency,
       sum(trades)::bigint as trades,
       sum(quantity)       as quantity,
       sum(notional)       as notional,
       (array_agg(last_price order by last_price_event desc, topic_ref desc, partition desc, last_price_offset desc))[1] as last_price,
       max(last_price_event) as last_event
from symbol_aggregates
group by symbol, currency;
comment on view symbol_totals is 'Exact totals per symbol and currency, for the life of the data directory.';

create view message_latencies as
select r.run_id,
       m.sequence,
       coalesce(m.transaction_id, r.run_id::text || '-' || m.sequence::text) as transaction_id,
       s.topic,
       m.partition,
       m."offset",
       m.scheduled_at,
       m.sent_at,
       m.received_at,
       b.processed_at,
       b.committed_at,
       extract(epoch from m.sent_at - m.scheduled_at) * 1000      as scheduled_to_sent_ms,
       extract(epoch from m.received_at - m.sent_at) * 1000       as sent_to_received_ms,
       extract(epoch from b.processed_at - m.received_at) * 1000  as received_to_processed_ms,
       extract(epoch from b.committed_at - b.processed_at) * 1000 as processed_to_committed_ms,
       extract(epoch from b.committed_at - m.scheduled_at) * 1000 as scheduled_to_committed_ms
from messages m
join streams s using (topic_ref)
left join runs r using (run_ref)
left join lateral (
    select processed_at, committed_at
    from batches
    where batches.topic_ref = m.topic_ref and batches.partition = m.partition and batches.last_offset >= m."offset"
    order by batches.last_offset
    limit 1
) b on true;
comment on view message_latencies is 'Every stored message with the time of each stage, and the milliseconds between stages.';

-- From the batches to their messages, one index range each, and one array of percentiles a stage: 600,000 messages take
-- 1.2 s (from the messages to their batches, and one sorted row a message and stage: 7 s).
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
       (stage.us[1] / 1000.0)::numeric(15, 3)  as p50_ms,
       (stage.us[2] / 1000.0)::numeric(15, 3)  as p90_ms,
       (stage.us[3] / 1000.0)::numeric(15, 3)  as p99_ms,
       (stage.us[4] / 1000.0)::numeric(15, 3)  as p999_ms,
       (stage.us[5] / 1000.0)::numeric(15, 3)  as max_ms
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

create view pipeline_progress as
select s.topic,
       s.life,
       p.partition,
       p.next_offset,
       p.messages,
       p.dead_letters,
       p.owner_instance,
       p.owner_epoch,
       p.updated_at,
       s.retired_at is null as current
from partition_offsets p
join streams s using (topic_ref)
order by s.topic, s.life desc, p.partition;
comment on view pipeline_progress is 'How far each partition has been applied.';

create view repeated_transactions as
select transaction_id, count(*) as stored, min(received_at) as first_received, max(received_at) as last_received
from (
    select m.transaction_id, m.received_at from messages m where m.transaction_id is not null
) named
group by transaction_id
having count(*) > 1
union all
select r.run_id::text || '-' || m.sequence::text, count(*), min(m.received_at), max(m.received_at)
from messages m
join runs r using (run_ref)
where m.transaction_id is null
group by r.run_id, m.sequence
having count(*) > 1;
comment on view repeated_transactions is 'Business ids that were stored more than once: a file replayed, a client that sent twice. Totals count every stored message.';
