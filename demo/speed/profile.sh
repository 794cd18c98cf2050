#!/bin/bash
# Where the time of three nodes on one machine goes: syncs, writes and processor time, by window, on the disk and in memory.
# Needs Linux's perf, and root or a kernel.perf_event_paranoid that allows it.
#
# usage: demo/speed/profile.sh [SECONDS [FOLDER]]      from the project's root, after `cargo build --release`
set -euo pipefail

seconds=${1:-4} out=${2:-$(mktemp -d)}
vulpes=${VULPES:-$PWD/target/release/vulpes}
command -v perf > /dev/null || { echo "perf is not installed" >&2; exit 1; }
mkdir -p "$out"
cluster= memory=
if [ -d /dev/shm ]; then memory=$(mktemp -d /dev/shm/vulpes-profile.XXXXXX); fi
trap '[ -z "$cluster" ] || { kill "$cluster"; wait; } 2>/dev/null; rm -rf "$out/data" "$memory"' EXIT

# Processors that were used in the middle.
cores() { awk -F, '$3 ~ "task-clock" {print $6}' "$out/stat"; }

# Times an event was counted, a second. perf tells the processor time meanwhile, in nanoseconds.
counted() { awk -F, -v name="$1" -v cores="$(cores)" '$3 ~ name {print $1 / $4 * 1e9 * cores}' "$out/stat"; }

# The share of the samples that threads of a name took.
share() { awk -v name="$1" '$2 == name {printf "%s", $1}' "$out/threads"; }

profile() { # NAME FOLDER
    "$vulpes" up --nodes 3 --data "$2" --peer-port 21735 --wamp-port 29031 --mqtt-port 21881 --admin-port 29081 \
        > "$out/$1.log" 2>&1 &
    cluster=$!
    for _ in $(seq 100); do
        "$vulpes" pub bench.ready 1 --node ws://127.0.0.1:29031/ > /dev/null 2>&1 && break
        sleep 0.2
    done
    nodes=$(pgrep -P "$cluster" | paste -sd, -) || { echo "the nodes have ended; see $out/$1.log" >&2; exit 1; }
    for window in 1 64 256 1024; do
        "$vulpes" bench --targets 127.0.0.1:21881,127.0.0.1:21882,127.0.0.1:21883 --connections 9 --window "$window" \
            --subscribers 0 --seconds $((seconds + 2)) --warmup 1 > "$out/bench" 2>&1 &
        bench=$!
        sleep 2
        perf record -q -o "$out/perf" -F 997 -p "$nodes" -- \
            perf stat -x, -o "$out/stat" -e task-clock,syscalls:sys_enter_fdatasync,syscalls:sys_enter_pwrite64 \
            -p "$nodes" -- sleep "$seconds" > /dev/null 2>&1
        wait "$bench"
        perf report -i "$out/perf" --no-children -g none --sort comm 2>/dev/null | grep -v '^#' > "$out/threads"
        awk -v name="$1" -v window="$window" -v cores="$(cores)" \
            -v syncs="$(counted fdatasync)" -v writes="$(counted pwrite)" \
            -v tasks="$(share tokio-rt-worker)" -v commits="$(share commit)" '
            /acknowledged a second/ {rate = $2}
            /p50/ && !p50 {p50 = $2}
            END {printf "| %s | %d | %d | %s ms | %d | %d | %.2f | %s | %s |\n",
                name, window, rate, p50, syncs, writes, cores, tasks, commits}' "$out/bench"
    done
    kill "$cluster"; wait "$cluster" 2>/dev/null || true
    cluster=
    rm -rf "$2"
}

echo "| data on | in flight | acks/s | p50 | syncs/s | writes/s | cores | tasks | commits |"
echo "|---|---|---|---|---|---|---|---|---|"
profile disk "$out/data"
[ -z "$memory" ] || profile memory "$memory/data"
