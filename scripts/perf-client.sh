#!/bin/sh
# Builds librdkafka's own rdkafka_performance from the source that the crate rdkafka-sys brings along, once a version,
# in .local-deps/librdkafka-VERSION, and prints its path. About a minute on two cores.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)

source=$("$root/scripts/with-env" cargo metadata --manifest-path "$root/Cargo.toml" --locked --format-version 1 |
    tr ',' '\n' | sed -n 's#^"manifest_path":"\(.*/rdkafka-sys-[^"]*\)/Cargo.toml"$#\1#p' | head -n 1)
if [ -z "$source" ] || [ ! -d "$source/librdkafka" ]; then
    echo 'perf-client: cargo metadata names no rdkafka-sys with the source of librdkafka' >&2
    exit 1
fi

version=${source##*rdkafka-sys-}
built=$root/.local-deps/librdkafka-$version
if [ ! -x "$built/rdkafka_performance" ]; then
    echo "perf-client: building rdkafka_performance of rdkafka-sys $version in .local-deps" >&2
    mkdir -p "$built"
    # librdkafka's makefiles cannot build below a path with blanks.
    work=$(mktemp -d /tmp/finstream-librdkafka.XXXXXX)
    trap 'rm -rf "$work"' EXIT
    trap 'exit 130' INT TERM
    cp -R "$source/librdkafka" "$work/"
    chmod -R u+w "$work"
    (
        cd "$work/librdkafka"
        "$root/scripts/with-env" ./configure --disable-gssapi --disable-ssl --disable-curl --enable-static
        "$root/scripts/with-env" make -j "$(getconf _NPROCESSORS_ONLN)" libs
        "$root/scripts/with-env" make -C examples rdkafka_performance
    ) >"$built/build.log" 2>&1 || { echo "perf-client: the build failed: see $built/build.log" >&2; exit 1; }
    cp "$work/librdkafka/examples/rdkafka_performance" "$built/"
fi
printf '%s\n' "$built/rdkafka_performance"
