// A server that stops while stock clients are connected.

import assert from "node:assert/strict";
import { test } from "node:test";
import { connectCometd, connectMqtt, openEvents, subscribeCometd } from "./stock.mjs";
import { startServer, until } from "./support.mjs";

test("clients of every kind are let go within the bound and the exit code is 0", { timeout: 40_000 }, async () => {
    const server = await startServer();
    const events = await openEvents(server, "/sse/a");
    const device = await connectMqtt(server, "tcp", { protocolVersion: 5 });
    let reason;
    device.on("disconnect", ({ reasonCode }) => (reason = reasonCode));
    device.on("error", () => {});
    const page = await connectCometd(server, "websocket");
    await subscribeCometd(page, "/a", () => {});
    const begun = Date.now();
    assert.equal(await server.terminate(), 0);
    assert.ok(Date.now() - begun <= 20_000);
    await until("the reason", () => reason !== undefined);
    assert.equal(reason, 0x8b, "server shutting down");
    events.close();
    await new Promise((resolve) => page.disconnect(resolve)).catch(() => {});
});
