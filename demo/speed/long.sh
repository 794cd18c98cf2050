#!/bin/bash
# A long log on three nodes: how fast it is written and read again, what it takes on disk and in memory, and how soon the nodes
# are back after kill -9.
#
# usage: demo/speed/long.sh [SECONDS [SIZE [FOLDER]]]      from the project's root, after `cargo build --release`
# SECONDS of publishing payloads of SIZE bytes.
set -euo pipefail

seconds=${1:-60} size=${2:-16} out=${3:-$(mktemp -d)}
vulpes=${VULPES:-$PWD/target/release/vulpes}
mkdir -p "$out"
cluster=
trap '[ -z "$cluster" ] || { kill "$cluster"; wait; } 2>/dev/null; rm -rf "$out/data"' EXIT
ports=(--peer-port 21735 --wamp-port 29031 --mqtt-port 21881 --admin-port 29081)
mqtt=127.0.0.1:21881,127.0.0.1:21882,127.0.0.1:21883

start() {
    "$vulpes" up --nodes 3 --data "$out/data" "${ports[@]}" >> "$out/log" 2>&1 &
    cluster=$!
    until "$vulpes" pub bench.ready 1 --node ws://127.0.0.1:29031/ > "$out/ready" 2>&1; do sleep 0.05; done
}

# The largest of the nodes' memories, in MiB: now (VmRSS) or at most so far (VmHWM).
memory() { grep -h "$1" $(pgrep -P "$cluster" | sed 's|.*|/proc/&/status|') | sort -k2n | awk 'END {print int($2 / 1024) " MiB"}'; }

start
"$vulpes" bench --targets $mqtt --replay --connections 9 --window 1024 --size "$size" --seconds "$seconds" --warmup 0 \
    --subscribers 1 --drain 600 | tee "$out/bench"
echo "messages    $("$vulpes" pub bench.ready 2 --node ws://127.0.0.1:29031/)"
echo "memory      $(memory VmRSS) a node, $(memory VmHWM) at most"
du -sm "$out"/data/*/ | awk '{print "disk        " $1 " MiB in " $2}'
pkill -KILL -P "$cluster"
wait "$cluster" 2>/dev/null || true
begun=$(date +%s.%N)
start
echo "restart     $(awk -v a="$begun" -v b="$(date +%s.%N)" 'BEGIN {printf "%.1f s", b - a}') after kill -9 of all nodes, to the next acknowledgement"
echo "memory      $(memory VmRSS) a node then"
