// autobahn-js as a publisher or a subscriber; see README.md.
//   node [--experimental-websocket] autobahn_client.js sub|pub json|msgpack|cbor HOST PORT
'use strict';

const autobahn = require('autobahn');
const { fail, lines, print } = require('./common.js');

const [role, variant, host, port] = process.argv.slice(2);
const serializers = {
  json: autobahn.serializer.JSONSerializer,
  msgpack: autobahn.serializer.MsgpackSerializer,
  cbor: autobahn.serializer.CBORSerializer,
};

// WAMP writes bytes in JSON as a text that begins with a zero character, then base64.
function readBytes(value) {
  if (value instanceof Uint8Array) return Buffer.from(value);
  if (typeof value === 'string' && value.startsWith('\0')) return Buffer.from(value.slice(1), 'base64');
  return undefined;
}

function writeBytes(value) {
  if (value === null || typeof value !== 'object' || !('$hex' in value)) return value;
  const bytes = Buffer.from(value.$hex, 'hex');
  return variant === 'json' ? '\0' + bytes.toString('base64') : bytes;
}

function valueOf(args = [], kwargs = {}) {
  if (Object.keys(kwargs).length > 0) return { value: { args, kwargs } };
  if (args.length === 0) return { empty: true };
  if (args.length > 1) return { value: args };
  const bytes = readBytes(args[0]);
  return bytes === undefined ? { value: args[0] } : { binary: bytes.toString('hex') };
}

async function subscribe(session) {
  const show = (args, kwargs, details) =>
    print({ topic: details.topic, position: details.publication, ...valueOf(args, kwargs) });
  await session.subscribe('cross.', show, { match: 'prefix' });
  print({ ready: true });
}

async function publish(session) {
  const answers = (await lines()).map(async ({ topic, args = [], kwargs = {} }) => {
    const stored = await session.publish(topic, args.map(writeBytes), kwargs, { acknowledge: true });
    print({ acknowledged: topic, position: stored.id });
  });
  await Promise.all(answers);
  connection.close();
}

const connection = new autobahn.Connection({
  transports: [
    { type: 'websocket', url: `ws://${host}:${port}/`, serializers: [new serializers[variant]()] },
  ],
  realm: 'realm1',
  max_retries: 0,
});
connection.onopen = (session) => (role === 'sub' ? subscribe : publish)(session).catch(fail);
connection.onclose = (reason, details) => {
  if (reason !== 'closed' || role === 'sub') fail(new Error(`${reason} ${JSON.stringify(details)}`));
  return true;
};
connection.open();
