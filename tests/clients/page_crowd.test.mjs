// The page's tab *Watch* in headless Chromium on a server with many connections, one of them slow.
//
// FW_TEST_CONNECTIONS: how many there are; scripts/soak has 10,000.

import assert from "node:assert/strict";
import { once } from "node:events";
import { after, before, test } from "node:test";
import { launch, live, quiet, watching } from "./browser.mjs";
import { eventStream, startServer, until } from "./support.mjs";

const CONNECTIONS = Number(process.env.FW_TEST_CONNECTIONS ?? 250);

let server;
let browser;
before(async () => {
    server = await startServer();
    browser = await launch();
});
after(async () => {
    await browser?.close();
    await server?.kill();
});

test("a slow reader is named with what waits for it", { timeout: 60_000 }, async () => {
    const slow = await eventStream(server, "slow/one", "the-slow-one");
    slow.pause();
    const { page, faults, close } = await watching(browser, server);
    await live(page);
    const big = JSON.stringify("x".repeat(200_000));
    const rows = page.locator("#slow tr");
    // As much as sockets hold and a little more: beyond its outbox it would be closed.
    await until("something waits", async () => {
        await server.publish("slow/one", big);
        const { connections } = JSON.parse(await server.text("/v1/connections?channel=slow/one"));
        return connections.some(({ queue }) => queue.bytes > 0);
    });
    await rows.first().waitFor();
    assert.match(await rows.first().locator("td").first().textContent(), /^[1-9]\d* · [\d.]+ [kM]B$/);
    await rows.first().locator("td", { hasText: /^[1-9]\d* s$/ }).waitFor();
    await rows.first().getByRole("button").click();
    const dialog = page.getByRole("dialog", { name: "Connection" });
    await dialog.getByText("the-slow-one").waitFor();
    await dialog.getByRole("button", { name: "Close the connection" }).click();
    await dialog.waitFor({ state: "hidden" });
    await until("it is gone", async () => (await rows.count()) === 0, { within: 20_000 });
    assert.deepEqual(faults, []);
    slow.destroy();
    await close();
});

test(`one of ${CONNECTIONS} connections is found and closed`, { timeout: 60_000 + CONNECTIONS * 20 }, async () => {
    const sockets = [];
    for (let first = 0; first < CONNECTIONS; first += 50) {
        const some = Array.from({ length: Math.min(50, CONNECTIONS - first) }, (_, n) => eventStream(server, `crowd/${first + n}`, `crowd-${first + n}-`));
        sockets.push(...(await Promise.all(some)));
    }
    const { page, faults, close } = await watching(browser, server);
    await quiet(page);
    await live(page);
    const rows = page.locator("#connections tr");
    const note = page.locator("#connections-note");
    await page.click("#connections-form button");
    await page.locator("#connections-note", { hasText: "100 connections; there are more." }).waitFor();
    await page.click("#connections-more");
    await page.locator("#connections-note", { hasText: "200 connections" }).waitFor();
    assert.equal(await rows.count(), 200);
    assert.equal(new Set(await rows.evaluateAll((all) => all.map((row) => row.dataset.key))).size, 200, "each once");

    const wanted = CONNECTIONS - 3;
    await page.fill("#connections-find", `crowd-${wanted}-`);
    await page.press("#connections-find", "Enter");
    await page.locator("#connections-note", { hasText: `1 connection, of ${CONNECTIONS.toLocaleString("en-US")} looked at` }).waitFor();
    await page.selectOption("#connections-protocol", "mqtt");
    await page.locator("#connections-note", { hasText: "0 connections" }).waitFor();
    await page.selectOption("#connections-protocol", "sse");
    await page.locator("#connections-note", { hasText: "1 connection," }).waitFor();

    await rows.first().getByRole("button").click();
    const dialog = page.getByRole("dialog", { name: "Connection" });
    await dialog.getByText(`crowd/${wanted}`).waitFor();
    let goodbye = "";
    sockets[wanted].on("data", (bytes) => { goodbye += bytes; });
    const ended = once(sockets[wanted], "end");
    await page.fill("#connection-reason", "lunch");
    await page.press("#connection-reason", "Enter");
    await dialog.waitFor({ state: "hidden" });
    await page.locator("#connections-note", { hasText: "0 connections" }).waitFor();
    await ended;
    assert.match(goodbye, /: lunch/);
    const connections = page.locator(".tile", { hasText: "Connections" }).locator("output").first();
    await until("the figures follow", async () => (await connections.textContent()) === (CONNECTIONS - 1).toLocaleString("en-US"));
    assert.equal(await note.isVisible(), true);
    assert.deepEqual(faults, []);
    sockets.forEach((socket) => socket.destroy());
    await close();
});
