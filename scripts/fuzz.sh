#!/bin/sh
# Builds the fuzz targets of fuzz/ and runs each for some time, as many beside each other as there are cores.
#   scripts/fuzz.sh SECONDS [TARGET…]
# Stable Rust is enough: coverage comes from LLVM's pass, memory is counted by the targets themselves. What breaks a target
# is kept in fuzz/artifacts/TARGET; once it is mended, move it to fuzz/found/TARGET, which `cargo test` runs for ever.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
cd "$root"
seconds=$1
shift
[ "$#" -gt 0 ] || set -- request batch segment_recovery yfinance cards

host=$(scripts/with-env rustc -vV | sed -n 's/^host: //p')
built=${CARGO_TARGET_DIR:-target}/fuzz
coverage='-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters'
coverage="$coverage -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
echo "fuzz: building (the first time takes some minutes)" >&2
# A target is named so that the flags are not those of build scripts.
RUSTFLAGS="--cfg fuzzing $coverage" scripts/with-env cargo build --release --locked --quiet \
    --manifest-path fuzz/Cargo.toml --target "$host" --target-dir "$built"

# Runs one target; its output goes to a file of its own.
cat >"$built/run" <<RUN
#!/bin/sh
mkdir -p "fuzz/corpus/\$1" "fuzz/artifacts/\$1" "fuzz/found/\$1"
FINSTREAM_FUZZ_SEEDS="fuzz/corpus/\$1" "$built/$host/release/\$1" "fuzz/corpus/\$1" "fuzz/found/\$1" \
    -max_total_time=$seconds -timeout=10 -rss_limit_mb=2048 -max_len=32768 -artifact_prefix="fuzz/artifacts/\$1/" \
    -print_final_stats=1 >"$built/\$1.log" 2>&1
code=\$?
printf '\n== %s: ' "\$1"
[ "\$code" -eq 0 ] && echo 'nothing found' || echo "FOUND SOMETHING (exit code \$code), see $built/\$1.log"
grep -E 'DONE|SUMMARY|panicked|stat::(number_of_executed_units|average_exec_per_sec|peak_rss_mb)' "$built/\$1.log"
exit "\$code"
RUN
chmod +x "$built/run"
cores=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
echo "fuzz: $* for $seconds s each, $cores at a time" >&2
printf '%s\n' "$@" | xargs -P "$cores" -n 1 "$built/run"
