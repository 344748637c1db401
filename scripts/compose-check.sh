#!/bin/sh
# Compares docker-compose.yml with the schema of the Compose specification: there is no Docker daemon where CI runs.
set -eu
cd "$(dirname -- "$0")/.."
python=$(scripts/python.sh scripts/compose-check.txt compose)
exec "$python" -m check_jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
