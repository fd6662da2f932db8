// serverless-offline by itself, without the Serverless framework around it: `node offline_service.mjs PORT COLLECTOR` serves one
// WebSocket API at PORT, whose functions hand each event to COLLECTOR.

import path from "node:path";
import { fileURLToPath } from "node:url";
import ServerlessOffline from "serverless-offline";

const [port, collector] = process.argv.slice(2);
const here = path.dirname(fileURLToPath(import.meta.url));
const functions = {
    all: {
        handler: "offline_function.handler",
        environment: { COLLECTOR: collector },
        events: ["$connect", "$default", "$disconnect", "send"].map((route) => ({ websocket: { route } })),
    },
};
const log = () => {};
for (const name of ["notice", "info", "debug", "verbose", "warning", "error", "success"]) log[name] = () => {};
const service = {
    service: "chat",
    custom: {},
    functions,
    provider: {
        name: "aws",
        stage: "dev",
        region: "us-east-1",
        runtime: "nodejs20.x",
        websocketsApiRouteSelectionExpression: "$request.body.action",
    },
    getAllFunctions: () => Object.keys(functions),
    getFunction: (name) => functions[name],
    getAllEventsInFunction: (name) => functions[name].events,
};
const serverless = { service, config: { servicePath: here }, serviceDir: here, configurationInput: { provider: {} } };
const options = { websocketPort: Number(port), host: "127.0.0.1", noSponsor: true, lambdaPort: 0, useInProcess: true, noTimeout: true };
await new ServerlessOffline(serverless, options, { log, progress: { get: () => ({ notice() {}, remove() {} }) }, writeText() {} }).start();
console.log("listening");
