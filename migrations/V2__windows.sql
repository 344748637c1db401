-- Event-time windows per merchant category and per symbol, and what is needed to say which messages came late.

alter table schema_owner add column window_us bigint not null default 60000000
    constraint schema_owner_window_us_check check (window_us > 0);
comment on column schema_owner.window_us is 'Length of the windows in microseconds. All windows of a schema have one length, or they would not add up.';
comment on constraint schema_owner_window_us_check on schema_owner is 'A window without a length holds nothing.';

alter table partition_offsets
    add column windows_from bigint not null default 0,
    add column watermark timestamptz;
comment on column partition_offsets.windows_from is 'Windows count from this offset on: what came before was applied by a version without windows.';
comment on column partition_offsets.watermark is 'The latest event time applied so far. A message whose window had ended by then is late.';
-- Whoever still writes without windows is fenced.
update partition_offsets set windows_from = next_offset, owner_epoch = owner_epoch + 1;

-- Purchases and refunds per merchant category, kept per partition: a row has one writer.
create table category_window_aggregates (
    window_start  timestamptz not null,
    category      text collate "C" not null,
    currency      text collate "C" not null,
    topic_ref     integer not null,
    partition     integer not null,
    purchases     bigint not null,
    spend         numeric not null,
    purchase_min  numeric,
    purchase_max  numeric,
    refunds       bigint not null,
    refunded      numeric not null,
    late          bigint not null,
    late_us_max   bigint not null,
    last_offset   bigint not null,
    version       bigint not null,
    constraint category_window_aggregates_pkey primary key (window_start, category, currency, topic_ref, partition)
) with (fillfactor = 50);
comment on table category_window_aggregates is 'Per window of event time, merchant category, currency and partition; the view category_windows adds them up.';
comment on column category_window_aggregates.purchase_min is 'Null in a window that has refunds only.';
comment on column category_window_aggregates.late is 'Messages that came when an event after the window''s end had been seen in their partition. They are counted like all others.';
comment on column category_window_aggregates.late_us_max is 'Event time seen by then, less the window''s end, of the message that came latest; 0 when none did.';
comment on column category_window_aggregates.last_offset is 'Offset of the last message counted: the upsert''s guard.';
comment on constraint category_window_aggregates_pkey on category_window_aggregates is 'The upsert''s arbiter. Leads with time, so that a range of windows is found without reading all.';

-- Trades per symbol, kept per partition.
create table symbol_window_aggregates (
    window_start  timestamptz not null,
    symbol        text collate "C" not null,
    currency      text collate "C" not null,
    topic_ref     integer not null,
    partition     integer not null,
    trades        bigint not null,
    quantity      numeric not null,
    notional      numeric not null,
    open_price    numeric not null,
    open_event    timestamptz not null,
    open_offset   bigint not null,
    high_price    numeric not null,
    low_price     numeric not null,
    close_price   numeric not null,
    close_event   timestamptz not null,
    close_offset  bigint not null,
    late          bigint not null,
    late_us_max   bigint not null,
    last_offset   bigint not null,
    version       bigint not null,
    constraint symbol_window_aggregates_pkey primary key (window_start, symbol, currency, topic_ref, partition)
) with (fillfactor = 50);
comment on table symbol_window_aggregates is 'Per window of event time, symbol, currency and partition; the view symbol_windows adds them up. Open and close go by (event time, partition, offset).';
comment on column symbol_window_aggregates.late is 'As in category_window_aggregates.';
comment on column symbol_window_aggregates.late_us_max is 'As in category_window_aggregates.';
comment on column symbol_window_aggregates.last_offset is 'Offset of the last message counted: the upsert''s guard.';
comment on constraint symbol_window_aggregates_pkey on symbol_window_aggregates is 'The upsert''s arbiter. Leads with time, so that a range of windows is found without reading all.';

alter table aggregate_changes
    add column category_windows text[] not null default '{}',
    add column symbol_windows text[] not null default '{}';
comment on column aggregate_changes.category_windows is 'Each as START CURRENCY CATEGORY, START in microseconds since 1970.';
comment on column aggregate_changes.symbol_windows is 'Each as START CURRENCY SYMBOL, START in microseconds since 1970.';

-- Dead letters that were put through after a fix.

alter table dead_letters add column watermark timestamptz;
comment on column dead_letters.watermark is 'Of its partition where it lies in the log: what decides whether it is late when it is put through.';

create table replayed_letters (
    topic_ref    integer not null,
    partition    integer not null,
    "offset"     bigint not null,
    reason       text not null,
    replayed_at  timestamptz not null default now(),
    constraint replayed_letters_pkey primary key (topic_ref, partition, "offset")
);
comment on table replayed_letters is 'Dead letters that finstream dead-letters --replay has put through: they are rows of messages now, and in the totals. reason is why they had been refused.';
comment on constraint replayed_letters_pkey on replayed_letters is 'A message is put through once.';

-- Views for people.

create view category_windows as
select a.window_start,
       a.window_start + make_interval(secs => o.window_us / 1e6)   as window_end,
       a.category,
       a.currency,
       sum(a.purchases)::bigint                                    as purchases,
       sum(a.spend)                                                as spend,
       min(a.purchase_min)                                         as purchase_min,
       max(a.purchase_max)                                         as purchase_max,
       sum(a.refunds)::bigint                                      as refunds,
       sum(a.refunded)                                             as refunded,
       sum(a.late)::bigint                                         as late,
       make_interval(secs => max(a.late_us_max) / 1e6)             as late_by_max
from category_window_aggregates a
cross join schema_owner o
group by a.window_start, o.window_us, a.category, a.currency;
comment on view category_windows is 'Purchases and refunds per window of event time, merchant category and currency. Messages that came late are counted; late says how many, late_by_max how late.';

create view symbol_windows as
select a.window_start,
       a.window_start + make_interval(secs => o.window_us / 1e6)   as window_end,
       a.symbol,
       a.currency,
       sum(a.trades)::bigint                                       as trades,
       sum(a.quantity)                                             as quantity,
       sum(a.notional)                                             as notional,
       (array_agg(a.open_price order by a.open_event, a.topic_ref, a.partition, a.open_offset))[1] as open,
       max(a.high_price)                                           as high,
       min(a.low_price)                                            as low,
       (array_agg(a.close_price order by a.close_event desc, a.topic_ref desc, a.partition desc, a.close_offset desc))[1] as close,
       round(sum(a.notional) / nullif(sum(a.quantity), 0), 8)      as vwap,
       sum(a.late)::bigint                                         as late,
       make_interval(secs => max(a.late_us_max) / 1e6)             as late_by_max
from symbol_window_aggregates a
cross join schema_owner o
group by a.window_start, o.window_us, a.symbol, a.currency;
comment on view symbol_windows is 'Trades per window of event time, symbol and currency: open, high, low, close, and the price averaged by volume. Messages that came late are counted.';
