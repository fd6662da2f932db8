// The pictures of docs/page.md: a server with something to see. FW_TEST_SCREENSHOTS names the folder that they go to; without
// it nothing is written, and the test is that the page can show all of it.

import assert from "node:assert/strict";
import { once } from "node:events";
import path from "node:path";
import { test } from "node:test";
import mqtt from "mqtt";
import { launch, openPage, scrollsSideways } from "./browser.mjs";
import { ROOT, eventStream, startServer } from "./support.mjs";

const FOLDER = process.env.FW_TEST_SCREENSHOTS && path.resolve(ROOT, process.env.FW_TEST_SCREENSHOTS);
/** For the charts to have a shape. */
const SECONDS = FOLDER ? 45 : 3;

/** Publishes until something waits for who does not read. */
async function keepBusy(server) {
    const { connections } = JSON.parse(await server.text("/v1/connections?channel=camera/1"));
    if (connections.every(({ queue }) => queue.bytes === 0)) {
        await server.publish("camera/1", JSON.stringify("x".repeat(400_000)));
    }
}

test("the page shows a server at work", { timeout: 120_000 }, async () => {
    const server = await startServer();
    const devices = ["kitchen", "hall", "cellar", "attic"].map((name) => mqtt.connect(server.mqtt, { clientId: `sensor-${name}` }));
    await Promise.all(devices.map((device) => once(device, "connect")));
    await Promise.all(devices.map((device) => device.subscribeAsync("house/+/set")));
    const sockets = await Promise.all(Array.from({ length: 12 }, (_, n) => eventStream(server, n % 3 ? "house/**" : `orders/${n}`, "dashboard/2.1")));
    sockets.forEach((socket) => socket.resume());
    const lazy = await eventStream(server, "camera/1", "viewer/0.9");
    lazy.pause();
    const browser = await launch();
    const opened = [
        await openPage(browser, server, { look: { viewport: { width: 1280, height: 900 } }, hash: "#watch" }),
        await openPage(browser, server, { look: { viewport: { width: 375, height: 740 }, colorScheme: "dark" }, hash: "#watch" }),
    ];
    for (let tenth = 0; tenth < SECONDS * 10; tenth += 1) {
        const load = 6 + Math.round(5 * Math.sin(tenth / 60)) + (tenth % 50 < 8 ? 10 : 0);
        for (let n = 0; n < load; n += 1) {
            const room = ["kitchen", "hall", "cellar", "attic"][(n * n + tenth) % 4];
            devices[n % 4].publish(`house/${room}/temperature`, (18 + n / 10).toFixed(1), { retain: true });
        }
        if (tenth % 3 === 0) await server.publish(`orders/${tenth % 9}`, `{"number":${tenth},"total":"12.50"}`);
        // One reader takes nothing from shortly before the end on: the server would close it after ten seconds.
        if (tenth > SECONDS * 10 - 50) await keepBusy(server);
        await new Promise((resolve) => setTimeout(resolve, 100));
    }
    for (const { page } of opened) {
        await page.locator("#slow tr").first().waitFor();
        await page.click("#connections-form button");
        await page.click("#channels-form button");
        await page.locator("#channels-note", { hasText: "shown" }).waitFor();
        await page.fill("#history-channel", "orders/*");
        await page.press("#history-channel", "Enter");
        await page.locator("#history li").first().waitFor();
        await page.locator("#history").focus();
        await page.evaluate(() => scrollTo(0, 0));
        assert.equal(await scrollsSideways(page), false);
    }
    const [desk, phone] = opened.map(({ page }) => page);
    if (FOLDER) {
        await desk.screenshot({ path: path.join(FOLDER, "page-watch.png"), clip: { x: 80, y: 0, width: 1120, height: 1240 }, fullPage: true });
        await phone.screenshot({ path: path.join(FOLDER, "page-phone.png"), clip: { x: 0, y: 0, width: 375, height: 1180 }, fullPage: true });
    }
    assert.deepEqual(opened.flatMap(({ faults }) => faults), []);
    await browser.close();
    [...sockets, lazy].forEach((socket) => socket.destroy());
    await Promise.all(devices.map((device) => device.endAsync(true)));
    await server.kill();
});
