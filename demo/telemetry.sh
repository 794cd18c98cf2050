#!/bin/bash
# This machine's own telemetry, ten samples a second: published over MQTT at E1 by mosquitto_pub, read over WAMP at E3
# by autobahn-js, and both shown side by side. Arguments to end by itself: telemetry.sh [SAMPLES]
set -euo pipefail
cd "$(dirname "$0")/.."

samples=${1:-0} # 0: until Ctrl-C
topic=telemetry/$(hostname)

for program in mosquitto_pub node; do
    command -v "$program" >/dev/null || { echo "$program is missing; see demo/README.md" >&2; exit 1; }
done
[ -d tests/clients/node_modules/autobahn ] || { echo "run first: npm ci --prefix tests/clients" >&2; exit 1; }
flags=()
[ "$(node -p 'parseInt(process.versions.node)')" -ge 22 ] || flags=(--experimental-websocket --no-warnings)

sample() {
    local load rest key value unit total=0 available=0 received=0 sent=0 fields
    read -r load rest </proc/loadavg
    while read -r key value unit; do
        case $key in
            MemTotal:) total=$value ;;
            MemAvailable:) available=$value; break ;;
        esac
    done </proc/meminfo
    while read -r -a fields; do
        [[ ${fields[0]} == *: ]] || continue
        received=$((received + fields[1])) sent=$((sent + fields[9]))
    done </proc/net/dev
    printf '{"n":%d,"time":%s,"load":%s,"memory_used_kib":%d,"received_bytes":%d,"sent_bytes":%d}\n' \
        "$1" "$EPOCHREALTIME" "$load" $((total - available)) "$received" "$sent"
}

telemetry() {
    local number=0
    while [ "$samples" -eq 0 ] || [ "$number" -lt "$samples" ]; do
        number=$((number + 1))
        sample "$number"
        sleep 0.1
    done
}

# mosquitto_pub gives up where nobody listens yet, as just behind the start of supervisord.
serves() { target/release/vulpes pub demo.ready true --node "ws://127.0.0.1:$1/" >/dev/null 2>&1; }
for port in 9031 9033; do
    until serves $port; do
        [ $SECONDS -lt 60 ] || { echo "the node at port $port does not serve; see demo/data/*.log" >&2; exit 1; }
        sleep 0.2
    done
done

# The watcher must be there before the first sample: it opens the gate by making the file.
ready=$(mktemp -u)
trap 'rm -f "$ready"' EXIT
{
    until [ -e "$ready" ]; do sleep 0.05; done
    telemetry
} | tee >(mosquitto_pub -h 127.0.0.1 -p 1881 -q 1 -t "$topic" -l) |
    node ${flags[@]+"${flags[@]}"} demo/watch.js "ws://127.0.0.1:9033/" "${topic//\//.}" "$ready"
