// Calls emit(room, message) for each line "room json" that comes to a port of loopback.
import net from "node:net";

export function takeLines(port, emit) {
  net
    .createServer((socket) => {
      let rest = "";
      socket.setEncoding("utf8");
      socket.on("error", () => {}); // the publisher is gone
      socket.on("data", (chunk) => {
        const lines = (rest + chunk).split("\n");
        rest = lines.pop();
        for (const line of lines) {
          const at = line.indexOf(" ");
          emit(line.slice(0, at), JSON.parse(line.slice(at + 1)));
        }
      });
    })
    .listen(port, "127.0.0.1");
}
