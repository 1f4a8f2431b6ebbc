// Publishes what comes as lines to rooms of Socket.IO servers, through Redis: node emitter.mjs CONTROL REDIS.
import { Emitter } from "@socket.io/redis-emitter";
import { createClient } from "redis";
import { takeLines } from "./lines.mjs";

const [control, redis] = process.argv.slice(2).map(Number);
const client = createClient({ url: `redis://127.0.0.1:${redis}` });
await client.connect();
const emitter = new Emitter(client);
takeLines(control, (room, message) => emitter.to(room).emit("m", message));
