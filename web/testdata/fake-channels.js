// Channels for the fake worker: put into the page after it. publish(channel, body) tells the page, if it is
// subscribed; what was published last under a key is its snapshot.
(() => {
  const kept = {};
  const send = WebSocket.prototype.send;
  window.subscribed = {};
  WebSocket.prototype.send = function (data) {
    const m = JSON.parse(data);
    if (m.type === 'subscribe') {
      subscribed[m.channel] = this;
      const all = Object.values(kept[m.channel] ?? {});
      this.give({ type: 'subscribed', id: m.id, channel: m.channel, snapshot: all.length });
      for (const message of all) this.give(message);
    } else if (m.type === 'unsubscribe') {
      delete subscribed[m.channel];
      this.give({ type: 'unsubscribed', id: m.id, channel: m.channel });
    } else send.call(this, data);
  };
  window.publish = (channel, name, key, body) => {
    const message = { type: 'message', channel, name, key, time: new Date().toISOString(), body };
    (kept[channel] ??= {})[key] = message;
    if (subscribed[channel]?.readyState === 1) subscribed[channel].give(message);
  };
  window.forget = (channel, key) => delete kept[channel][key];
  let clock = Date.UTC(2026, 2, 14, 9, 26);
  window.workflow = (workflow_id, kind, status, current_step, total_steps, message) => {
    const body = { workflow_id, kind, status, current_step, total_steps, message, timestamp: new Date((clock += 1000)).toISOString() };
    publish('workflows', 'workflow', workflow_id, body);
    publish('workflow.' + workflow_id, 'workflow', workflow_id, body);
  };
  window.engine = (more) => {
    const at = '2026-03-14T09:26:53.589Z';
    publish('engine', 'engine', 'i1-w3', {
      server_id: 'i1-w3', broker: { connected: true, blocked: false }, timestamp: at,
      workers: ['i1-w3', 'i2-w1'].map((server_id, i) => ({ server_id, ready: !i, connections: 2 - i, sessions: 3, channels: 2, started_at: at, seen_at: at })),
      runners: [{ runner: 'r1', slots: 4, running: 1, kinds: ['go-build', 'make'], seen_at: at }],
      queues: [{ kind: 'make', waiting: 7 }],
      ...more,
    });
  };
})();
