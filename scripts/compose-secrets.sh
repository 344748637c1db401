#!/bin/sh
# Makes the passwords of docker-compose.yml, each once, in .secrets/ (not in git).
set -eu
secrets=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)/.secrets
mkdir -p "$secrets"
# The folder keeps other users out; the files are readable because each container reads them under a user of its own.
chmod 700 "$secrets"
for name in postgres_password grafana_admin_password grafana_reader_password; do
    if [ ! -s "$secrets/$name" ]; then
        LC_ALL=C tr -dc 'A-Za-z0-9' </dev/urandom | head -c 32 >"$secrets/$name"
        chmod 644 "$secrets/$name"
    fi
done
# What finstream's containers connect with: a password is not for the environment, where `docker inspect` shows it.
printf 'postgres://finstream:%s@postgres:5432/finstream\n' "$(cat "$secrets/postgres_password")" >"$secrets/database_url"
chmod 644 "$secrets/database_url"
