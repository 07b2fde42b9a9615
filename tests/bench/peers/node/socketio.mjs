// Two nodes of Socket.IO in processes of their own, joined by its cluster adapter. Each listens on a port of its own;
// the first line that it prints says which, and the processes' ids.
import cluster from "node:cluster";
import { createServer } from "node:http";
import { createAdapter, setupPrimary } from "@socket.io/cluster-adapter";
import { Server } from "socket.io";

const NODES = 2;
const PATIENCE_MS = 3_600_000; // readers that are cheap answer no pings

if (cluster.isPrimary) {
  setupPrimary();
  const nodes = [];
  for (let i = 0; i < NODES; i++) {
    cluster.fork().on("message", (told) => {
      if (!told?.port) return;
      nodes.push(told);
      if (nodes.length === NODES) console.log(`ready ${JSON.stringify(nodes)}`);
    });
  }
  process.on("SIGTERM", () => {
    for (const worker of Object.values(cluster.workers)) worker.process.kill("SIGKILL");
    process.exit(0);
  });
} else {
  const http = createServer();
  const io = new Server(http, {
    adapter: createAdapter(),
    transports: ["websocket"],
    perMessageDeflate: false,
    pingInterval: PATIENCE_MS,
  });
  io.on("connection", (socket) => {
    const { room } = socket.handshake.auth;
    if (room) socket.join(room);
    socket.on("say", (to, text) => io.to(to).emit("t", text));
    socket.emit("in");
  });
  // `exclusive`: not a port that the nodes share.
  http.listen({ port: 0, host: "127.0.0.1", exclusive: true, backlog: 1024 }, () => {
    process.send({ port: http.address().port, pid: process.pid });
  });
}
