// The reference server of Durable Streams, with its store in memory.
import { DurableStreamTestServer } from "@durable-streams/server";

const server = new DurableStreamTestServer({ port: 0, host: "127.0.0.1", compression: false });
const address = await server.start();
console.log(`ready ${address}`);
