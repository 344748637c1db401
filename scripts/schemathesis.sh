#!/bin/sh
# Asks the HTTP API of a live run what its OpenAPI document allows and what it does not, and compares each answer with the
# document. The seed is fixed: every run asks the same.
#   scripts/schemathesis.sh [ARGUMENT OF SCHEMATHESIS…]
# EXAMPLES=N questions an operation (default 60: about a minute in all). FINSTREAM=PATH is the binary.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
finstream=${FINSTREAM:-${CARGO_TARGET_DIR:-$root/target}/release/finstream}
python=$("$root/scripts/python.sh" tests/http_api/requirements.txt schemathesis)

work=$(mktemp -d)
"$root/scripts/with-env" "$finstream" --ephemeral --rate 500 --http 127.0.0.1:0 --kafka-listen 127.0.0.1:0 \
    --ready-file "$work/ready.json" >"$work/log" 2>&1 &
pid=$!
trap 'kill "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true; rm -rf "$work"' EXIT
while [ ! -s "$work/ready.json" ]; do
    kill -0 "$pid" 2>/dev/null || { cat "$work/log" >&2; exit 1; }
    sleep 0.1
done
http=$("$python" -c 'import json, sys; print(json.load(open(sys.argv[1]))["http"])' "$work/ready.json")

# A cursor is opaque: one that looks like the document's examples need not be one of ours, so not every text is accepted.
# The stream of events never ends: tests/http_api and tests/program/http.rs follow it.
cd "$work"
"${python%/*}/schemathesis" run "$http/api/v1/openapi.json" --url "$http" --checks all \
    --exclude-checks positive_data_acceptance --seed 7 \
    --max-examples "${EXAMPLES:-60}" --exclude-path /api/v1/events --workers 1 --request-timeout 10 --no-color "$@"
