/**
 * wscluster-client keeps a browser's session with a wscluster cluster: see {@link Client}.
 * @module
 */
export { presence, subscribe } from './channels.ts';
export type { ChannelMessage, SubscribeOptions } from './channels.ts';
export { Client } from './client.ts';
export { events } from './events.ts';
export { wholeLogs } from './log.ts';
export type { ClientEvents, Options, State } from './client.ts';
export type { Reset, Step } from './order.ts';
export type { Platform, SessionStorage, Socket } from './platform.ts';
export { onRequest } from './requests.ts';
export { Task, TaskError } from './task.ts';
export type { Acceptance, LogHost, StepHandler, StepName, TaskLog } from './task.ts';
export type * from './wire.ts';
