#!/bin/bash
# Runs once, when the database is created: the role that Grafana reads with. finstream makes its schema later, so the
# rights are given in advance.
set -euo pipefail
password=$(cat /run/secrets/grafana_reader_password)
psql --set=ON_ERROR_STOP=1 --set=password="$password" --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" <<'SQL'
create role finstream_reader login password :'password' connection limit 8;
alter role finstream_reader set search_path = finstream;
alter role finstream_reader set default_transaction_read_only = on;
-- A dashboard must not slow down what it watches.
alter role finstream_reader set statement_timeout = '5s';
alter default privileges for role finstream grant usage on schemas to finstream_reader;
alter default privileges for role finstream grant select on tables to finstream_reader;
SQL
