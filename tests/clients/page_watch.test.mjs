// The page's tab *Watch* in headless Chromium: what it shows, by mouse, by keyboard, on a phone.

import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import http from "node:http";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import WebSocket from "ws";
import { LOOKS, launch, live, nameless, openPage, quiet, scrollsSideways, sentence, watching } from "./browser.mjs";
import { eventStream, startServer, until } from "./support.mjs";

const PATIENCE = { timeout: 60_000 };

let open;
let browser;
let folder;
before(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "fanwire-"));
    open = await startServer();
    browser = await launch();
});
after(async () => {
    await browser?.close();
    await open?.kill();
    await rm(folder, { recursive: true, force: true });
});

test("nobody is connected", PATIENCE, async () => {
    const { page, close } = await watching(browser, open);
    await quiet(page);
    await live(page);
    await page.click("#connections-form button");
    await page.locator("#connections-note", { hasText: "Nobody is connected." }).waitFor();
    await page.locator("#slow-note", { hasText: "Nobody has anything waiting." }).waitFor();
    await page.locator("#busiest-note", { hasText: "nothing was recorded" }).waitFor();
    const connections = page.locator(".tile", { hasText: "Connections" }).locator("output");
    await until("the figures say so too", async () => (await connections.allTextContents()).join() === "0,0,0");
    await close();
});

test("rates, connections and memory are drawn with numbers, a scale and a time", PATIENCE, async () => {
    const { page, faults, close } = await watching(browser, open);
    await live(page);
    const sending = setInterval(() => open.publish("rates/a", "1").catch(() => {}), 20);
    const tile = (title) => page.locator(".tile", { has: page.locator(".title", { hasText: title }) });
    try {
        await tile("Messages in").locator("output", { hasText: /^[1-9]/ }).waitFor();
        await tile("Memory").locator("output", { hasText: /^[\d.]+ MB$/ }).waitFor();
        await until("lines", async () => /M.*L/.test(await tile("Messages in").locator("path.line-0").getAttribute("d")));
    } finally {
        clearInterval(sending);
    }
    // The page's own two.
    assert.deepEqual(await tile("Connections").locator(".values > .value").allTextContents(), ["SSE 1", "MQTT 0", "Bayeux 1"]);
    assert.match(await tile("Messages in").locator(".scale").textContent(), /^\d+\d+0$/);
    assert.equal(await tile("Messages in").locator(".times").textContent(), "1 min agonow");
    assert.match(await tile("Messages in").getByRole("img").getAttribute("aria-label"), /^Messages in, per second: [\d,.]+ at \d\d:\d\d:\d\d; highest/);
    assert.equal(await page.getByRole("img").count(), 8);
    await page.locator("#lanes-details summary").click();
    await page.locator("#lanes tr").first().waitFor();
    assert.deepEqual(faults, []);
    await close();
});

test("the busiest channels are ranked, and one leads to its history", PATIENCE, async () => {
    const { page, faults, close } = await watching(browser, open);
    await live(page);
    await page.locator("#busiest-note", { hasText: "In the last" }).waitFor();
    for (let n = 0; n < 30; n += 1) {
        await open.publish("busy/most", `{"n":12345678901234567890,"at":${n}}`);
        if (n % 3 === 0) await open.publish("busy/less", "<b>markup</b>", { type: "text/plain" });
    }
    await page.getByRole("button", { name: "History of busy/less" }).first().waitFor();
    const names = await page.locator("#busiest th").allTextContents();
    assert.ok(names.indexOf("busy/most") < names.indexOf("busy/less"), names.join());
    await page.locator("#busiest").getByRole("button", { name: "History of busy/most" }).click();
    await page.locator("#history-note", { hasText: "All 30 that the log holds." }).waitFor();
    assert.equal(await page.locator("#history li pre").first().textContent(), '{"n":12345678901234567890,"at":29}');
    await page.fill("#history-channel", "busy/less");
    await page.press("#history-channel", "Enter");
    await page.locator("#history li pre", { hasText: "<b>markup</b>" }).first().waitFor();
    assert.equal(await page.locator("#history b").count(), 0, "data is never markup");
    await page.fill("#history-channel", "a/**/b");
    await page.press("#history-channel", "Enter");
    await page.locator("#history-note.failed", { hasText: await sentence(open, "/v1/history/a/**/b") }).waitFor();
    assert.deepEqual(faults, []);
    await close();
});

test("webhooks show how their hosts do, what waits, and dead letters that are delivered anew", PATIENCE, async () => {
    let takes = false;
    const told = [];
    const backend = http.createServer((request, response) => {
        told.push(request.headers["webhook-id"]);
        request.resume().on("end", () => response.writeHead(takes ? 204 : 422).end());
    });
    await new Promise((resolve) => backend.listen(0, "127.0.0.1", resolve));
    const file = path.join(folder, "hooks.toml");
    const hook = (id, url, channel) => `[[gateway.webhooks]]
id = "${id}"
url = "${url}"
secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
channels = ["${channel}"]
events = ["message"]
`;
    // Nobody listens at the port of the second one.
    const gone = http.createServer();
    await new Promise((resolve) => gone.listen(0, "127.0.0.1", resolve));
    const nowhere = `http://127.0.0.1:${gone.address().port}/`;
    await new Promise((resolve) => gone.close(resolve));
    await writeFile(file, hook("refuses", `http://127.0.0.1:${backend.address().port}/`, "a") + hook("away", nowhere, "b/**"));
    const server = await startServer("--config", file);
    await server.publish("a", "1");
    for (let n = 0; n < 6; n += 1) await server.publish(`b/${n}`, "1");
    const { page, faults, close } = await watching(browser, server);
    await live(page);
    const rows = (id) => page.locator("#hooks tr", { has: page.locator("th", { hasText: id }) });
    await rows("away").locator("output", { hasText: "left alone" }).waitFor();
    assert.match(await rows("away").locator("td").nth(1).textContent(), /^6 · /);
    await rows("refuses").locator("output", { hasText: "called" }).waitFor();
    assert.equal(await rows("refuses").locator("td").nth(2).textContent(), "1");
    takes = true;
    await page.locator("#letters").getByRole("button", { name: /^Replay .* of refuses$/ }).click();
    await page.locator("#letters-note", { hasText: "No dead letters." }).waitFor();
    await until("it was told again", () => told.length === 2);
    assert.equal(told[1], told[0]);
    assert.deepEqual(faults, []);
    await close();
    await server.kill();
    backend.close();
    backend.closeAllConnections();

    const without = await watching(browser, open);
    await live(without.page);
    await without.page.locator("#connections-note:not(:empty)").waitFor();
    assert.equal(await without.page.locator("#hooks-card").isVisible(), false, "nobody is called");
    await without.close();
});

test("routes show how their origins do and what is under way", PATIENCE, async () => {
    const origin = http.createServer(() => {});
    await new Promise((resolve) => origin.listen(0, "127.0.0.1", resolve));
    const gone = http.createServer();
    await new Promise((resolve) => gone.listen(0, "127.0.0.1", resolve));
    const nowhere = gone.address().port;
    await new Promise((resolve) => gone.close(resolve));
    const file = path.join(folder, "routes.toml");
    const route = (id, port) => `[[gateway.routes]]
id = "${id}"
dialect = "proxy"
path = "/${id}/**"
origin = "http://127.0.0.1:${port}"
`;
    await writeFile(file, route("shop", origin.address().port) + route("away", nowhere));
    const server = await startServer("--config", file);
    const held = new AbortController();
    const asked = fetch(`${server.http}/shop/held`, { signal: held.signal }).catch(() => {});
    for (let n = 0; n < 6; n += 1) await fetch(`${server.http}/away/x`);
    const { page, faults, close } = await watching(browser, server);
    await live(page);
    const rows = (id) => page.locator("#routes tr", { has: page.locator("th", { hasText: id }) });
    await rows("away").locator("output", { hasText: "left alone" }).waitFor();
    await rows("shop").locator("output", { hasText: "asked" }).waitFor();
    await rows("shop").locator("td", { hasText: /^1$/ }).waitFor();
    held.abort();
    await asked;
    await rows("shop").locator("td", { hasText: /^0$/ }).waitFor();
    assert.deepEqual(faults, []);
    await close();
    await server.kill();
    origin.close();
    origin.closeAllConnections();
});

test("gateways show which of their functions are left alone, and who is connected", PATIENCE, async () => {
    const functions = http.createServer((request, response) => response.end('{"statusCode":200}'));
    await new Promise((resolve) => functions.listen(0, "127.0.0.1", resolve));
    const gone = http.createServer();
    await new Promise((resolve) => gone.listen(0, "127.0.0.1", resolve));
    const nowhere = gone.address().port;
    await new Promise((resolve) => gone.close(resolve));
    const file = path.join(folder, "gateways.toml");
    await writeFile(file, `[[gateway.aws]]
name = "chat"
path = "/dev"
route_selection = "$request.body.action"
integrations.main = { url = "http://127.0.0.1:${functions.address().port}/main" }
integrations.away = { url = "http://127.0.0.1:${nowhere}/away?key=secret", timeout = "50ms" }
routes."$connect" = { integration = "main" }
routes.away = { integration = "away" }
breaker = { min_calls = 1, open = "1m" }
`);
    const server = await startServer("--config", file);
    const socket = new WebSocket(`${server.ws}/dev`);
    await new Promise((resolve) => socket.addEventListener("open", resolve));
    const answered = new Promise((resolve) => socket.addEventListener("message", resolve));
    socket.send('{"action":"away"}');
    await answered;
    const { page, faults, close } = await watching(browser, server);
    await live(page);
    const row = page.locator("#gateways tr", { has: page.locator("th", { hasText: "aws:chat" }) });
    const of = (name) => row.locator("div", { hasText: name });
    await of("away ·").locator("output", { hasText: "left alone" }).waitFor();
    await of("main ·").locator("output", { hasText: "called" }).waitFor();
    await row.locator("td", { hasText: /^1$/ }).waitFor();
    assert.equal((await row.innerText()).includes("secret"), false, "a query may be one");
    socket.close();
    await row.locator("td", { hasText: /^1$/ }).waitFor({ state: "detached" });
    assert.deepEqual(faults, []);
    await close();
    await server.kill();
    functions.close();
    functions.closeAllConnections();
});

test("channels and retained messages are a tree", PATIENCE, async () => {
    const server = await startServer("--config", await unrecorded());
    await server.publish("house/kitchen/temp", "21.5", { query: "?retain=true" });
    await server.publish("house/hall", '"on"', { query: "?retain=true" });
    const listening = await eventStream(server, "house/kitchen");
    const { page, faults, close } = await watching(browser, server);
    await live(page);
    const tree = page.locator("#channels");
    // Neither has a subscriber nor a place in the log: only that they retain something keeps them.
    await tree.getByRole("button", { name: "Retained message of house/kitchen/temp, 4 B" }).waitFor();
    await tree.getByRole("button", { name: "Retained message of house/hall, 4 B" }).waitFor();
    await tree.getByText("1 subscribed").first().waitFor();
    await tree.getByRole("button", { name: "Retained message of house/kitchen/temp, 4 B" }).click();
    await page.locator("#history li pre", { hasText: "21.5" }).waitFor();
    await page.fill("#channels-below", "house/kitchen/");
    await page.press("#channels-below", "Enter");
    await page.locator("#channels-note", { hasText: "2 shown" }).waitFor();
    assert.equal(await tree.getByRole("button", { name: /house\/hall/ }).count(), 0);
    assert.deepEqual(faults, []);
    listening.destroy();
    await close();
    await server.kill();
});

async function unrecorded() {
    const file = path.join(folder, "unrecorded.toml");
    await writeFile(file, "[log]\nenabled = false\n");
    return file;
}

test("the tabs, the tables and the dialog are used by keyboard", PATIENCE, async () => {
    const { page, close } = await openPage(browser, open);
    const focused = () => page.evaluate(() => document.activeElement.id || document.activeElement.textContent);
    await page.getByRole("tab", { name: "Try" }).focus();
    await page.keyboard.press("ArrowRight");
    assert.equal(await focused(), "tab-watch");
    assert.equal(await page.getByRole("tab", { name: "Watch", selected: true }).count(), 1);
    assert.equal(await page.getByRole("tabpanel", { name: "Watch" }).isVisible(), true);
    assert.equal(await page.isVisible("#try"), false);
    assert.equal(await page.getAttribute("#tab-try", "tabindex"), "-1", "one stop for all tabs");
    await live(page);
    await page.locator("#connections tr").first().waitFor();
    const link = page.locator("#connections").getByRole("button").first();
    const name = await link.textContent();
    await link.focus();
    await page.keyboard.press("Enter");
    await page.getByRole("dialog", { name: "Connection" }).waitFor();
    await page.keyboard.press("Escape");
    await page.getByRole("dialog", { name: "Connection" }).waitFor({ state: "hidden" });
    assert.equal(await focused(), name, "back to where one was");
    // Each second brings figures; the focus stays where it is.
    await open.publish("focus/here", "1");
    const channel = page.locator("#busiest").getByRole("button", { name: "History of focus/here" });
    await channel.focus();
    await page.waitForTimeout(2_500);
    assert.equal(await focused(), "focus/here");
    await page.getByRole("tab", { name: "Watch" }).focus();
    await page.keyboard.press("Home");
    assert.equal(await focused(), "tab-try");
    await close();
});

test("tables have headers, regions names and fields labels", PATIENCE, async () => {
    const listening = await eventStream(open, "roles/a");
    const { page, close } = await watching(browser, open);
    await live(page);
    await open.publish("roles/a", "1");
    await page.locator("#busiest tr").first().waitFor();
    await page.locator("#connections tr").first().waitFor();
    assert.deepEqual(await nameless(page), []);
    for (const name of ["Busiest channels", "Connections"]) {
        const table = page.getByRole("table", { name });
        assert.ok((await table.getByRole("columnheader").count()) >= 3, name);
        assert.ok((await table.getByRole("rowheader").count()) >= 1, name);
        assert.equal(await page.getByRole("region", { name }).count(), 2, `the section and what scrolls in it: ${name}`);
    }
    // What changes every second is not read out: only changes of state are.
    const spoken = await page.evaluate(() => [...document.querySelectorAll("#charts output")].filter((output) => output.getAttribute("aria-live") !== "off").length);
    assert.equal(spoken, 0);
    assert.ok((await page.locator("[role=status]").count()) >= 4);
    await close();
    listening.destroy();
});

for (const { name, ...look } of LOOKS) {
    test(`nothing scrolls sideways (${name})`, PATIENCE, async () => {
        const listening = await eventStream(open, "roles/a");
        const { page, faults, close } = await watching(browser, open, look);
        await live(page);
        await open.publish(`long/${"name-".repeat(40)}`, JSON.stringify({ text: "word".repeat(200) }), { query: "?retain=true" });
        await page.locator("#busiest tr").first().waitFor();
        await page.locator("#connections tr").first().waitFor();
        await page.locator("#busiest").getByRole("button").first().click();
        await page.locator("#history li").first().waitFor();
        assert.equal(await scrollsSideways(page), false);
        await page.locator("#connections").getByRole("button").first().click();
        await page.getByRole("dialog", { name: "Connection" }).getByText("Subscriptions").waitFor();
        assert.equal(await scrollsSideways(page), false);
        assert.deepEqual(faults, []);
        await close();
        listening.destroy();
    });
}

test("the store is shown where there is one", PATIENCE, async () => {
    const none = await watching(browser, open);
    await live(none.page);
    assert.equal(await none.page.isVisible("#store"), false, "this server keeps nothing on a disk");
    await none.close();

    const file = path.join(folder, "store.toml");
    await writeFile(file, `
[store]
directory = "kept"
min_free_bytes = "1 KiB"
[[namespaces]]
name = "orders"
store = { max_messages = 1000 }
`);
    const server = await startServer("--config", file);
    const { page, faults, close } = await watching(browser, server);
    await live(page);
    await page.locator("#store-namespaces tr", { hasText: "all others" }).getByText("–").waitFor();
    for (let n = 0; n < 3; n += 1) await server.publish("orders/1", `{"n":${n}}`);
    await server.publish("other", "{}");
    const figure = (name) => page.locator("#store-figures > div", { has: page.locator("dt", { hasText: name }) }).locator("dd");
    await figure("Head").getByText("4", { exact: true }).waitFor();
    assert.equal(await page.locator("#store-state").textContent(), "takes messages");
    for (const [name, written] of [["On disk", /^[\d.]+ [kM]B$/], ["Free", /^[\d.]+ [MGT]B$/], ["Last commit", /^[\d.]+ m?s$/], ["Waiting", /^0$/]]) {
        assert.match(await figure(name).textContent(), written, name);
    }
    const rows = page.locator("#store-namespaces tr");
    await rows.nth(1).waitFor();
    assert.deepEqual((await rows.locator("th").allTextContents()).sort(), ["all others", "orders"]);
    const orders = page.locator("#store-namespaces tr", { hasText: "orders" }).locator("td");
    const [messages, held, oldest] = await orders.allTextContents();
    assert.equal(messages, "3");
    assert.match(held, /^\d+ B$/);
    assert.match(oldest, /^\d+ (s|min) ago$/);
    assert.equal(await scrollsSideways(page), false);
    assert.deepEqual(await nameless(page), []);
    assert.deepEqual(faults, []);
    await close();
    await server.kill();
});
