// Started by lifecycle.test.mjs: subscribes with every client, says so, and waits to be killed.

import { BAYEUX_TRANSPORTS, connectCometd, connectMqtt, openEvents, subscribeCometd } from "./stock.mjs";

const [authority, mqtt] = process.argv.slice(2);
const server = { authority, http: `http://${authority}`, ws: `ws://${authority}`, mqtt };

await openEvents(server, "/sse/chat/all");
for (const transport of ["tcp", "websocket"]) {
    const client = await connectMqtt(server, transport);
    await client.subscribeAsync("chat/#", { qos: 1 });
}
for (const transport of BAYEUX_TRANSPORTS) {
    const client = await connectCometd(server, transport);
    await subscribeCometd(client, "/chat/**", () => {});
}
process.stdout.write("subscribed\n");
