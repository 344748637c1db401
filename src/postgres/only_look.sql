-- What every role may do in a new database and a reader must not: write temporary tables and large objects, make tables in the
-- schema public, and take advisory locks, which finstream's own processes agree by. Superusers keep all of it.
do $$
declare
    function regprocedure;
begin
    execute format('revoke temporary, create on database %I from public', current_database());
    revoke create on schema public from public;
    for function in
        select oid::regprocedure from pg_proc
        where pronamespace = 'pg_catalog'::regnamespace
          and (proname like 'lo\_%' or proname in ('loread', 'lowrite') or proname like 'pg\_%advisory%')
    loop
        execute format('revoke execute on function %s from public', function);
    end loop;
end
$$;
