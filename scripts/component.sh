#!/bin/sh
# Adds a rustup component where it is missing: scripts/component.sh rustfmt|clippy
set -eu
here=$(dirname -- "$0")
case $1 in
rustfmt) program=fmt ;;
clippy) program=clippy ;;
*)
    echo "component: rustfmt or clippy, not $1" >&2
    exit 2
    ;;
esac
"$here/with-env" cargo "$program" --version >/dev/null 2>&1 && exit 0
echo "component: adding $1 (rustup component add $1)" >&2
"$here/with-env" rustup component add "$1" >&2 ||
    { echo "component: cargo $program is missing and rustup cannot add it: install $1 as you installed Rust" >&2; exit 1; }
