// Shows what was published (standard input) beside what comes back over WAMP, a row an event; see telemetry.sh.
//   node watch.js URL TOPIC [FILE made when the subscription stands]
'use strict';

const fs = require('node:fs');
const readline = require('node:readline');
require('./websocket');
const autobahn = require('../tests/clients/node_modules/autobahn');

const [url, topic, ready] = process.argv.slice(2);
const sent = new Map();
let inputEnded = false;
let last; // position of the last event seen

const describe = ({ n, load, memory_used_kib: memory, received_bytes: received }) =>
  `#${String(n).padEnd(6)} load ${load.toFixed(2)}  memory ${(memory / 1024).toFixed(0)} MiB` +
  `  received ${(received / 1024).toFixed(0)} KiB`;

function show([sample], _kwargs, details) {
  last = details.publication;
  const left = sent.get(sample.n);
  sent.delete(sample.n);
  const delay = (Date.now() - sample.time * 1000).toFixed(0);
  const right = `${describe(sample)}  at position ${last}, ${delay} ms after`;
  console.log(`${(left ? describe(left) : '(sent by another)').padEnd(62)} | ${right}`);
  endWhenAllSeen();
}

function endWhenAllSeen() {
  if (inputEnded && sent.size === 0) process.exit(0);
}

const connection = new autobahn.Connection({
  url,
  realm: 'realm1',
  max_retries: -1,
  initial_retry_delay: 0.3,
  max_retry_delay: 1,
});
connection.onopen = async (session) => {
  // After a lost connection: all that was missed, then live again, nothing twice.
  const options = last === undefined ? {} : { after: last };
  try {
    await session.subscribe(topic, show, options);
  } catch (error) {
    console.error(`subscribe: ${error.error} ${JSON.stringify(error.args)}`);
    process.exit(1);
  }
  if (ready) fs.writeFileSync(ready, '');
};
connection.onclose = (reason) => {
  console.log(`${url}: ${reason}; trying again`);
  return false;
};

console.log(`${'published at E1 over MQTT'.padEnd(62)} | seen at ${url} over WAMP`);
connection.open();
readline
  .createInterface({ input: process.stdin })
  .on('line', (line) => {
    const sample = JSON.parse(line);
    sent.set(sample.n, sample);
  })
  .on('close', () => {
    inputEnded = true;
    endWhenAllSeen();
  });
