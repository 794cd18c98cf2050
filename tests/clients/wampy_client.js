// wampy as a publisher, a subscriber, a callee or a caller; see README.md.
//   node wampy_client.js sub|pub|serve|call|back json|msgpack|cbor HOST PORT
'use strict';

const WebSocket = require('ws');
const { Wampy } = require('wampy');
const { JsonSerializer } = require('wampy/JsonSerializer.js');
const { MsgpackSerializer } = require('wampy/MsgpackSerializer.js');
const { CborSerializer } = require('wampy/CborSerializer.js');
const { fail, lines, print } = require('./common.js');
const { valueOf, writeBytes } = require('./wamp_values.js');

const [role, variant, host, port] = process.argv.slice(2);
const serializers = { json: JsonSerializer, msgpack: MsgpackSerializer, cbor: CborSerializer };
const name = `calls.wampy_${variant}`;

async function subscribe(client) {
  const show = ({ argsList, argsDict, details }) =>
    print({ topic: details.topic, ...valueOf(argsList, argsDict) });
  await client.subscribe('cross', show, { match: 'prefix' });
  print({ ready: true });
}

async function publish(client) {
  const answers = (await lines()).map(async ({ topic, args = [], kwargs = {} }) => {
    const payload = { argsList: args.map((arg) => writeBytes(variant, arg)), argsDict: kwargs };
    const stored = await client.publish(topic, payload);
    print({ acknowledged: topic, position: stored.publicationId });
  });
  await Promise.all(answers);
  await client.disconnect();
}

async function serve(client) {
  const parts = ({ argsList, details, result_handler }) => {
    for (let part = 1; part <= argsList[0]; part++) {
      if (details.receive_progress) result_handler({ argsList: [part], options: { progress: true } });
    }
    return { argsList: ['done'] };
  };
  await client.register(`${name}.echo`, ({ argsList, argsDict }) => ({ argsList, argsDict }));
  await client.register(`${name}.parts`, parts);
  await client.register(`${name}.fail`, ({ argsList, argsDict }) => {
    throw { error: 'app.error.no', argsList, argsDict };
  });
  const which = ({ details }) => ({ argsList: [details.procedure] });
  await client.register(`${name}.any`, which, { match: 'prefix' });
  print({ ready: true });
}

async function call(client) {
  const answers = (await lines()).map(({ procedure, args = [], kwargs = {} }) => {
    const progress = [];
    const payload = { argsList: args.map((arg) => writeBytes(variant, arg)), argsDict: kwargs };
    const part = ({ argsList }) => progress.push(argsList[0]);
    return client.call(procedure, payload, { progress_callback: part }).then(
      ({ argsList, argsDict }) => print({ procedure, progress, ...valueOf(argsList, argsDict) }),
      (error) =>
        print({ procedure, error: error.errorUri, args: error.argsList, kwargs: error.argsDict || {} }),
    );
  });
  await Promise.all(answers);
  await client.disconnect();
}

// Reports each time that it is connected, and does nothing else.
const back = async () => print({ ready: true });

const roles = { sub: subscribe, pub: publish, serve, call, back };
const client = new Wampy(`ws://${host}:${port}/`, {
  realm: 'realm1',
  ws: WebSocket,
  serializer: new serializers[variant](),
  autoReconnect: role === 'back',
  maxRetries: 0,
  reconnectInterval: 500,
  onReconnectSuccess: back,
  onClose: () => {
    if (['sub', 'serve'].includes(role)) fail(new Error('the connection is gone'));
  },
});
client.connect().then(() => roles[role](client)).catch(fail);
