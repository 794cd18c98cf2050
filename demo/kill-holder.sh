#!/bin/bash
# Kills whoever holds the lock of resource-lock.supervisord.ini, or (with the argument `node`) the node it is at.
set -euo pipefail
cd "$(dirname "$0")/.."

control() { supervisorctl -c demo/resource-lock.supervisord.ini "$@"; }

# Any node that answers will do.
holder() {
    for port in 9031 9032 9033; do
        target/release/vulpes get demo.resource --json --node "ws://127.0.0.1:$port/" 2>/dev/null |
            sed -n 's/.*"holder":"\([ABC]\)".*/\1/p' && return
    done
}

name=$(holder)
until [ -n "$name" ]; do name=$(holder); done
case "${1:-client}" in
    client) victim=$name ;;
    node) victim=N$(printf '%s' "$name" | tr ABC 123) ;;
    *) echo "usage: kill-holder.sh [client|node]" >&2; exit 2 ;;
esac
echo "$(date -u +%T.%3N)  $name holds the resource; killing $victim"
control signal KILL "$victim"
