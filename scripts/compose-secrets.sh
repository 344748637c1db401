#!/bin/sh
# Makes the passwords of docker-compose.yml, each once, in .secrets/ (not in git).
#   scripts/compose-secrets.sh [DATA_DIR]
# With a data directory, also takes the password of readers (--pg-listen) from there.
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
if [ $# -gt 0 ]; then
    reader=$1/postgres-reader-password
    if [ ! -r "$reader" ]; then
        echo "no $reader: first start finstream here so that containers reach it:" >&2
        echo '  Linux: finstream --http 172.17.0.1:8080 --pg-listen 172.17.0.1:5433 --insecure-listen  (Docker'"'"'s bridge)' >&2
        echo '  macOS: finstream --pg-listen 127.0.0.1:5433  (Docker Desktop leads host.docker.internal to loopback)' >&2
        exit 1
    fi
    cp "$reader" "$secrets/host_reader_password"
    chmod 644 "$secrets/host_reader_password"
fi
# What finstream's containers connect with: a password is not for the environment, where `docker inspect` shows it.
printf 'postgres://finstream:%s@postgres:5432/finstream\n' "$(cat "$secrets/postgres_password")" >"$secrets/database_url"
chmod 644 "$secrets/database_url"
