#!/bin/bash
# Vulpes beside other brokers: one load generator, one machine, in turn A B A B. Each that is not installed is left out,
# and said to be. Takes about three minutes a load with the defaults.
#
# usage: demo/speed/peers.sh [SECONDS [ROUNDS [FOLDER]]]      from the project's root, after `cargo build --release`
set -euo pipefail

seconds=${1:-5} rounds=${2:-3} out=${3:-$(mktemp -d)}
vulpes=$PWD/target/release/vulpes
crossbar=${CROSSBAR:-crossbar}
mkdir -p "$out"
data=$(mktemp -d "$out/data.XXXXXX")
pids=()
trap 'kill "${pids[@]}" 2>/dev/null; wait; rm -rf "$data"' EXIT

# Whether a port is taken within 20 seconds.
reached() {
    for _ in $(seq 200); do
        if (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; then return; fi
        sleep 0.1
    done
    echo "nothing listens at port $1; see $data" >&2
    return 1
}

"$vulpes" up --nodes 3 --data "$data/vulpes" --peer-port 21735 --wamp-port 29031 --mqtt-port 21881 --admin-port 29081 \
    > "$data/vulpes.log" 2>&1 &
pids+=($!)
for port in 21881 21882 21883 29031 29032 29033; do reached $port; done
until "$vulpes" pub bench.ready 1 --node ws://127.0.0.1:29031/ > /dev/null 2>&1; do sleep 0.2; done
mqtt=(--target "vulpes=127.0.0.1:21881,127.0.0.1:21882,127.0.0.1:21883")
wamp=(--target "vulpes=ws://127.0.0.1:29031/,ws://127.0.0.1:29032/,ws://127.0.0.1:29033/")

if command -v mosquitto > /dev/null; then
    printf '%s\n' 'listener 21984 127.0.0.1' 'allow_anonymous true' 'persistence false' 'max_queued_messages 0' \
        'max_inflight_messages 0' > "$data/mosquitto.conf"
    mosquitto -c "$data/mosquitto.conf" > "$data/mosquitto.log" 2>&1 &
    pids+=($!)
    reached 21984
    mqtt+=(--target mosquitto=127.0.0.1:21984)
else
    echo "mosquitto is not installed: left out" >&2
fi

if command -v nats-server > /dev/null; then
    for n in 1 2 3; do
        cat > "$data/nats$n.conf" <<NATS
server_name: n$n
listen: 127.0.0.1:$((24220 + n))
cluster { name: bench, listen: 127.0.0.1:$((24230 + n))
    routes: [nats://127.0.0.1:24231, nats://127.0.0.1:24232, nats://127.0.0.1:24233] }
jetstream { store_dir: "$data/nats$n" }
mqtt { listen: 127.0.0.1:$((21984 + n)), stream_replicas: 3 }
NATS
        nats-server -c "$data/nats$n.conf" > "$data/nats$n.log" 2>&1 &
        pids+=($!)
    done
    for n in 1 2 3; do reached $((21984 + n)); done
    # The three have to find each other before they take anything.
    for _ in $(seq 30); do
        if "$vulpes" bench --targets 127.0.0.1:21985,127.0.0.1:21986,127.0.0.1:21987 --connections 3 --window 1 --seconds 1 \
            --warmup 0 --subscribers 1 > /dev/null 2>&1; then break; fi
        sleep 1
    done
    mqtt+=(--target nats=127.0.0.1:21985,127.0.0.1:21986,127.0.0.1:21987)
else
    echo "nats-server is not installed: left out" >&2
fi

if command -v "$crossbar" > /dev/null; then
    mkdir -p "$data/crossbar"
    cat > "$data/crossbar/config.json" <<'CROSSBAR'
{"version": 2, "workers": [{"type": "router",
  "realms": [{"name": "realm1", "roles": [{"name": "anonymous", "permissions": [{"uri": "", "match": "prefix",
    "allow": {"call": true, "register": true, "publish": true, "subscribe": true}}]}]}],
  "transports": [{"type": "websocket", "endpoint": {"type": "tcp", "interface": "127.0.0.1", "port": 29040}}]}]}
CROSSBAR
    "$crossbar" start --cbdir "$data/crossbar" > "$data/crossbar.log" 2>&1 &
    pids+=($!)
    reached 29040
    wamp+=(--target crossbar=ws://127.0.0.1:29040/)
else
    echo "crossbar is not installed: left out (CROSSBAR=PATH names it)" >&2
fi

# Some lose what they are too slow for: that is told in the figures, and no reason to stop.
compare() {
    local name=$1
    shift
    echo "== $name"
    "$vulpes" bench compare --rounds "$rounds" --seconds "$seconds" --fsync-dir "$data" --svg "$out/$name.svg" "$@" \
        2>> "$out/rounds.log" | tee "$out/$name.txt" || true
}

for window in 64 256; do
    compare "mqtt-$window" "${mqtt[@]}" --window $window --subscribers 0
    compare "mqtt-$window-three" "${mqtt[@]}" --window $window --subscribers 3
done
compare mqtt-one "${mqtt[@]}" --connections 1 --window 1 --subscribers 0
compare wamp-64 "${wamp[@]}" --window 64 --subscribers 0
compare wamp-64-three "${wamp[@]}" --window 64 --subscribers 3
compare wamp-one "${wamp[@]}" --connections 1 --window 1 --subscribers 0
echo "figures and pictures are in $out"
