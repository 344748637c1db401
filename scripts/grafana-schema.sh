#!/bin/sh
# Checks the dashboards against Grafana's own TypeScript types (@grafana/schema, the version of docker-compose.yml's
# Grafana): a misspelled option, a wrong enum, a panel without its grid. Installs Node.js with npm where it is missing.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
deps=$root/.local-deps
# shellcheck disable=SC2034 # packages.sh reads these
log=$deps/grafana-schema.log
# shellcheck disable=SC2034
speaker=grafana-schema

# shellcheck disable=SC1091
. "$root/scripts/packages.sh"

made=$deps/grafana-schema
wanted=$root/scripts/grafana-schema
need_npm

if ! cmp -s "$wanted/package-lock.json" "$made/package-lock.json" || [ ! -d "$made/node_modules/typescript" ]; then
    say 'fetching @grafana/schema and typescript'
    rm -rf "$made"
    mkdir -p "$made"
    cp "$wanted/package.json" "$made/"
    cp "$wanted/package-lock.json" "$made/lock"
    mv "$made/lock" "$made/package-lock.json"
    quietly npm ci --prefix "$made" --ignore-scripts --no-audit --no-fund || { rm -rf "$made"; die "npm failed: see $log"; }
fi

dashboards=${*:-$(find "$root/grafana/dashboards" -name '*.json')}
# shellcheck disable=SC2086 # one word a file
node "$wanted/check.mjs" "$made/check.mts" $dashboards
cd "$made"
exec node node_modules/typescript/bin/tsc --noEmit --strict --skipLibCheck --module nodenext --moduleResolution nodenext check.mts
