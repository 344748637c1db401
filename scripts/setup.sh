#!/bin/sh
# Makes sure of what finstream needs besides Rust: a C and C++ compiler, make, zlib's headers (librdkafka is compiled
# from source) and PostgreSQL's server binaries (finstream starts a private cluster of its own). Says in one line each
# what it does, does nothing where nothing is missing, and never touches a PostgreSQL that runs.
#
#   root, or a user with sudo   installs packages with the system's package manager
#   a user without sudo         unpacks Debian packages into .local-deps/ inside of this clone (scripts/with-env uses it)
#   macOS                       Homebrew
#
# FINSTREAM_SETUP_LOCAL=1 unpacks even where packages could be installed. FINSTREAM_PG_BIN names a folder with PostgreSQL's
# binaries, and settles that part.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
deps=$root/.local-deps
log=$deps/setup.log
apt_lists=
cluster_conf=/etc/postgresql-common/createcluster.conf
cluster_conf_saved=

# shellcheck disable=SC2034 # packages.sh reads it
speaker=setup
# shellcheck disable=SC1091
. "$root/scripts/packages.sh"

# ---- Rust ----------------------------------------------------------------------------------------------------------

version_number() { printf '%s' "$1" | awk -F. '{ printf "%d", $1 * 1000000 + $2 * 1000 + $3 }'; }

check_rust() {
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml")
    "$root/scripts/with-env" sh -c 'command -v cargo' >/dev/null 2>&1 ||
        die "cargo is not here: install Rust $wanted or later, see https://rustup.rs, then try again"
    found=$("$root/scripts/with-env" rustc --version 2>/dev/null | awk '{ sub(/-.*/, "", $2); print $2 }')
    [ -n "$found" ] || die "rustc does not run: \`rustc --version\` says why; \`rustup default stable\` often cures it"
    [ "$(version_number "$found")" -ge "$(version_number "$wanted")" ] ||
        die "Rust $found is too old, $wanted or later is needed: \`rustup update stable\`, then try again"
}

# ---- What is here --------------------------------------------------------------------------------------------------

# Compiles and links what librdkafka needs; a compiler that is there but cannot link counts as missing.
toolchain_works() {
    "$root/scripts/with-env" sh -c 'command -v make' >/dev/null 2>&1 || return 1
    try=$(mktemp -d "${TMPDIR:-/tmp}/finstream-setup.XXXXXX")
    printf '#include <stdio.h>\n#include <zlib.h>\nint main(void) { return puts(zlibVersion()) < 0; }\n' >"$try/try.c"
    printf '#include <string>\nint main() { return std::string("a").size() != 1; }\n' >"$try/try.cpp"
    works=1
    quietly "$root/scripts/with-env" cc "$try/try.c" -o "$try/c" -lz &&
        quietly "$root/scripts/with-env" c++ "$try/try.cpp" -o "$try/cpp" && works=0
    rm -rf "$try"
    return "$works"
}

is_pg_bin() { [ -x "$1/initdb" ] && [ -x "$1/postgres" ]; }

# The places where finstream itself looks.
postgres_is_here() {
    if [ -n "${FINSTREAM_PG_BIN:-}" ]; then
        is_pg_bin "$FINSTREAM_PG_BIN" ||
            die "FINSTREAM_PG_BIN is $FINSTREAM_PG_BIN, which holds no initdb and postgres: correct it or unset it"
        return 0
    fi
    is_pg_bin "$deps/postgres/bin" && return 0
    [ -z "${FINSTREAM_SETUP_LOCAL:-}" ] || return 1
    have initdb && have postgres && return 0
    have pg_config && is_pg_bin "$(pg_config --bindir)" && return 0
    for bin in /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /opt/homebrew/opt/postgresql*/bin /usr/local/opt/postgresql*/bin; do
        is_pg_bin "$bin" && return 0
    done
    return 1
}

# ---- Installing with root's rights ---------------------------------------------------------------------------------

# Debian's package creates and starts a cluster on port 5432 unless it is told not to, for this one installation.
forbid_main_cluster() {
    $as_root mkdir -p "$(dirname "$cluster_conf")"
    if [ -e "$cluster_conf" ]; then
        cluster_conf_saved=$(mktemp "${TMPDIR:-/tmp}/finstream-createcluster.XXXXXX")
        cat "$cluster_conf" >"$cluster_conf_saved"
    fi
    printf 'create_main_cluster = false\n' | $as_root tee -a "$cluster_conf" >/dev/null
    trap restore_main_cluster EXIT
    trap 'exit 130' INT TERM
}

# Puts back what was there, or the package's own default: the next installation by a person behaves as usual.
restore_main_cluster() {
    trap - EXIT
    if [ -n "$cluster_conf_saved" ]; then
        $as_root cp "$cluster_conf_saved" "$cluster_conf"
        rm -f "$cluster_conf_saved"
    elif [ -e /usr/share/postgresql-common/createcluster.conf ]; then
        $as_root cp /usr/share/postgresql-common/createcluster.conf "$cluster_conf"
    else
        $as_root rm -f "$cluster_conf"
    fi
}

# ---- Unpacking without root's rights -------------------------------------------------------------------------------

# apt with lists of our own where the system's are missing or too old to download from.
apt() {
    tool=$1
    shift
    if [ -z "$apt_lists" ]; then
        "$tool" -o Debug::NoLocking=1 "$@"
    else
        "$tool" -o Debug::NoLocking=1 -o APT::Sandbox::User=root -o Dir::State::lists="$apt_lists/lists" \
            -o Dir::Cache="$apt_lists/cache" "$@"
    fi
}

own_lists() {
    apt_lists=$deps/apt
    mkdir -p "$apt_lists/lists/partial" "$apt_lists/cache/archives/partial"
    # A foreign repository that does not answer must not hold us up; what counts is whether packages are found.
    quietly apt apt-get -o Acquire::Retries=1 -o Acquire::http::Timeout=20 update -q || true
}

# Packages that "$@" need and the system lacks, less those that match the pattern $1. Upgrades are left alone: a newer
# C library beside the system's own loader would break every program.
missing_packages() {
    without=$1
    shift
    apt apt-get -s install --no-install-recommends "$@" 2>>"$log" |
        awk '$1 == "Inst" && $3 !~ /^\[/ { print $2 }' | grep -vE "$without"
}

# unpack NAME PATTERN PACKAGE…: downloads and unpacks into .local-deps/NAME.new
unpack() {
    name=$1
    without=$2
    shift 2
    debs=$deps/debs-$name
    rm -rf "$debs" "$deps/$name.new"
    mkdir -p "$debs" "$deps/$name.new"
    packages=$(missing_packages "$without" "$@") || return 1
    # shellcheck disable=SC2086 # one word a package
    (cd "$debs" && quietly apt apt-get download -q $packages) || return 1
    for deb in "$debs"/*.deb; do
        quietly dpkg -x "$deb" "$deps/$name.new" || return 1
    done
    rm -rf "$debs"
}

unpack_or_update() {
    have apt-get && have dpkg || return 1
    unpack "$@" && return 0
    own_lists
    unpack "$@"
}

unpack_toolchain() {
    unpack_or_update toolchain '^(libc6|libc-bin)$' gcc g++ make libc6-dev zlib1g-dev pkg-config || return 1
    new=$deps/toolchain.new
    arch=$(dpkg-architecture -qDEB_HOST_MULTIARCH 2>/dev/null || find "$new/usr/include" -maxdepth 1 -name '*-linux-*' |
        sed -n '1s#.*/##p')
    printf '%s\n' "$arch" >"$new/multiarch"
    # Debian makes these names when a package is configured, which unpacking does not do.
    [ -e "$new/usr/bin/cc" ] || [ ! -e "$new/usr/bin/gcc" ] || ln -s gcc "$new/usr/bin/cc"
    [ -e "$new/usr/bin/c++" ] || [ ! -e "$new/usr/bin/g++" ] || ln -s g++ "$new/usr/bin/c++"
    # Linker scripts name their parts by absolute path; by bare name they are found on the library path.
    for script in "$new/usr/lib/$arch"/*.so; do
        if [ -f "$script" ] && [ ! -L "$script" ] && head -c 64 "$script" | grep -q 'GNU ld script'; then
            sed "s#/usr/lib/$arch/##g; s#/lib/$arch/##g; s#/lib64/##g" "$script" >"$script.bare"
            mv "$script.bare" "$script"
        fi
    done
    rm -rf "$deps/toolchain"
    mv "$new" "$deps/toolchain"
}

unpack_postgres() {
    have apt-get || return 1
    package=$(apt apt-cache depends postgresql 2>/dev/null | sed -n 's/.*Depends: \(postgresql-[0-9]*\)$/\1/p' | head -n 1)
    if [ -z "$package" ]; then
        own_lists
        package=$(apt apt-cache depends postgresql 2>/dev/null | sed -n 's/.*Depends: \(postgresql-[0-9]*\)$/\1/p' | head -n 1)
    fi
    [ -n "$package" ] || return 1
    # Only the server, the client and shared libraries. LLVM (100 MB) serves the just-in-time compiler only, Perl
    # Debian's wrappers, locales the languages of messages.
    unpack_or_update postgres '^(locales|locales-all|perl.*|libperl.*|lib.*-perl|libllvm.*|libgdbm.*|postgresql-common.*|postgresql-client-common|ssl-cert|openssl|netbase|ucf|debconf|sensible-utils|adduser|logrotate|cron.*|init-system-helpers|sysvinit.*|lsb-.*|tzdata)$' \
        "$package" || return 1
    new=$deps/postgres.new
    major=${package#postgresql-}
    real=usr/lib/postgresql/$major/bin
    is_pg_bin "$new/$real" || return 1
    # Without LLVM the compiler's module cannot be loaded; where the module is missing PostgreSQL goes without it.
    rm -f "$new/usr/lib/postgresql/$major/lib/llvmjit.so"
    mkdir "$new/bin"
    # Wrappers, so that the libraries are found however finstream is started.
    for program in "$new/$real"/*; do
        wrapper=$new/bin/$(basename "$program")
        cat >"$wrapper" <<WRAPPER
#!/bin/sh
base=\$(CDPATH='' cd -- "\$(dirname -- "\$0")/.." && pwd -P)
for lib in "\$base"/usr/lib/*-linux-* "\$base"/lib/*-linux-*; do
    [ ! -d "\$lib" ] || LD_LIBRARY_PATH=\$lib\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}
done
[ -z "\${LD_LIBRARY_PATH:-}" ] || export LD_LIBRARY_PATH
exec "\$base/$real/$(basename "$program")" "\$@"
WRAPPER
        chmod 755 "$wrapper"
    done
    # The server must run before the folder gets its name: an interrupted set-up starts afresh.
    quietly "$new/bin/postgres" --version && quietly "$new/bin/psql" --version || return 1
    rm -rf "$deps/postgres"
    mv "$new" "$deps/postgres"
}

# ---- What to do ----------------------------------------------------------------------------------------------------

by_hand='install a C and C++ compiler, make, the headers of zlib, and the PostgreSQL server (13 or later)
setup:   Fedora   sudo dnf install gcc gcc-c++ make zlib-devel postgresql-server
setup:   Arch     sudo pacman -S base-devel zlib postgresql
setup:   Alpine   sudo apk add build-base zlib-dev bash postgresql
setup: or name a folder with its binaries: FINSTREAM_PG_BIN=/path/to/bin'

get_toolchain() {
    if [ "$(uname -s)" = Darwin ]; then
        die "no working C compiler: run \`xcode-select --install\`, then try again"
    elif have apt-get && find_root; then
        say "installing a C and C++ compiler, make and zlib's headers (apt-get)"
        apt_install gcc g++ make libc6-dev zlib1g-dev pkg-config || die "apt-get failed: see $log"
    elif have apt-get && have dpkg; then
        say "no root's rights: unpacking a C and C++ compiler, make and zlib's headers into .local-deps/toolchain"
        unpack_toolchain || die "the packages cannot be downloaded or unpacked: see $log" "$by_hand"
    else
        die "no working C compiler, make or zlib headers" "$by_hand"
    fi
    toolchain_works || die "a C program with zlib still does not compile or link: see $log"
}

get_postgres() {
    if [ "$(uname -s)" = Darwin ]; then
        have brew || die "no PostgreSQL: install Homebrew (https://brew.sh) and try again, or set FINSTREAM_PG_BIN"
        say "installing PostgreSQL's binaries (brew install postgresql@17; no service is started)"
        quietly brew install postgresql@17 || die "brew failed: see $log"
    elif have apt-get && find_root; then
        say "installing PostgreSQL's server binaries (apt-get); no cluster is created, nothing is started"
        forbid_main_cluster
        if ! apt_install postgresql; then
            restore_main_cluster
            die "apt-get failed: see $log"
        fi
        restore_main_cluster
    elif have apt-get && have dpkg; then
        say "no root's rights: unpacking PostgreSQL's server binaries into .local-deps/postgres"
        unpack_postgres || die "the packages cannot be downloaded or unpacked: see $log" "$by_hand"
    else
        die "no PostgreSQL server binaries" "$by_hand"
    fi
    postgres_is_here || die "PostgreSQL's initdb and postgres are still not found: see $log"
}

rm -f "$log"
check_rust
toolchain_works || get_toolchain
postgres_is_here || get_postgres
