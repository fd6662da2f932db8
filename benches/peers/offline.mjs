// serverless-offline, as tests/clients has it installed: `node offline.mjs ADDRESS DELAY` serves one WebSocket API whose
// function takes DELAY milliseconds, in the same process.

import path from "node:path";
import { fileURLToPath } from "node:url";
import { serve } from "../../tests/clients/offline.mjs";

const [address, delay] = process.argv.slice(2);
const [host, port] = address.split(":");
const folder = path.dirname(fileURLToPath(import.meta.url));
const routeResponseSelectionExpression = "$default";
const events = ["$connect", "$default", "$disconnect"].map((route) => ({ websocket: { route, routeResponseSelectionExpression } }));
const functions = { all: { handler: "offline_function.handler", environment: { DELAY: delay }, events } };
await serve({ name: "load", folder, functions, host, port });
