# shellcheck shell=sh disable=SC2154
# What scripts that install something share; sourced, never run. Who sources it sets `root` (the clone), `deps` (its
# .local-deps), `log` (output that matters only when a step fails) and `speaker` (whose name stands before each line).

say() { printf '%s: %s\n' "$speaker" "$*" >&2; }
die() {
    for line in "$@"; do
        say "$line"
    done
    exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

# Output that matters only when a step fails.
quietly() {
    mkdir -p "$deps"
    printf '\n$ %s\n' "$*" >>"$log"
    "$@" >>"$log" 2>&1
}

# Sets as_root to the command prefix that gives root's rights; fails where there is none.
find_root() {
    as_root=
    [ -z "${FINSTREAM_SETUP_LOCAL:-}" ] || return 1
    [ "$(id -u)" -ne 0 ] || return 0
    have sudo || return 1
    as_root=sudo
    if sudo -n true 2>/dev/null; then return 0; fi
    # A password may be asked for only where somebody can type it, and of whom it would help.
    { [ -t 0 ] && id -Gn | tr ' ' '\n' | grep -qxE 'sudo|wheel|admin'; } || return 1
    say "sudo asks for your password to install packages (Ctrl-C leaves everything as it is)"
    sudo -v
}

# Node.js with npm.
need_npm() {
    ! { have node && have npm; } || return 0
    { have apt-get && find_root; } || die 'no Node.js with npm (18 or newer): install it, then run this again'
    say 'installing Node.js and npm (apt-get)'
    apt_install nodejs npm || die "apt-get failed: see $log"
}

apt_install() {
    # An empty or old package list is the usual reason for a failure: fetch it and try once more.
    # shellcheck disable=SC2086 # empty, or the word sudo
    quietly $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" && return 0
    # shellcheck disable=SC2086
    quietly $as_root apt-get update -q || true
    # shellcheck disable=SC2086
    quietly $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@"
}
