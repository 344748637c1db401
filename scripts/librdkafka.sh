#!/bin/sh
# Builds from the source of librdkafka that the crate rdkafka-sys brings along, once a version, in
# .local-deps/librdkafka-VERSION, and prints where it is:
#
#   scripts/librdkafka.sh performance    the program rdkafka_performance; half a minute on two cores
#   scripts/librdkafka.sh tests          the folder of librdkafka's own test suite, test-runner in it; a minute more
#
# What is built second goes on from what was built first.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
run=$root/scripts/with-env
wanted=${1:-}

deps=$root/.local-deps
# shellcheck disable=SC2034 # packages.sh reads these
log=$deps/librdkafka-setup.log
# shellcheck disable=SC2034
speaker=librdkafka

# shellcheck disable=SC1091
. "$root/scripts/packages.sh"

case $wanted in
performance | tests) ;;
*) die "say what to build: performance or tests" ;;
esac

source=$("$run" cargo metadata --manifest-path "$root/Cargo.toml" --locked --format-version 1 |
    tr ',' '\n' | sed -n 's#^"manifest_path":"\(.*/rdkafka-sys-[^"]*\)/Cargo.toml"$#\1#p' | head -n 1)
if [ -z "$source" ] || [ ! -d "$source/librdkafka" ]; then
    die 'cargo metadata names no rdkafka-sys with the source of librdkafka'
fi
version=${source##*rdkafka-sys-}
built=$deps/librdkafka-$version
program=$built/rdkafka_performance
tests=$built/librdkafka/tests

# Without these, some tests say that they are skipped.
helpers() {
    missing=
    [ -e /usr/include/rapidjson/schema.h ] || missing=rapidjson-dev
    have kcat || missing="$missing kcat"
    [ -n "$missing" ] || return 0
    # shellcheck disable=SC2086 # a list of words
    if have apt-get && find_root && say "installing $missing" && apt_install $missing; then return 0; fi
    say "going on without $missing: some tests will be skipped"
}

# Configured for the performance client, before the tests' helpers were there: some tests would say that they are skipped.
lacks_helpers() {
    [ "$wanted" = tests ] && [ -e /usr/include/rapidjson/schema.h ] &&
        grep -qs '^WITH_RAPIDJSON=[[:space:]]*n' "$1/Makefile.config"
}

libraries() {
    if [ -e Makefile.config ] && ! lacks_helpers .; then return 0; fi
    "$run" ./configure --disable-gssapi --disable-ssl --disable-curl --enable-static
    # The tests ask for three replicas of each topic, and one node has one. Nothing that they check depends on it.
    sed 's/NewTopic_new(topicname, partition_cnt, replication_factor,/NewTopic_new(topicname, partition_cnt, 1,/' \
        tests/test.c >tests/test.c.new
    grep -q 'NewTopic_new(topicname, partition_cnt, 1,' tests/test.c.new
    mv tests/test.c.new tests/test.c
    "$run" make -j "$jobs" libs
}

build() {
    cd "$work/librdkafka"
    libraries
    if [ "$wanted" = tests ]; then
        "$run" make -j "$jobs" -C tests build
    else
        "$run" make -C examples rdkafka_performance
    fi
}

if [ "$wanted" = tests ]; then is_built=$tests/test-runner; else is_built=$program; fi
if [ ! -x "$is_built" ] || lacks_helpers "$built/librdkafka"; then
    say "building $wanted of rdkafka-sys $version in .local-deps"
    mkdir -p "$built"
    [ "$wanted" != tests ] || helpers
    jobs=$(getconf _NPROCESSORS_ONLN)
    # librdkafka's makefiles cannot build below a path with blanks.
    work=$(mktemp -d /tmp/finstream-librdkafka.XXXXXX)
    trap 'rm -rf "$work"' EXIT
    trap 'exit 130' INT TERM
    if [ -d "$built/librdkafka" ]; then
        # With the times of its files, by which make sees what is done.
        cp -Rp "$built/librdkafka" "$work/"
    else
        cp -R "$source/librdkafka" "$work/"
        chmod -R u+w "$work"
    fi
    # Not `build || die`: in a condition `set -e` would not hold.
    set +e
    (set -e && build) >"$built/build.log" 2>&1
    failed=$?
    set -e
    [ "$failed" -eq 0 ] || die "the build failed: see $built/build.log"
    [ "$wanted" = tests ] || cp "$work/librdkafka/examples/rdkafka_performance" "$built/"
    # Whole or not at all: what is there is taken for complete.
    rm -rf "$built/librdkafka.new"
    mv "$work/librdkafka" "$built/librdkafka.new"
    rm -rf "$built/librdkafka"
    mv "$built/librdkafka.new" "$built/librdkafka"
fi
if [ "$wanted" = tests ]; then printf '%s\n' "$tests"; else printf '%s\n' "$program"; fi
