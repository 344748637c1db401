#!/bin/sh
# Makes sure of what the page's tests need: a headless Chromium, a typeface for the screenshots, Node with npm, and
# axe-core (a package of npm, checked against its checksum) in .local-deps/axe-core. Says in one line each what it does,
# does nothing where nothing is missing.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
deps=$root/.local-deps
# shellcheck disable=SC2034 # packages.sh reads these
log=$deps/browser-setup.log
# shellcheck disable=SC2034
speaker=browser
axe_version=4.14.1
axe_sha512=1477dafa598d8d065f273d6af302aa203c02e83131707b7fa648cd41bd3d6b734f8c22a0dab86ee6a6f64b8afbe804b214d36db85a2826965edfb3a0b9d546b5

# shellcheck disable=SC1091
. "$root/scripts/packages.sh"

# The names under which tests/page/browser.rs looks.
browser_is_here() {
    [ -z "${FINSTREAM_BROWSER:-}" ] || [ -x "$FINSTREAM_BROWSER" ] || die "FINSTREAM_BROWSER is $FINSTREAM_BROWSER, which cannot be run"
    [ -z "${FINSTREAM_BROWSER:-}" ] || return 0
    have chromium-headless-shell || have chromium || have chromium-browser || have google-chrome ||
        [ -x "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome" ] ||
        [ -x /Applications/Chromium.app/Contents/MacOS/Chromium ]
}

get_browser() {
    if [ "$(uname -s)" = Darwin ]; then
        die 'no Chromium or Chrome: install one (brew install --cask google-chrome), or set FINSTREAM_BROWSER'
    elif have apt-get && find_root; then
        # Its part without windows, where there is one: it needs no desktop's libraries.
        package=chromium
        apt-cache show chromium-headless-shell >/dev/null 2>&1 && package=chromium-headless-shell
        say "installing a headless browser (apt-get install $package fonts-inter)"
        apt_install "$package" || die "apt-get failed: see $log"
        # Screenshots only; the page does without.
        apt_install fonts-inter || true
    else
        die 'no Chromium: install it (Debian: apt-get install chromium-headless-shell), or set FINSTREAM_BROWSER'
    fi
    browser_is_here || die "no browser is found still: see $log"
}

sha512_of() { if have sha512sum; then sha512sum "$1"; else shasum -a 512 "$1"; fi | cut -d ' ' -f 1; }

get_axe() {
    need_npm
    say "fetching axe-core $axe_version from npm into .local-deps/axe-core"
    new=$(mktemp -d "$deps/axe-core.new.XXXXXX")
    trap 'rm -rf "$new"' EXIT
    (cd "$new" && quietly npm pack --silent "axe-core@$axe_version") || die "npm cannot fetch it: see $log"
    packed=$new/axe-core-$axe_version.tgz
    found=$(sha512_of "$packed")
    [ "$found" = "$axe_sha512" ] || die "axe-core-$axe_version.tgz has the checksum $found, not $axe_sha512: it is not used"
    tar -xzf "$packed" -C "$new" package/axe.min.js package/LICENSE
    printf '%s\n' "$axe_version" >"$new/package/version"
    rm -rf "$deps/axe-core"
    mv "$new/package" "$deps/axe-core"
}

mkdir -p "$deps"
browser_is_here || get_browser
[ "$(cat "$deps/axe-core/version" 2>/dev/null)" = "$axe_version" ] || get_axe
