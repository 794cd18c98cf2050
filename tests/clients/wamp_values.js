// Values of WAMP events as README.md shows them, for both JavaScript clients.
'use strict';

// WAMP writes bytes in JSON as a text that begins with a zero character, then base64.
function readBytes(value) {
  if (value instanceof Uint8Array) return Buffer.from(value);
  if (typeof value === 'string' && value.startsWith('\0')) return Buffer.from(value.slice(1), 'base64');
  return undefined;
}

function writeBytes(variant, value) {
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

module.exports = { valueOf, writeBytes };
