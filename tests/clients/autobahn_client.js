// autobahn-js as a publisher, a subscriber, a callee or a caller; see README.md.
//   node [--experimental-websocket] autobahn_client.js sub|pub|serve|call|back json|msgpack|cbor HOST PORT
'use strict';

const autobahn = require('autobahn');
const { fail, lines, print } = require('./common.js');
const { valueOf, writeBytes } = require('./wamp_values.js');

const [role, variant, host, port] = process.argv.slice(2);
const serializers = {
  json: autobahn.serializer.JSONSerializer,
  msgpack: autobahn.serializer.MsgpackSerializer,
  cbor: autobahn.serializer.CBORSerializer,
};

async function subscribe(session) {
  const show = (args, kwargs, details) =>
    print({ topic: details.topic, position: details.publication, ...valueOf(args, kwargs) });
  await session.subscribe('cross.', show, { match: 'prefix' });
  print({ ready: true });
}

async function publish(session) {
  const answers = (await lines()).map(async ({ topic, args = [], kwargs = {} }) => {
    const stored = await session.publish(topic, args.map((arg) => writeBytes(variant, arg)), kwargs, { acknowledge: true });
    print({ acknowledged: topic, position: stored.id });
  });
  await Promise.all(answers);
  connection.close();
}

const name = `calls.js_${variant}`;

async function serve(session) {
  const parts = (args, kwargs, details) => {
    for (let part = 1; part <= args[0]; part++) if (details.progress) details.progress([part]);
    return 'done';
  };
  await session.register(`${name}.echo`, (args, kwargs) => new autobahn.Result(args, kwargs));
  await session.register(`${name}.parts`, parts);
  await session.register(`${name}.fail`, (args, kwargs) => {
    throw new autobahn.Error('app.error.no', args, kwargs);
  });
  await session.register(`${name}.any.`, (args, kwargs, details) => details.procedure, { match: 'prefix' });
  print({ ready: true });
}

async function call(session) {
  const answers = (await lines()).map(({ procedure, args = [], kwargs = {} }) => {
    const progress = [];
    const shown = (result) =>
      result instanceof autobahn.Result ? valueOf(result.args, result.kwargs) : valueOf([result]);
    return session.call(procedure, args.map((arg) => writeBytes(variant, arg)), kwargs, { receive_progress: true }).then(
      (result) => print({ procedure, progress, ...(result === null ? { value: null } : shown(result)) }),
      (error) => print({ procedure, error: error.error, args: error.args, kwargs: error.kwargs || {} }),
      (part) => progress.push(part),
    );
  });
  await Promise.all(answers);
  connection.close();
}

const connection = new autobahn.Connection({
  transports: [
    { type: 'websocket', url: `ws://${host}:${port}/`, serializers: [new serializers[variant]()] },
  ],
  realm: 'realm1',
  // The WebSocket of Node.js 20 does not report a refused connection, so autobahn-js would not try again. The delay waits
  // until a node listens.
  ...(role === 'back' ? { initial_retry_delay: 10 } : { max_retries: 0 }),
});
// Reports each time that it is connected, and does nothing else.
const back = async () => print({ ready: true });
const roles = { sub: subscribe, pub: publish, serve, call, back };
connection.onopen = (session) => roles[role](session).catch(fail);
connection.onclose = (reason, details) => {
  // In this role it has to reconnect by itself.
  if (role === 'back') return false;
  if (reason !== 'closed' || role === 'sub' || role === 'serve') fail(new Error(`${reason} ${JSON.stringify(details)}`));
  return true;
};
connection.open();
