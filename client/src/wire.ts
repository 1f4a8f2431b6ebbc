// The messages of subprotocol wscluster.v1.json as pkg/wire defines them; docs/PROTOCOL.md explains
// each. Times are RFC 3339 in UTC, durations end in _ms, sizes in _bytes. Unknown fields and unknown
// types are ignored, so that either side may be newer.

export const subprotocol = 'wscluster.v1.json';

/** Bytes of a frame that the server takes from a client. */
export const maxClientFrame = 64 << 10;
/** Positions in one hello or ack. */
export const maxPositions = 200;
/** Tasks of one session that have not ended. */
export const maxOpenTasks = 100;

/**
 * How far the application is in one task: it has every durable event of (attempt, run_id) whose seq
 * is lower than next. A task of which nothing has come yet stands at attempt 0, run_id '', next 0.
 */
export interface Position {
  task_id: string;
  attempt: number;
  run_id: string;
  next: number;
}

export interface Hello {
  type: 'hello';
  auth?: string;
  token?: string;
  tasks?: Position[];
}
/** The socket_meta of this epoch, which resumed the session, is here and its token is kept. */
export interface Confirm {
  type: 'confirm';
  epoch: number;
}
export interface Submit {
  type: 'submit';
  id?: string;
  task_id: string;
  kind: string;
  params?: object;
  priority?: Priority;
}
/** High ones are taken before normal ones of all kinds. */
export type Priority = 'normal' | 'high';
/** Asks for the end of a task of this client, whether it waits or runs. */
export interface Cancel {
  type: 'cancel';
  id?: string;
  task_id: string;
  /** Without it a task that waits for a runner ends only when one takes it. */
  kind?: string;
}
/** Asks for lines of the log of a task of this client, now or long ago. */
export interface LogRead {
  type: 'log_read';
  id?: string;
  task_id: string;
  /** Who has the log, as a started event or an earlier reply says; else all are asked. */
  runner?: string;
  /** The latest if left out. */
  run_id?: string;
  /** Counted from 1. */
  from_line: number;
}
export interface Ack {
  type: 'ack';
  tasks: Position[];
}
export interface Ping {
  type: 'ping';
  id?: string;
}
/**
 * Asks for the messages of a channel from now on, after a snapshot of what its publishers keep. A subscription
 * belongs to the connection: who comes back subscribes again.
 */
export interface Subscribe {
  type: 'subscribe';
  id?: string;
  channel: string;
  /** A ticket that allows it, where not everybody may. */
  grant?: string;
}
export interface Unsubscribe {
  type: 'unsubscribe';
  id?: string;
  channel: string;
}
/** Asks how many are subscribed to a channel. */
export interface AskPresence {
  type: 'presence';
  id?: string;
  channel: string;
  grant?: string;
}
/** Answers a Request with body or with error. */
export interface Reply {
  type: 'reply';
  id?: string;
  request_id: string;
  body?: unknown;
  error?: string;
}
export type ClientMessage = Hello | Confirm | Submit | Cancel | LogRead | Ack | Ping | Subscribe | Unsubscribe | AskPresence | Reply;
/** What is answered with a message that has its id. */
export type ClientRequest = Extract<ClientMessage, { id?: string }> & { id: string };

export interface SocketMeta {
  type: 'socket_meta';
  client_id: string;
  server_id: string;
  epoch: number;
  token: string;
  route: string;
  heartbeat_ms: number;
  resume_window_ms: number;
  resumed: boolean;
  /** Why the token of the hello was not honoured. */
  reason?: string;
  tasks?: { task_id: string; state: 'running' | 'finished' | 'unknown' }[];
}
export interface Accepted {
  type: 'accepted';
  id?: string;
  task_id: string;
  /** Tasks ahead when it was accepted, roughly; absent if not known. */
  queue_position?: number;
}
/** The cancel is stored and will reach the task; its final event tells how it ended. */
export interface Canceling {
  type: 'canceling';
  id?: string;
  task_id: string;
}
/** As many lines as fit, or none if the log has not come that far. */
export interface LogLines {
  type: 'log_lines';
  id?: string;
  task_id: string;
  attempt: number;
  run_id: string;
  runner: string;
  first_line: number;
  lines: string[];
  /** That the log has now. */
  last_line: number;
  /** Nothing will be added. */
  ended: boolean;
}
export interface Refused extends WireError {
  type: 'error';
  id?: string;
  task_id?: string;
}
export interface Pong {
  type: 'pong';
  id?: string;
}
/** So many messages of the channel follow as its snapshot, the oldest first; what comes after them is new. */
export interface Subscribed {
  type: 'subscribed';
  id?: string;
  channel: string;
  snapshot: number;
  /** A publisher did not say in time what it keeps. */
  partial?: boolean;
}
export interface Unsubscribed {
  type: 'unsubscribed';
  id?: string;
  channel: string;
}
export interface Presence {
  type: 'presence';
  id?: string;
  channel: string;
  /** In the whole cluster. */
  subscribers: number;
  /** A worker did not answer in time. */
  partial?: boolean;
}
/** One message of a channel, at most once. */
export interface Message {
  type: 'message';
  channel: string;
  /** What the body is. */
  name?: string;
  /** (publisher, stream) is one counter, which rises by one from 1: its hole is a loss. All three or none are there. */
  publisher?: string;
  stream?: string;
  seq?: number;
  /** Of the messages with one key only the latest is kept for a snapshot. */
  key?: string;
  time: string;
  body: unknown;
}
/** Messages of a channel did not come, and will not. */
export interface Missed {
  type: 'missed';
  channel: string;
  /** 0 if nobody knows. */
  count: number;
  /** 'slow': this client did not read fast enough; 'lost': they did not reach the worker. */
  reason: string;
}
/** A backend asks this client for something, and waits for its Reply. One key is one thing to do, however often it comes. */
export interface Request {
  type: 'request';
  request_id: string;
  key: string;
  name: string;
  body?: unknown;
  timeout_ms: number;
}
export interface Bye {
  type: 'bye';
  code: number;
  reason: string;
  retry_after_ms?: number;
}

/** What went wrong. code is one of the closed list in docs/PROTOCOL.md. */
export interface WireError {
  code: string;
  message: string;
  retryable: boolean;
  retry_after_ms?: number;
}

export interface Started {
  kind: string;
  runner: string;
  total_steps: number;
  timestamp: string;
}
/** The body of step and progress events. total_steps is 0 if not known. */
export interface Update {
  workflow_id: string;
  status: 'running' | 'succeeded' | 'failed';
  current_step: number;
  total_steps: number;
  message: string;
  timestamp: string;
}
/** Consecutive lines of output without line ends; first_line counts from 1. */
export interface Log {
  first_line: number;
  lines: string[];
  /** From the client itself, instead of lines: so many cannot be had any more. */
  missing_lines?: number;
}
export interface Artifact {
  name: string;
  content_type: string;
  size_bytes: number;
  sha256: string;
}
export interface Result {
  value: unknown;
  last_line: number;
  /** Bytes of output that are not in the log. */
  log_dropped_bytes?: number;
  timestamp: string;
}
export interface Failure extends WireError {
  last_line: number;
  log_dropped_bytes?: number;
  timestamp: string;
}

/** Durable events that were given up: from_seq to the gap's own seq. The application had none of them. */
export interface Gap {
  from_seq: number;
  /** 'expired': away for longer than the resume window; 'caps': more waited than may be kept. Others may follow. */
  reason: string;
  timestamp: string;
}

/** The body of each event by its name. */
export interface Bodies {
  started: Started;
  step: Update;
  progress: Update;
  log: Log;
  artifact: Artifact;
  result: Result;
  error: Failure;
  gap: Gap;
}
export type EventName = keyof Bodies;

/**
 * One event of a task. (attempt, run_id) order the runs of a task; seq counts the events of a run
 * from 1, prev is the seq of the durable event before this one, 0 if there is none.
 */
export type TaskEvent = {
  [E in EventName]: {
    type: 'event';
    task_id: string;
    attempt: number;
    run_id: string;
    seq: number;
    prev: number;
    event: E;
    durable: boolean;
    /** The final event of the task. */
    last: boolean;
    body: Bodies[E];
  };
}[EventName];

/** The body of messages on workflow.<id> and workflows, named workflow: how a task stands. Their key is the task's ID. */
export interface Workflow {
  workflow_id: string;
  kind: string;
  /** The last three are final. */
  status: 'queued' | 'running' | 'succeeded' | 'failed' | 'canceled';
  current_step: number;
  /** 0 if not known. */
  total_steps: number;
  message: string;
  timestamp: string;
}

/** The body of messages on engine: the cluster as the worker server_id sees it. */
export interface Engine {
  server_id: string;
  /** blocked: it takes no publishes. */
  broker: { connected: boolean; blocked: boolean };
  workers: { server_id: string; ready: boolean; connections: number; sessions: number; channels: number; started_at: string; seen_at: string }[];
  runners: { runner: string; slots: number; running: number; kinds: string[]; seen_at: string }[];
  /** How many tasks of each kind wait. */
  queues: { kind: string; waiting: number }[];
  timestamp: string;
}

/** What answers a ClientRequest. */
export type ServerReply = Accepted | Canceling | LogLines | Subscribed | Unsubscribed | Presence | Refused | Pong;
export type ServerMessage = SocketMeta | TaskEvent | Message | Missed | Request | ServerReply | Bye;

/**
 * Returns the message in one text frame, also of a type that this version does not know, or undefined if it
 * is none, or an event whose numbers cannot order it. Never throws.
 */
export function decode(frame: unknown): ServerMessage | undefined {
  try {
    const m = JSON.parse(frame as string) as ServerMessage;
    if (m.type && (m.type !== 'event' || ([m.attempt, m.seq, m.prev].every(Number.isSafeInteger) && m.body))) return m;
  } catch {}
  return undefined;
}
