#!/bin/sh
# Prints the folder that holds prometheus and promtool: the system's, or Debian's package unpacked into
# .local-deps/prometheus. It is unpacked and never installed: the package would start a server on port 9090.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
deps=$root/.local-deps
# shellcheck disable=SC2034 # packages.sh reads these
log=$deps/prometheus-setup.log
# shellcheck disable=SC2034
speaker=prometheus

# shellcheck disable=SC1091
. "$root/scripts/packages.sh"

made=$deps/prometheus
bin=$made/usr/bin
runs() { "$1/promtool" --version >/dev/null 2>&1 && "$1/prometheus" --version >/dev/null 2>&1; }

if runs "$bin"; then
    echo "$bin"
    exit 0
fi
if have prometheus && have promtool; then
    dirname -- "$(command -v promtool)"
    exit 0
fi
if [ "$(uname -s)" = Darwin ] && have brew; then
    say 'installing prometheus (brew)'
    quietly brew install prometheus || die "brew failed: see $log"
    dirname -- "$(command -v promtool)"
    exit 0
fi
have apt-get && have dpkg || die 'prometheus and promtool (2.42 or newer) are needed: install them, then run this again'

say "unpacking Debian's prometheus into .local-deps/prometheus (nothing is installed or started)"
download() { (cd "$made.new" && quietly apt-get -o Debug::NoLocking=1 download -q prometheus); }
rm -rf "$made.new"
mkdir -p "$made.new"
# An empty or old package list is the usual reason for a failure: fetch it and try once more.
download || { find_root && quietly $as_root apt-get update -q && download; } || die "the package cannot be downloaded: see $log"
quietly dpkg -x "$made.new"/prometheus_*.deb "$made.new" || die "the package cannot be unpacked: see $log"
rm -f "$made.new"/prometheus_*.deb
runs "$made.new/usr/bin" || die "prometheus does not run: see $log"
rm -rf "$made"
mv "$made.new" "$made"
echo "$bin"
