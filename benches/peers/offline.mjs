// serverless-offline by itself, as tests/clients has it installed: `node offline.mjs ADDRESS DELAY` serves one WebSocket API
// whose function takes DELAY milliseconds, in the same process.

import { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const [address, delay] = process.argv.slice(2);
const [host, port] = address.split(":");
const here = path.dirname(fileURLToPath(import.meta.url));
const clients = createRequire(path.join(here, "../../tests/clients/package.json"));
const { default: ServerlessOffline } = await import(pathToFileURL(clients.resolve("serverless-offline")));

const routeResponseSelectionExpression = "$default";
const events = ["$connect", "$default", "$disconnect"].map((route) => ({ websocket: { route, routeResponseSelectionExpression } }));
const functions = { all: { handler: "offline_function.handler", environment: { DELAY: delay }, events } };
const log = () => {};
for (const name of ["notice", "info", "debug", "verbose", "warning", "error", "success"]) log[name] = () => {};
const service = {
    service: "load",
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
const options = { websocketPort: Number(port), host, noSponsor: true, lambdaPort: 0, useInProcess: true, noTimeout: true };
const quiet = { log, progress: { get: () => ({ notice() {}, remove() {} }) }, writeText() {} };
await new ServerlessOffline(serverless, options, quiet).start();
