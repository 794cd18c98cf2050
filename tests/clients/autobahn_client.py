"""autobahn-python as a publisher or a subscriber; see README.md.

python autobahn_client.py sub|pub json|msgpack|cbor HOST PORT
"""

import asyncio
import json
import os
import sys
import traceback

from autobahn.asyncio.wamp import ApplicationRunner, ApplicationSession
from autobahn.wamp.serializer import CBORSerializer, JsonSerializer, MsgPackSerializer
from autobahn.wamp.types import PublishOptions, SubscribeOptions

ROLE, VARIANT, HOST, PORT = sys.argv[1:]
SERIALIZERS = {"json": JsonSerializer, "msgpack": MsgPackSerializer, "cbor": CBORSerializer}


def show(line):
    print(json.dumps(line), flush=True)


def value_of(args, kwargs):
    if kwargs:
        return {"value": {"args": list(args), "kwargs": kwargs}}
    if not args:
        return {"empty": True}
    if len(args) > 1:
        return {"value": list(args)}
    if isinstance(args[0], bytes):
        return {"binary": args[0].hex()}
    return {"value": args[0]}


def write_bytes(value):
    return bytes.fromhex(value["$hex"]) if isinstance(value, dict) and "$hex" in value else value


class Session(ApplicationSession):
    finished = False

    async def onJoin(self, details):
        try:
            await (self.subscribe_all() if ROLE == "sub" else self.publish_all())
        except Exception:
            traceback.print_exc()
            os._exit(1)

    async def subscribe_all(self):
        def on_event(*args, details=None, **kwargs):
            show({"topic": details.topic, "position": details.publication, **value_of(args, kwargs)})

        options = SubscribeOptions(match="prefix", details_arg="details")
        await self.subscribe(on_event, "cross.", options=options)
        show({"ready": True})

    async def publish_all(self):
        async def publish(message):
            stored = await self.publish(
                message["topic"],
                *map(write_bytes, message.get("args", [])),
                options=PublishOptions(acknowledge=True),
                **message.get("kwargs", {}),
            )
            show({"acknowledged": message["topic"], "position": stored.id})

        await asyncio.gather(*(publish(json.loads(line)) for line in sys.stdin))
        self.finished = True
        self.leave()

    def onDisconnect(self):
        if not self.finished:
            print("the connection is gone", file=sys.stderr, flush=True)
        os._exit(0 if self.finished else 1)


ApplicationRunner(
    f"ws://{HOST}:{PORT}/", "realm1", serializers=[SERIALIZERS[VARIANT]()]
).run(Session, log_level="warn")
