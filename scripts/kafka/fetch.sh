#!/bin/sh
# Makes sure of what it takes to run Apache Kafka here: Java 17 or later, and Kafka's jars in .local-deps/kafka (55 MB
# from Maven Central, by way of Maven and pom.xml beside this file). Does nothing where nothing is missing; says in one
# line each what it does. Prints the path of java.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
root=$(CDPATH='' cd -- "$here/../.." && pwd -P)
deps=$root/.local-deps
log=$deps/kafka-setup.log
# shellcheck disable=SC2034 # packages.sh reads it
speaker=kafka
java_version_min=17

# shellcheck disable=SC1091
. "$root/scripts/packages.sh"

by_hand='as root or with sudo, install Java 17 or later and Maven, then try again
  Debian   apt-get install openjdk-17-jre-headless maven
  Fedora   dnf install java-21-openjdk-headless maven
  Arch     pacman -S jre21-openjdk-headless maven
  Alpine   apk add openjdk21-jre-headless maven bash'

# macOS has a /usr/bin/java that only says that there is none, so it must run and name its version.
is_java() {
    major=$("$1" -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p' | head -n 1)
    [ -n "$major" ] && [ "$major" -ge "$java_version_min" ]
}

# Sets java to a path that runs.
find_java() {
    for java in "${JAVA_HOME:+$JAVA_HOME/bin/java}" "$(command -v java || true)" /usr/lib/jvm/*/bin/java \
        /opt/homebrew/opt/openjdk*/bin/java /usr/local/opt/openjdk*/bin/java; do
        if [ -x "$java" ] && is_java "$java"; then return 0; fi
    done
    return 1
}

# install WHAT DEBIAN_PACKAGE BREW_FORMULA
install() {
    if [ "$(uname -s)" = Darwin ]; then
        have brew || die "no $1: install Homebrew (https://brew.sh) and try again"
        say "installing $1 (brew install $3)"
        quietly brew install "$3" || die "brew failed: see $log"
    elif have apt-get && find_root; then
        say "installing $1 (apt-get install $2)"
        apt_install "$2" || die "apt-get failed: see $log"
    else
        die "no $1, and no root's rights or no apt-get to install it" "$by_hand"
    fi
}

get_java() {
    find_java && return 0
    # Debian 12 has 17; later releases have a later one under the name of their default.
    package=default-jre-headless
    apt-cache show openjdk-17-jre-headless >/dev/null 2>&1 && package=openjdk-17-jre-headless
    install "Java" "$package" openjdk@17
    find_java || die "no Java $java_version_min or later is found still: see $log" "$by_hand"
}

# A folder of this version and this pom; an interrupted download starts afresh.
get_jars() {
    wanted=$(cksum <"$here/pom.xml")
    [ "$(cat "$deps/kafka/pom.cksum" 2>/dev/null)" != "$wanted" ] || return 0
    have mvn || install "Maven" maven maven
    version=$(sed -n 's#.*<kafka.version>\(.*\)</kafka.version>.*#\1#p' "$here/pom.xml")
    say "fetching the jars of Apache Kafka $version from Maven Central into .local-deps/kafka"
    new=$(mktemp -d "$deps/kafka.new.XXXXXX")
    if ! JAVA_HOME=${java%/bin/java} quietly mvn --batch-mode --file "$here/pom.xml" \
        org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
        -DincludeScope=runtime -DoutputDirectory="$new/lib"; then
        rm -rf "$new"
        die "the jars cannot be fetched: see $log"
    fi
    printf '%s\n' "$version" >"$new/version"
    printf '%s\n' "$wanted" >"$new/pom.cksum"
    rm -rf "$deps/kafka"
    mv "$new" "$deps/kafka"
}

mkdir -p "$deps"
rm -f "$log"
get_java
get_jars
printf '%s\n' "$java"
