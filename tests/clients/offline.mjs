// serverless-offline by itself, without the Serverless framework around it.

import ServerlessOffline from "serverless-offline";

/** Serves one WebSocket API at `host:port` by `functions`, which lie in `folder` and run in this process. */
export async function serve({ name, folder, functions, host, port }) {
    const log = () => {};
    for (const level of ["notice", "info", "debug", "verbose", "warning", "error", "success"]) log[level] = () => {};
    const service = {
        service: name,
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
    const serverless = { service, config: { servicePath: folder }, serviceDir: folder, configurationInput: { provider: {} } };
    const options = { websocketPort: Number(port), host, noSponsor: true, lambdaPort: 0, useInProcess: true, noTimeout: true };
    const quiet = { log, progress: { get: () => ({ notice() {}, remove() {} }) }, writeText() {} };
    await new ServerlessOffline(serverless, options, quiet).start();
}
