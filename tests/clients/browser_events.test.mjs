// EventSource in headless Chromium: a page of another origin listens, is cut, resumes, and is told of a gap.

import assert from "node:assert/strict";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import http from "node:http";
import path from "node:path";
import { after, before, test } from "node:test";
import { chromium } from "playwright-core";
import { Cuttable, ROOT, startServer, until } from "./support.mjs";

const PAGE = path.join(ROOT, "examples/recipes/eventsource-cookie.html");

let server;
let browser;
let pages;
before(async () => {
    server = await startServer();
    browser = await chromium.launch({
        executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
        args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"],
    });
    // Another port is another origin.
    const page = await readFile(PAGE);
    pages = http.createServer((_, response) => response.writeHead(200, { "Content-Type": "text/html" }).end(page));
    pages.listen(0, "127.0.0.1");
    await once(pages, "listening");
});
after(async () => {
    await browser?.close();
    pages?.close();
    await server?.kill();
});

/** Runs in the page: listens, and keeps what comes. */
function listen(url) {
    const kept = { messages: [], gaps: [], opened: 0, errors: 0, ids: [] };
    const source = new EventSource(url);
    source.onopen = () => (kept.opened += 1);
    source.onerror = () => (kept.errors += 1);
    source.onmessage = ({ data, lastEventId }) => (kept.messages.push(data), kept.ids.push(lastEventId));
    source.addEventListener("gap", ({ data }) => kept.gaps.push(JSON.parse(data)));
    source.addEventListener("price", ({ data }) => kept.messages.push(`price ${data}`));
    Object.assign(window, { kept, source });
}

async function pageOn(url) {
    const page = await browser.newPage();
    await page.goto(`http://127.0.0.1:${pages.address().port}/?url=about:blank`);
    await page.evaluate(listen, url);
    return page;
}

const kept = (page) => page.evaluate(() => window.kept);

test("a browser that begins with an id of the history is cut before its first event and misses nothing", { timeout: 110_000 }, async () => {
    const proxy = await Cuttable.to(server.authority);
    await server.publish("browser/before", "0");
    const { last } = JSON.parse(await server.text("/v1/history/browser/cut?limit=1&order=desc"));
    const page = await pageOn(`http://${proxy.authority}/sse/browser/cut?last_event_id=${last}`);
    await until("the stream to open", async () => (await kept(page)).opened === 1);
    for (let n = 1; n <= 4; n += 1) {
        proxy.cut();
        await server.publish("browser/cut", String(n));
        await until(`message ${n}`, async () => (await kept(page)).messages.length >= n, { within: 20_000 });
    }
    const { messages, gaps, opened, errors } = await kept(page);
    assert.deepEqual([messages, gaps], [["1", "2", "3", "4"], []]);
    assert.ok(opened >= 5 && errors >= 4, `opened ${opened} times, ${errors} errors`);
    await page.close();
    await proxy.close();
});

test("line ends, names, an empty payload and a forgery arrive as they should", { timeout: 110_000 }, async () => {
    const page = await pageOn(`${server.http}/sse/browser/lines`);
    await until("the stream to open", async () => (await kept(page)).opened === 1);
    const type = "text/plain";
    const last = [];
    for (const payload of [" two\r\nlines\r", "x\rid: forged\r\revent: price\rdata: y", "", "\u{feff}bom"]) {
        last.push((await server.publish("browser/lines", payload, { type })).id);
    }
    await server.publish("browser/lines", "7", { query: "?event=price" });
    await until("all of it", async () => (await kept(page)).messages.length === 5);
    const { messages, ids } = await kept(page);
    assert.deepEqual(messages, [" two\nlines\n", "x\nid: forged\n\nevent: price\ndata: y", "", "\u{feff}bom", "price 7"]);
    assert.deepEqual(ids, last);
    await page.close();
});

test("a browser that asks for an id of another life is told of a gap and stays", { timeout: 110_000 }, async () => {
    const page = await pageOn(`${server.http}/sse?channel=browser/gap&last_event_id=elsewhere-7`);
    await until("the gap", async () => (await kept(page)).gaps.length === 1);
    const [gap] = (await kept(page)).gaps;
    assert.deepEqual(Object.keys(gap), ["channel", "requested", "first", "next"]);
    assert.deepEqual([gap.channel, gap.requested, gap.next], ["browser/gap", "elsewhere-7", null]);
    await server.publish("browser/gap", "1");
    await until("what comes after it", async () => (await kept(page)).messages.length === 1);
    await page.close();
});

test("a server that stops is left until it is back, and one that refuses is left for good", { timeout: 110_000 }, async () => {
    const short = await startServer("--config", path.join(ROOT, "tests/binary/short_window.toml"));
    const page = await pageOn(`${short.http}/sse/browser/stop`);
    await until("the stream to open", async () => (await kept(page)).opened === 1);
    assert.equal(await short.terminate(), 0);
    await until("an error", async () => (await kept(page)).errors > 0);
    assert.notEqual(await page.evaluate(() => window.source.readyState), 2, "it goes on trying");
    const refused = await pageOn(`${server.http}/sse`);
    await until("the refusal", async () => (await kept(refused)).errors === 1);
    assert.equal(await refused.evaluate(() => window.source.readyState), 2);
    await refused.close();
    await page.close();
});

test("the web page of docs/getting-started.md shows what is published", async () => {
    const text = await readFile(path.join(ROOT, "docs/getting-started.md"), "utf8");
    const [, shown] = /```html\n([\s\S]*?)```/.exec(text);
    assert.ok(shown.includes("http://127.0.0.1:8080"));
    const body = shown.replace("http://127.0.0.1:8080", server.http);
    const own = http.createServer((_, response) => response.writeHead(200, { "Content-Type": "text/html" }).end(body));
    own.listen(0, "127.0.0.1");
    await once(own, "listening");
    const page = await browser.newPage();
    await page.goto(`http://localhost:${own.address().port}/page.html`);
    const channels = async () => JSON.parse(await server.text("/v1/channels?prefix=chat/room1")).channels;
    await until("the stream", async () => (await channels()).length === 1);
    await server.publish("chat/room1", '{"text":"hello"}');
    await page.locator("li", { hasText: "hello" }).waitFor();
    await page.close();
    own.close();
});
