// A task runner in Node (npm's amqplib): takes tasks of the kind "count", tells each step and ends with
// a result. AMQP_URL is the broker, as its user "runner". docs/PROTOCOL.md section 9 says why.
// With PLAIN=1 it tells nothing but the result, without numbers: one small JSON object.
import { randomBytes } from 'node:crypto';
import amqp from 'amqplib';

const KIND = 'count', QUEUE = 'tasks.' + KIND;
const taking = await (await amqp.connect(process.env.AMQP_URL)).createChannel();
const telling = await (await amqp.connect(process.env.AMQP_URL)).createConfirmChannel();
await taking.assertQueue(QUEUE, { durable: true, deadLetterExchange: 'dead', deadLetterRoutingKey: 'task', arguments: { 'x-queue-type': 'quorum' } });
await taking.bindQueue(QUEUE, 'tasks', KIND);
await taking.prefetch(1);

function uuid7() {
  const b = randomBytes(16);
  b.writeUIntBE(Date.now(), 0, 6);
  b[6] = 0x70 | b[6] & 0x0f;
  b[8] = 0x80 | b[8] & 0x3f;
  return b.toString('hex').replace(/(.{8})(.{4})(.{4})(.{4})(.{12})/, '$1-$2-$3-$4-$5');
}

const returned = new Set(); // a returned message is confirmed too, right after
telling.on('return', m => returned.add(m.properties.messageId));

// publish resolves when the event is stored, and rejects when it is not.
function publish(task, body, properties) {
  const messageId = uuid7();
  const options = { mandatory: true, persistent: true, contentType: 'application/json', correlationId: task.task_id, messageId, appId: 'node', ...properties };
  return new Promise((resolve, reject) => telling.publish('utils', task.server_id, Buffer.from(JSON.stringify(body)), options,
    err => err || returned.delete(messageId) ? reject(err ?? new Error('nobody takes the event')) : resolve()));
}

// events returns tell(type, body), which publishes the next event of a new run of the task.
function events(task, attempt) {
  const run = uuid7();
  let seq = 0, prev = 0;
  return async (type, body, { durable = true, last = false } = {}) => {
    const headers = { client_id: task.client_id, epoch: task.epoch, home: task.server_id, attempt, run_id: run, seq: ++seq, prev, durable, last };
    await publish(task, { client_id: task.client_id, ...body, timestamp: new Date().toISOString() }, { type, headers, persistent: durable });
    if (durable) prev = seq;
  };
}

await taking.consume(QUEUE, async message => {
  const task = JSON.parse(message.content), to = Number(task.params.to);
  if (process.env.PLAIN) {
    await publish(task, { client_id: task.client_id, task_id: task.task_id, value: { counted: to } });
  } else {
    const tell = events(task, (message.properties.headers['x-delivery-count'] ?? 0) + 1);
    const at = (status, n, text) => ({ workflow_id: task.task_id, status, current_step: n, total_steps: to, message: text });
    await tell('started', { kind: KIND, runner: 'node', total_steps: to });
    for (let n = 1; n <= to; n++) {
      await tell('progress', at('running', n, `${n}`), { durable: false });
      await tell('step', at('succeeded', n, `counted ${n}`));
    }
    await tell('result', { value: { counted: to }, last_line: 0 }, { last: true });
  }
  taking.ack(message); // only now: the final event is stored
});
