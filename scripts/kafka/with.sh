#!/usr/bin/env bash
# Runs a command beside an Apache Kafka node of its own, whose address it finds in FINSTREAM_TEST_BROKERS.
#   scripts/kafka/with.sh COMMAND ARGUMENT…
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
"$here/fetch.sh" >/dev/null

folder=$(mktemp -d)
kafka=
end() {
    trap - EXIT
    if [ -n "$kafka" ]; then
        kill "$kafka" 2>/dev/null || true
        wait "$kafka" 2>/dev/null || true
    fi
    rm -rf "$folder"
}
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

"$here/run.sh" --ready-file "$folder/ready.json" >"$folder/log" 2>&1 &
kafka=$!
until [ -s "$folder/ready.json" ]; do
    kill -0 "$kafka" 2>/dev/null || {
        cat "$folder/log" >&2
        exit 1
    }
    read -r -t 0.1 _ <> <(:) || true
done
FINSTREAM_TEST_BROKERS=$(sed 's/.*"bootstrap" *: *"\([^"]*\)".*/\1/' "$folder/ready.json")
export FINSTREAM_TEST_BROKERS
"$@"
