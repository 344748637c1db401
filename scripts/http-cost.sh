#!/bin/sh
# What the windows cost: CPU time of their own thread (finstream-http) while one viewer follows the events and Prometheus'
# part is played by a scrape every 2 s.
#   scripts/http-cost.sh [ARGUMENT OF FINSTREAM…]      default: --rate 20000
# SECONDS_MEASURED=N (default 60). FINSTREAM=PATH is the binary.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
finstream=${FINSTREAM:-${CARGO_TARGET_DIR:-$root/target}/release/finstream}
measured=${SECONDS_MEASURED:-60}
[ $# -gt 0 ] || set -- --rate 20000

work=$(mktemp -d)
scripts=$root/scripts
"$scripts/with-env" "$finstream" --ephemeral --http 127.0.0.1:0 --kafka-listen 127.0.0.1:0 --ready-file "$work/ready.json" \
    "$@" >"$work/log" 2>&1 &
pid=$!
viewer=
trap 'kill "$pid" $viewer 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$work"' EXIT
while [ ! -s "$work/ready.json" ]; do
    kill -0 "$pid" 2>/dev/null || { cat "$work/log" >&2; exit 1; }
    sleep 0.1
done
http=$(sed -n 's/.*"http": "\([^"]*\)".*/\1/p' "$work/ready.json")
curl -sN "$http/api/v1/events" >"$work/events" &
viewer=$!
sleep 5

# Clock ticks of all threads of this name, user and system.
ticks() {
    for task in /proc/"$pid"/task/*; do
        [ "$(cat "$task/comm")" = finstream-http ] || continue
        # Behind the name, which may hold blanks: fields 14 and 15 of all.
        sed 's/.*) //' "$task/stat" | awk '{ print $12 + $13 }'
    done | awk '{ sum += $1 } END { print sum }'
}

began=$(ticks)
scrapes=0
left=$measured
while [ "$left" -gt 0 ]; do
    curl -s "$http/metrics" >"$work/metrics"
    scrapes=$((scrapes + 1))
    sleep 2
    left=$((left - 2))
done
used=$(($(ticks) - began))
per_second=$(getconf CLK_TCK)
awk -v used="$used" -v per_second="$per_second" -v seconds="$measured" 'BEGIN {
    printf "finstream-http: %.2f s of CPU in %d s, %.2f %% of a core\n", used / per_second, seconds, 100 * used / per_second / seconds }'
printf '%d scrapes, the last of %d bytes; %d events, %d bytes\n' "$scrapes" "$(wc -c <"$work/metrics")" \
    "$(grep -c '^event: snapshot' "$work/events")" "$(wc -c <"$work/events")"
curl -s "$http/api/v1/snapshot" | sed 's/.*"verdict":{\([^}]*\)}.*/\1/'
