-- The view of what was sent twice: the ids that point at a message of a run are picked out before they are compared with each
-- other, and an id with leading zeros, which nobody derives, points at nothing.

create or replace view repeated_transactions as
with stored as not materialized (
    select run_ref, sequence, transaction_id, received_at from messages
    union all
    select run_ref, sequence, transaction_id, received_at from unpacked_messages
),
named as not materialized (
    select transaction_id, received_at from stored where transaction_id is not null
),
-- Which message an id is derived from, where it is.
pointing as materialized (
    select distinct transaction_id,
        left(transaction_id, 36)::uuid    as run_id,
        substr(transaction_id, 38)::bigint as sequence
    from named
    where transaction_id ~ '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}-(0|[1-9][0-9]{0,17})$'
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
