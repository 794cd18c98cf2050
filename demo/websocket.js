// Node 20 tells of a WebSocket that can't connect by an `error` alone, and autobahn-js waits for the `close` behind it, for ever.
// Required before autobahn, this adds what is missing; Node 22 needs none of it.
'use strict';

const WebSocket = globalThis.WebSocket;
// How long the `close` behind an `error` may take, in milliseconds.
const PATIENCE = 100;

if (WebSocket) {
  globalThis.WebSocket = class extends WebSocket {
    constructor(...what) {
      super(...what);
      let closed = false;
      this.addEventListener('close', () => { closed = true; });
      this.addEventListener('error', () => setTimeout(() => {
        if (closed) return;
        this.dispatchEvent(Object.assign(new Event('close'), { code: 1006, reason: '', wasClean: false }));
      }, PATIENCE));
    }
  };
}
