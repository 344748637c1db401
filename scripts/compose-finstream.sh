#!/bin/sh
# Runs producer and consumer on the host against the containers of `make up`; further arguments go to finstream.
# Prometheus scrapes from inside of a container, so on Linux the page listens on the address of Docker's bridge.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
PGPASSWORD=$(cat "$root/.secrets/postgres_password")
export PGPASSWORD
cd "$root"
host=$(scripts/compose-host.sh)
exec scripts/with-env cargo run --release --quiet -- --brokers 127.0.0.1:19092 \
    --database-url postgres://finstream@127.0.0.1:15432/finstream --http "$host:8080" --insecure-listen "$@"
