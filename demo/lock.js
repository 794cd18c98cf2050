// Uses a resource by turns with others, whatever node they are at: waits for the lock, holds it five seconds, frees it.
//   node lock.js URL NAME
'use strict';

require('./websocket');
const autobahn = require('../tests/clients/node_modules/autobahn');

const [url, name] = process.argv.slice(2);
const TOPIC = 'demo.resource';
const HOLD = 5000;

const say = (text) => console.log(`${new Date().toISOString().slice(11, 23)}  ${name}  ${text}`);
const wait = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

// Published when there is none, waited for until then; gone when this session is.
const LOCK = { acknowledge: true, retain: true, when: null, will: null, watch: true };

const connection = new autobahn.Connection({
  url,
  realm: 'realm1',
  max_retries: -1,
  initial_retry_delay: 0.3,
  max_retry_delay: 1,
});
connection.onopen = async (session) => {
  say(`connected to ${url}`);
  try {
    while (session.isOpen) {
      const { id } = await session.publish(TOPIC, [{ holder: name }], {}, LOCK);
      say(`HOLDS the resource, token ${id}`);
      await wait(HOLD);
      await session.publish(TOPIC, [null], {}, { acknowledge: true, retain: true });
      say('frees it');
    }
  } catch (error) {
    say(`lost: ${error.error || error}`);
  }
};
connection.onclose = (reason) => {
  say(`not connected to ${url} (${reason}); trying again`);
  return false;
};
connection.open();
