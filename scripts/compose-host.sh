#!/bin/sh
# Prints the address of this host on which containers reach a finstream by the name host.docker.internal. Linux: that of Docker's
# bridge, which other machines have no route to. macOS: Docker Desktop leads to loopback.
set -eu
if [ "$(uname -s)" = Darwin ]; then
    echo 127.0.0.1
    exit
fi
bridge=$(ip -4 -o address show docker0 2>/dev/null | sed -n 's/.* inet \([0-9.]*\)\/.*/\1/p' | head -n 1) || true
# What Docker takes unless its settings say otherwise; not there before Docker runs.
echo "${bridge:-172.17.0.1}"
