"""paho-mqtt as a publisher or a subscriber; see README.md.

python paho_client.py sub|exact|keep|pub|back 4|5 HOST PORT
"""

import json
import os
import sys

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

ROLE, VARIANT, HOST, PORT = sys.argv[1:]
QOS = 2 if ROLE == "exact" else 1
VERSIONS = {"4": mqtt.MQTTv311, "5": mqtt.MQTTv5}


def show(line):
    try:
        text = json.dumps(line, allow_nan=False, default=repr)
    except ValueError:
        # JSON has no word for some numbers.
        text = json.dumps({**line, "value": repr(line.get("value"))})
    print(text, flush=True)


def fail(reason):
    print(reason, file=sys.stderr, flush=True)
    os._exit(1)


def value_of(payload):
    if not payload:
        return {"empty": True}
    try:
        text = payload.decode("utf-8")
    except UnicodeDecodeError:
        return {"binary": payload.hex()}
    try:
        return {"value": json.loads(text)}
    except ValueError:
        return {"value": text}


def on_connect(client, userdata, flags, reason_code, properties):
    if reason_code != 0:
        fail(f"CONNACK {reason_code}")
    if ROLE == "back":
        show({"ready": True})
    elif ROLE != "pub":
        client.subscribe("cross/#", qos=QOS)


def on_subscribe(client, userdata, mid, reason_codes, properties):
    if reason_codes[0] != QOS:
        fail(f"SUBACK {reason_codes}")
    show({"ready": True})


def on_message(client, userdata, message):
    show({"topic": message.topic.replace("/", "."), **value_of(message.payload)})


KEPT = {"client_id": f"paho-keep-{VARIANT}"} if ROLE == "keep" else {}
CONNECT = {}
if ROLE == "keep" and VARIANT == "4":
    KEPT["clean_session"] = False
elif ROLE == "keep":
    CONNECT = {"clean_start": False, "properties": Properties(PacketTypes.CONNECT)}
    CONNECT["properties"].SessionExpiryInterval = 0xFFFFFFFF

client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=VERSIONS[VARIANT], **KEPT)
# With more than this on the way, paho holds back QoS 1 and 2 and lets QoS 0 overtake it.
client.max_inflight_messages_set(1000)
client.on_connect = on_connect
client.on_subscribe = on_subscribe
client.on_message = on_message
if ROLE == "back":
    # Says each time that it is connected, and does nothing else.
    client.reconnect_delay_set(1, 2)
    client.connect(HOST, int(PORT))
    client.loop_forever()
if ROLE != "pub":
    client.on_disconnect = lambda *reason: fail(f"the connection is gone: {reason}")
    client.connect(HOST, int(PORT), **CONNECT)
    client.loop_forever(retry_first_connection=False)
client.connect(HOST, int(PORT))
client.loop_start()
sent = []
for line in sys.stdin:
    message = json.loads(line)
    payload = bytes.fromhex(message["hex"]) if "hex" in message else message["text"]
    sent.append((message["topic"], client.publish(message["topic"], payload, message["qos"])))
for topic, answer in sent:
    answer.wait_for_publish(30)
    if not answer.is_published():
        fail(f"no acknowledgement for {topic}")
    show({"acknowledged": topic.replace("/", ".")})
client.disconnect()
client.loop_stop()
