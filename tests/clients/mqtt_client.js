// MQTT.js as a publisher or a subscriber; see README.md.
//   node mqtt_client.js sub|pub 4|5 HOST PORT
'use strict';

const mqtt = require('mqtt');
const { fail, lines, print } = require('./common.js');

const [role, variant, host, port] = process.argv.slice(2);
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

function valueOf(payload) {
  if (payload.length === 0) return { empty: true };
  let text;
  try {
    text = utf8.decode(payload);
  } catch {
    return { binary: payload.toString('hex') };
  }
  try {
    return { value: JSON.parse(text) };
  } catch {
    return { value: text };
  }
}

async function main() {
  const client = await mqtt.connectAsync({
    host,
    port: Number(port),
    protocolVersion: Number(variant),
    clientId: `mqttjs-${role}-${process.pid}`,
    clean: true,
    reconnectPeriod: 0,
  });
  client.on('error', fail);
  if (role === 'sub') {
    client.on('close', () => fail(new Error('the connection is gone')));
    client.on('message', (topic, payload) =>
      print({ topic: topic.replaceAll('/', '.'), ...valueOf(payload) }));
    const granted = await client.subscribeAsync('cross/#', { qos: 1 });
    if (granted[0].qos !== 1) throw new Error(`granted ${JSON.stringify(granted)}`);
    print({ ready: true });
    return;
  }
  const answers = (await lines()).map(async ({ topic, text, hex, qos }) => {
    await client.publishAsync(topic, hex === undefined ? text : Buffer.from(hex, 'hex'), { qos });
    print({ acknowledged: topic.replaceAll('/', '.') });
  });
  await Promise.all(answers);
  await client.endAsync();
}

main().catch(fail);
