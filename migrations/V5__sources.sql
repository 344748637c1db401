-- Declined attempts, and transactions that their source sends twice.

alter table user_aggregates add column declines bigint not null default 0;
comment on column user_aggregates.declines is 'Attempts that the issuer declined. They move no money.';

create or replace view user_totals as
select user_id,
       currency,
       sum(purchases + refunds + declines)::bigint as transactions,
       sum(purchases)::bigint                      as purchases,
       sum(spend)                                  as spend,
       sum(refunds)::bigint                        as refunds,
       sum(refunded)                               as refunded,
       sum(spend - refunded)                       as net_spend,
       sum(trades)::bigint                         as trades,
       sum(traded)                                 as traded,
       min(first_event)                            as first_event,
       max(last_event)                             as last_event,
       sum(declines)::bigint                       as declines
from user_aggregates
group by user_id, currency;

-- A source may send a transaction again under the id that was derived for the first message: the row of the first has no id
-- of its own, and both are to be seen together.

create or replace view repeated_transactions as
with stored as (
    select run_ref, sequence, transaction_id, received_at from messages
    union all
    select run_ref, sequence, transaction_id, received_at from unpacked_messages
),
named as (
    select transaction_id, received_at from stored where transaction_id is not null
),
-- Which message an id is derived from, where it is.
pointing as (
    select distinct transaction_id,
        case when is_derived then left(transaction_id, 36)::uuid end    as run_id,
        case when is_derived then substr(transaction_id, 38)::bigint end as sequence
    from (
        select transaction_id,
            transaction_id ~ '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}-[0-9]{1,18}$' as is_derived
        from named
    ) ids
),
pointed_at as (
    select p.transaction_id, s.received_at
    from pointing p
    join runs r on r.run_id = p.run_id
    join stored s on s.run_ref = r.run_ref and s.sequence = p.sequence
    where s.transaction_id is null
)
select transaction_id, count(*) as stored, min(received_at) as first_received, max(received_at) as last_received
from (select * from named union all select * from pointed_at) sent
group by transaction_id
having count(*) > 1
union all
select r.run_id::text || '-' || s.sequence::text, count(*), min(s.received_at), max(s.received_at)
from stored s
join runs r using (run_ref)
where s.transaction_id is null
    and not exists (select from pointing p where p.run_id = r.run_id and p.sequence = s.sequence)
group by r.run_id, s.sequence
having count(*) > 1;
comment on view repeated_transactions is 'Transactions that were stored more than once: sent twice by their source, or a file that was replayed. Each message counts.';
