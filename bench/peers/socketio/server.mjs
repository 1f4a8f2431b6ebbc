// A Socket.IO server with nothing around it: node server.mjs PORT CONTROL [REDIS]. A client joins the room that it names.
// What is emitted to rooms comes as lines to the port CONTROL (0: none), or through Redis.
import { createServer } from "node:http";
import { createAdapter } from "@socket.io/redis-adapter";
import { createClient } from "redis";
import { Server } from "socket.io";
import { takeLines } from "./lines.mjs";

const [port, control, redis] = process.argv.slice(2).map(Number);
const http = createServer();
const io = new Server(http, { transports: ["websocket"], perMessageDeflate: false, serveClient: false });
if (redis) {
  const pub = createClient({ url: `redis://127.0.0.1:${redis}` });
  const sub = pub.duplicate();
  await Promise.all([pub.connect(), sub.connect()]);
  io.adapter(createAdapter(pub, sub));
}
io.on("connection", (socket) => socket.on("join", async (room, done) => { await socket.join(room); done(); }));
if (control) takeLines(control, (room, message) => io.to(room).emit("m", message));
http.listen({ port, host: "127.0.0.1", backlog: 4096 });
