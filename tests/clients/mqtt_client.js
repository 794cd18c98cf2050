// MQTT.js as a publisher or a subscriber; see README.md.
//   node mqtt_client.js sub|exact|keep|pub|back 4|5 HOST PORT
'use strict';

const { once } = require('node:events');

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
  const client = mqtt.connect({
    host,
    port: Number(port),
    protocolVersion: Number(variant),
    clientId: role === 'keep' ? `mqttjs-keep-${variant}` : `mqttjs-${role}-${process.pid}`,
    clean: role !== 'keep',
    properties: role === 'keep' && variant === '5' ? { sessionExpiryInterval: 0xffffffff } : undefined,
    reconnectPeriod: role === 'back' ? 500 : 0,
  });
  if (role === 'back') {
    // Reports each time that it is connected, and does nothing else.
    client.on('connect', () => print({ ready: true }));
    client.on('error', (error) => console.error(error.message));
    return;
  }
  client.on('error', fail);
  // Missed messages come right after the CONNACK.
  client.on('message', (topic, payload) =>
    print({ topic: topic.replaceAll('/', '.'), ...valueOf(payload) }));
  await once(client, 'connect');
  if (role !== 'pub') {
    client.on('close', () => fail(new Error('the connection is gone')));
    const qos = role === 'exact' ? 2 : 1;
    const granted = await client.subscribeAsync('cross/#', { qos });
    if (granted[0].qos !== qos) throw new Error(`granted ${JSON.stringify(granted)}`);
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
