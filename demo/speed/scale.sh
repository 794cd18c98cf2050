#!/bin/bash
# How Vulpes' figures change with window, connections, payload size, subscribers, with 1, 3 and 5 nodes, with split roles, and
# with two storage groups: a table and a picture each. Takes about fifteen minutes with the defaults.
#
# usage: demo/speed/scale.sh [SECONDS [ROUNDS [FOLDER]]]      from the project's root, after `cargo build --release`
set -euo pipefail

seconds=${1:-3} rounds=${2:-3} out=${3:-$(mktemp -d)}
vulpes=${VULPES:-$PWD/target/release/vulpes}
mkdir -p "$out"
data=$(mktemp -d "$out/data.XXXXXX")
pids=()
stop() {
    kill "${pids[@]}" 2>/dev/null || true
    wait
    pids=()
}
trap 'stop; rm -rf "$data"' EXIT

# Starts a cluster of so many nodes, whose ports begin at so many hundreds.
cluster() {
    local nodes=$1 port=$2
    "$vulpes" up --nodes "$nodes" --data "$data/$nodes" --peer-port $((port + 35)) --wamp-port $((port + 50)) \
        --mqtt-port $((port + 81)) --admin-port $((port + 10)) > "$data/$nodes.log" 2>&1 &
    pids+=($!)
    answers $((port + 50))
}

# Whether a publish to this WAMP port is acknowledged within 20 seconds.
answers() {
    for _ in $(seq 100); do
        if "$vulpes" pub bench.ready 1 --node "ws://127.0.0.1:$1/" > /dev/null 2>&1; then return; fi
        sleep 0.2
    done
    echo "the nodes behind port $1 do not answer; see $data/*.log" >&2
    return 1
}

# Starts nine nodes with one role each, as demo/config has them; their ports have a 2 in front. MQTT is at 21881 to 21883.
split_roles() {
    local file
    mkdir -p "$data/config"
    for file in demo/config/[seh]?.toml; do
        sed -E 's/127\.0\.0\.1:([0-9]+)/127.0.0.1:2\1/' "$file" > "$data/config/${file##*/}"
        "$vulpes" node --config "$data/config/${file##*/}" > "$data/${file##*/}.log" 2>&1 &
        pids+=($!)
    done
    answers 29031
}

# Starts six nodes, all of them storages and entries and the first three sync members, in two groups or in one. The ports of
# these have a 1 in front, of those a 3.
six() {
    local groups=$1 front=$2 file
    "$vulpes" init --open --nodes 3 --groups 2 --dir "$data/six$groups" --peer-port "${front}1735" --wamp-port "${front}9031" \
        --mqtt-port "${front}1881" --admin-port "${front}9081" > /dev/null
    for file in "$data/six$groups"/node?.toml; do
        if [ "$groups" = 1 ]; then sed -i '/^group = /d' "$file"; fi
        "$vulpes" node --config "$file" > "${file%.toml}.log" 2>&1 &
        pids+=($!)
    done
    answers "${front}9031"
}

compare() {
    local name=$1
    shift
    echo "== $name"
    "$vulpes" bench compare --rounds "$rounds" --seconds "$seconds" --fsync-dir "$data" --svg "$out/$name.svg" "$@" \
        2>> "$out/rounds.log" | tee "$out/$name.txt"
}

cluster 3 21300
three=127.0.0.1:21381,127.0.0.1:21382,127.0.0.1:21383
mqtt="mqtt=$three"
wamp="wamp=ws://127.0.0.1:21350/,ws://127.0.0.1:21351/,ws://127.0.0.1:21352/"
compare window --target "$mqtt" --target "$wamp" --vary window=1,4,16,64,256,1024
compare connections --target "$mqtt" --target "$wamp" --vary connections=1,10,100,1000,5000 --window 4
compare size --target "$mqtt" --target "$wamp" --vary size=16,128,1024,16384,131072,1048576 --window 4 --subscribers 1
compare subscribers --target "$mqtt" --target "$wamp" --vary subscribers=0,1,3,9,27

cluster 1 21100
cluster 5 21500
compare nodes --target one=127.0.0.1:21181 --target "three=$three" \
    --target five=127.0.0.1:21581,127.0.0.1:21582,127.0.0.1:21583,127.0.0.1:21584,127.0.0.1:21585 --vary window=1,64,256

split_roles
compare roles --target "three=$three" --target split=127.0.0.1:21881,127.0.0.1:21882,127.0.0.1:21883 --vary window=1,64,256
stop
cluster 3 21300
six 1 1
six 2 3
compare groups --target "three=$three" --target one=127.0.0.1:11881,127.0.0.1:11882,127.0.0.1:11883 \
    --target two=127.0.0.1:31881,127.0.0.1:31882,127.0.0.1:31883 --vary window=1,64,256
for groups in 1 2; do
    echo "files of six storages in $groups group(s), in MiB:" \
        "$(du -m --apparent-size "$data/six$groups"/data/node?/node.redb | cut -f1 | xargs)"
done | tee -a "$out/groups.txt"
echo "figures and pictures are in $out"
