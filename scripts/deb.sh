#!/bin/sh
# Makes a Debian package of the release binary, with manual pages, completions and a systemd unit: target/debian/*.deb.
# cargo-deb is built into .local-deps where it is missing (two minutes).
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
cd "$root"
tool=$root/.local-deps/cargo-deb/bin/cargo-deb
if command -v cargo-deb >/dev/null 2>&1; then
    tool=$(command -v cargo-deb)
elif [ ! -x "$tool" ]; then
    echo 'deb: installing cargo-deb into .local-deps/cargo-deb' >&2
    scripts/with-env cargo install cargo-deb --version 3.8.0 --locked --quiet --debug --root "$root/.local-deps/cargo-deb"
fi
scripts/with-env cargo build --release --locked --bin finstream
made=target/packaging
rm -rf "$made"
mkdir -p "$made/man"
finstream=target/release/finstream
"$finstream" man >"$made/man/finstream.1"
for command in verify sql dead-letters reset schema completions man; do
    "$finstream" man "$command" >"$made/man/finstream-$command.1"
done
for shell in bash zsh fish; do
    "$finstream" completions "$shell" >"$made/finstream.$shell"
done
scripts/with-env "$tool" --no-build --output target/debian/ "$@"
