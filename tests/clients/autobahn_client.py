"""autobahn-python as a publisher, a subscriber, a callee or a caller; see README.md.

python autobahn_client.py sub|pub|serve|call|back json|msgpack|cbor HOST PORT
"""

import asyncio
import json
import os
import sys
import traceback

from autobahn.asyncio.component import Component, run
from autobahn.asyncio.wamp import ApplicationRunner, ApplicationSession
from autobahn.wamp.exception import ApplicationError
from autobahn.wamp.serializer import CBORSerializer, JsonSerializer, MsgPackSerializer
from autobahn.wamp.types import (
    CallOptions,
    CallResult,
    PublishOptions,
    RegisterOptions,
    SubscribeOptions,
)

ROLE, VARIANT, HOST, PORT = sys.argv[1:]
SERIALIZERS = {"json": JsonSerializer, "msgpack": MsgPackSerializer, "cbor": CBORSerializer}


def show(line):
    try:
        text = json.dumps(line, allow_nan=False, default=repr)
    except ValueError:
        # JSON has no word for some numbers.
        text = json.dumps({**line, "value": repr(line.get("value"))})
    print(text, flush=True)


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
            roles = {
                "sub": self.subscribe_all,
                "pub": self.publish_all,
                "serve": self.serve,
                "call": self.call_all,
            }
            await roles[ROLE]()
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

    async def serve(self):
        def echo(*args, **kwargs):
            return CallResult(*args, **kwargs)

        async def parts(count, details=None):
            for part in range(1, count + 1):
                if details.progress:
                    details.progress(part)
            return "done"

        def refuse(*args, **kwargs):
            raise ApplicationError("app.error.no", *args, **kwargs)

        def which(details=None):
            return details.procedure

        name = f"calls.py_{VARIANT}"
        details = RegisterOptions(details_arg="details")
        prefix = RegisterOptions(match="prefix", details_arg="details")
        await self.register(echo, f"{name}.echo")
        await self.register(parts, f"{name}.parts", options=details)
        await self.register(refuse, f"{name}.fail")
        await self.register(which, f"{name}.any.", options=prefix)
        show({"ready": True})

    async def call_all(self):
        async def call(message):
            procedure, progress = message["procedure"], []
            options = CallOptions(on_progress=progress.append)
            args = map(write_bytes, message.get("args", []))
            kwargs = message.get("kwargs", {})
            try:
                result = await self.call(procedure, *args, options=options, **kwargs)
            except ApplicationError as error:
                show({
                    "procedure": procedure,
                    "error": error.error,
                    "args": list(error.args),
                    "kwargs": error.kwargs or {},
                })
                return
            if isinstance(result, CallResult):
                value = value_of(result.results, result.kwresults)
            else:
                value = value_of([result], {})
            show({"procedure": procedure, "progress": progress, **value})

        await asyncio.gather(*(call(json.loads(line)) for line in sys.stdin))
        self.finished = True
        self.leave()

    def onDisconnect(self):
        if not self.finished:
            print("the connection is gone", file=sys.stderr, flush=True)
        os._exit(0 if self.finished else 1)


def come_back():
    """Says each time that it is connected, and does nothing else."""
    transport = {
        "type": "websocket",
        "url": f"ws://{HOST}:{PORT}/",
        "serializers": [VARIANT],
        "max_retries": -1,
        "initial_retry_delay": 0.5,
    }
    component = Component(transports=[transport], realm="realm1")
    component.on_join(lambda session, details: show({"ready": True}))
    run([component], log_level="warn")


if ROLE == "back":
    come_back()
    sys.exit(1)
ApplicationRunner(
    f"ws://{HOST}:{PORT}/", "realm1", serializers=[SERIALIZERS[VARIANT]()]
).run(Session, log_level="warn")
