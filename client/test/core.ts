// The client with both transports, and nothing that a page need not import: for the test of its size.
export { Client, TaskError } from '../src/index.ts';
