#!/usr/bin/env bash
# Runs one Apache Kafka node (KRaft, broker and controller in one) on free ports of 127.0.0.1 until Ctrl-C or SIGTERM.
#
#   scripts/kafka/run.sh [--dir DIR] [--ready-file FILE] [--property KEY=VALUE]…
#
#   --dir DIR           keep data, settings and log there [default: a temporary folder, removed at the end]
#   --ready-file FILE   when it answers, write {"bootstrap":"127.0.0.1:PORT","pid":PID,"version":"4.x, Java 17.y"} there
#   --property K=V      a line of server.properties, for example log.flush.interval.messages=1
#
# Fetches what is missing first (fetch.sh). Everything is Kafka's default but what one node needs, and what a test can
# do without: 6 partitions for a new topic, no delay before a group's first rebalance.
# Heap and collector are those of Kafka's own start script.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
root=$(CDPATH='' cd -- "$here/../.." && pwd -P)
jars=$root/.local-deps/kafka
heap=(-Xmx1G -Xms1G)
collector=(-server -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -XX:InitiatingHeapOccupancyPercent=35
    -XX:+ExplicitGCInvokesConcurrent)
start_seconds_max=90

dir=
ready_file=
properties=()
server=
temporary=

say() { printf 'kafka: %s\n' "$*" >&2; }
die() {
    say "$@"
    exit 1
}

while [ $# -gt 0 ]; do
    case $1 in
    --dir | --ready-file | --property)
        [ $# -ge 2 ] || die "$1 needs a value"
        case $1 in
        --dir) dir=$2 ;;
        --ready-file) ready_file=$2 ;;
        --property) properties+=("$2") ;;
        esac
        shift 2
        ;;
    --help)
        sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
        exit 0
        ;;
    *) die "unknown argument $1: --help says which there are" ;;
    esac
done

# Ends our server, waits until it is gone, and leaves only what was asked for.
clean_up() {
    trap - EXIT
    trap '' INT TERM HUP
    if [ -n "$server" ]; then
        kill "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
    fi
    [ -z "$ready_file" ] || rm -f "$ready_file"
    [ -z "$temporary" ] || rm -rf "$temporary"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# Below the ports that systems give to outgoing connections, so that none of those takes it meanwhile.
free_port() {
    local port
    while :; do
        port=$((20000 + RANDOM % 10000))
        (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
    done
    printf '%s' "$port"
}

# An ApiVersions request (key 18, version 0, correlation id 1, no client id) is answered.
answers() {
    local length
    length=$({
        exec 3<>"/dev/tcp/127.0.0.1/$1" &&
            printf '\000\000\000\012\000\022\000\000\000\000\000\001\377\377' >&3 && head -c 4 <&3 | wc -c
    } 2>/dev/null) || return 1
    [ "$((length))" -eq 4 ]
}

write_settings() {
    {
        cat <<SETTINGS
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller_port
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller_port
advertised.listeners=PLAINTEXT://127.0.0.1:$port
controller.listener.names=CONTROLLER
log.dirs=$dir/data
num.partitions=6
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
SETTINGS
        # (bash 3.2 calls an empty array unbound.)
        [ "${#properties[@]}" -eq 0 ] || printf '%s\n' "${properties[@]}"
    } >"$dir/server.properties"
}

# 16 bytes as Kafka writes an id: 22 letters, of which the last holds 2 bits.
cluster_id() { printf '%sA' "$(LC_ALL=C tr -dc 'A-Za-z0-9' </dev/urandom 2>/dev/null | head -c 21)"; }

# Starts the server; fails when it ended before it answered.
start() {
    port=$(free_port)
    controller_port=$(free_port)
    [ "$port" != "$controller_port" ] || return 1
    write_settings
    # It is looked into before the server has made it, and must not hold what an earlier one wrote.
    : >"$dir/server.log"
    if [ ! -e "$dir/data/meta.properties" ]; then
        "$java" -cp "$jars/lib/*" -Dlog4j2.configurationFile="$here/log4j2.properties" kafka.tools.StorageTool format \
            --cluster-id "$(cluster_id)" --config "$dir/server.properties" >"$dir/format.log" 2>&1 ||
            die "storage cannot be formatted: $(tail -n 3 "$dir/format.log")"
    fi
    "$java" "${heap[@]}" "${collector[@]}" -Djava.awt.headless=true -cp "$jars/lib/*" \
        -Dlog4j2.configurationFile="$here/log4j2.properties" kafka.Kafka "$dir/server.properties" \
        >"$dir/server.log" 2>&1 </dev/null &
    server=$!
    local until=$((SECONDS + start_seconds_max))
    until grep -q 'Kafka Server started' "$dir/server.log" && answers "$port"; do
        if ! kill -0 "$server" 2>/dev/null; then
            server=
            return 1
        fi
        [ "$SECONDS" -lt "$until" ] ||
            die "no answer after $start_seconds_max s: $(tail -n 3 "$dir/server.log")"
        sleep 0.2
    done
}

java=$("$here/fetch.sh")
if [ -z "$dir" ]; then
    temporary=$(mktemp -d "${TMPDIR:-/tmp}/finstream-kafka.XXXXXX")
    dir=$temporary
fi
mkdir -p "$dir"
dir=$(CDPATH='' cd -- "$dir" && pwd -P)

# Somebody else may take a port between the look and the start.
tries=1
until start; do
    [ "$tries" -lt 3 ] || die "the server does not start: $(tail -n 3 "$dir/server.log")"
    tries=$((tries + 1))
done

java_version=$("$java" -version 2>&1 | sed -n 's/.* version "\([^"]*\)".*/\1/p' | head -n 1)
version="$(cat "$jars/version"), Java $java_version"
if [ -n "$ready_file" ]; then
    printf '{"bootstrap":"127.0.0.1:%s","pid":%s,"version":"%s"}\n' "$port" "$server" "$version" >"$ready_file.new"
    mv "$ready_file.new" "$ready_file"
fi
say "Apache Kafka $version, answers on 127.0.0.1:$port (data in $dir); Ctrl-C stops it"
wait "$server" || die "the server ended by itself: $(tail -n 3 "$dir/server.log")"
