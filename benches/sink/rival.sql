-- The tables of the Python consumers, in a schema of their own. A latency row is as narrow as ours, and eight bytes narrower:
-- they know neither lives of a topic nor runs of a producer. Totals need one row a user, as one process writes them all.

create table messages (
    "offset"      bigint not null,
    sequence      bigint,
    scheduled_at  timestamptz,
    sent_at       timestamptz,
    received_at   timestamptz not null,
    partition     integer not null,
    primary key (partition, "offset")
);

create table user_aggregates (
    user_id      text collate "C" not null,
    currency     text collate "C" not null,
    purchases    bigint not null,
    spend        numeric not null,
    refunds      bigint not null,
    refunded     numeric not null,
    trades       bigint not null,
    traded       numeric not null,
    first_event  timestamptz not null,
    last_event   timestamptz not null,
    primary key (user_id, currency)
) with (fillfactor = 50);

create table symbol_aggregates (
    symbol    text collate "C" not null,
    currency  text collate "C" not null,
    trades    bigint not null,
    quantity  numeric not null,
    notional  numeric not null,
    primary key (symbol, currency)
) with (fillfactor = 50);

-- Moves in the transaction that writes a batch: totals are exact after a crash, too.
create table progress (
    partition    integer primary key,
    next_offset  bigint not null
) with (fillfactor = 50);
