// What both JavaScript scripts need.
'use strict';

const readline = require('node:readline');

// Some clients read large integers as BigInt, which JSON can't express.
function print(line) {
  const spelled = (_, value) => (typeof value === 'bigint' ? String(value) : value);
  process.stdout.write(JSON.stringify(line, spelled) + '\n');
}

// WAMP errors are objects without a stack.
function fail(error) {
  console.error(error.stack || error);
  process.exit(1);
}

async function lines() {
  const messages = [];
  for await (const line of readline.createInterface({ input: process.stdin })) {
    messages.push(JSON.parse(line));
  }
  return messages;
}

module.exports = { fail, lines, print };
