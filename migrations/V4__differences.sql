-- What audits have found, for whoever keeps the tables next.

create table audit_differences (
    topic_ref  integer not null references streams,
    found_at   timestamptz not null default now(),
    constraint audit_differences_pkey primary key (topic_ref)
);
comment on table audit_differences is 'Streams whose books did not balance when they were audited last: until they do, no row, ledger or log of them is removed, by whichever process.';
comment on column audit_differences.found_at is 'When the first of these audits ended.';
comment on constraint audit_differences_pkey on audit_differences is 'One row a stream; a balanced audit removes it.';
