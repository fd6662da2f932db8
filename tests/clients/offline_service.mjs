// `node offline_service.mjs PORT COLLECTOR` serves one WebSocket API by serverless-offline at PORT, whose functions hand each
// event to COLLECTOR.

import path from "node:path";
import { fileURLToPath } from "node:url";
import { serve } from "./offline.mjs";

const [port, collector] = process.argv.slice(2);
const folder = path.dirname(fileURLToPath(import.meta.url));
const events = ["$connect", "$default", "$disconnect", "send"].map((route) => ({ websocket: { route } }));
const functions = { all: { handler: "offline_function.handler", environment: { COLLECTOR: collector }, events } };
await serve({ name: "chat", folder, functions, host: "127.0.0.1", port });
console.log("listening");
