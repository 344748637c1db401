#!/bin/sh
# Makes a Python environment once, in .local-deps, and prints its interpreter.
#   scripts/python.sh [FILE [NAME]]
# What is in it stands with its versions in FILE, relative to the clone; when that changes, it is made again. Without
# arguments it is that of `make bench-sink`.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
deps=$root/.local-deps
# shellcheck disable=SC2034 # packages.sh reads these
log=$deps/python-setup.log
# shellcheck disable=SC2034
speaker=python

# shellcheck disable=SC1091
. "$root/scripts/packages.sh"

wanted=$root/${1:-benches/sink/requirements.txt}
made=$deps/python-${2:-sink}

if cmp -s "$wanted" "$made/requirements.txt" && [ -x "$made/bin/python" ]; then
    echo "$made/bin/python"
    exit 0
fi

is_new_enough() { have python3 && python3 -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

if ! is_new_enough && have apt-get && find_root; then
    say 'installing python3-venv'
    apt_install python3 python3-venv || true
fi
is_new_enough || die 'Python 3.11 or newer with its module venv is needed: install python3 and python3-venv, then run this again'

say "installing $(tr '\n' ' ' <"$wanted")(log: .local-deps/python-setup.log)"
rm -rf "$made"
quietly python3 -m venv "$made" || die "cannot make $made" "see $log"
quietly "$made/bin/python" -m pip install --disable-pip-version-check --only-binary :all: -r "$wanted" ||
    die 'pip cannot install them; is pypi.org reachable?' "see $log"
cp "$wanted" "$made/requirements.txt"
echo "$made/bin/python"
