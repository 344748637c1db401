#!/bin/sh
# Makes what others install, and looks whether it works: the crate as `cargo install` gets it is unpacked and compiled, the Debian
# package is unpacked and asked for its version, manual pages and completions.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
cd "$root"
fail() {
    echo "package-check: $*" >&2
    exit 1
}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)

# First, while the binary is the one that is built here already.
scripts/deb.sh --quiet
package=$(ls -t target/debian/finstream_*.deb | head -n 1)
unpacked=target/debian/unpacked
rm -rf "$unpacked"
dpkg-deb --extract "$package" "$unpacked"
[ "$("$unpacked/usr/bin/finstream" --version)" = "finstream $version" ] || fail 'the binary of the package says another version'
for file in usr/share/man/man1/finstream.1.gz usr/share/man/man1/finstream-verify.1.gz \
    usr/share/bash-completion/completions/finstream usr/lib/systemd/system/finstream.service usr/lib/sysusers.d/finstream.conf \
    etc/default/finstream; do
    [ -s "$unpacked/$file" ] || fail "the package has no $file"
done
dpkg-deb --info "$package" postinst | grep -q systemd-sysusers || fail 'the package does not make the user of its service'
dpkg-deb --field "$package" Depends | grep -q libc6 || fail 'the package does not say what it needs'

scripts/with-env cargo package --locked --allow-dirty --no-verify --quiet
rm -rf target/package/unpacked
mkdir -p target/package/unpacked
tar -xzf "target/package/finstream-$version.crate" -C target/package/unpacked
crate=$root/target/package/unpacked/finstream-$version
for secret in .secrets .local-deps finstream-data target; do
    [ ! -e "$crate/$secret" ] || fail "the crate holds $secret"
done
# Checked, not built: the code is what was built here, what may be missing is a file. The dependencies' part is there from clippy.
(cd "$crate" && CARGO_TARGET_DIR="$root/target" "$root/scripts/with-env" cargo check --release --locked --bin finstream --quiet)

echo "package-check: finstream-$version.crate and $(basename "$package") are well"
