// The page at `/` in headless Chromium, at the size of a phone and of a desk, light and dark: its tab *Try*.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import path from "node:path";
import { after, before, test } from "node:test";
import { LOOKS, launch, nameless, openPage, scrollsSideways, sentence } from "./browser.mjs";
import { ROOT, startServer, until } from "./support.mjs";

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

/** Opens the page and waits until it listens over both protocols. */
async function open(look) {
    const opened = await openPage(browser, server, { look });
    for (const state of ["#sse-state", "#bayeux-state"]) {
        await opened.page.locator(state, { hasText: /^open$/ }).waitFor();
    }
    return opened;
}

for (const { name, ...look } of LOOKS) {
    test(`what the form publishes is shown over both protocols, once (${name})`, { timeout: 60_000 }, async () => {
        const { page, faults, close } = await open(look);
        const text = '{"text":"<b>hello</b>","n":12345678901234567890}';
        await page.fill("#data", text);
        for (let n = 1; n <= 3; n += 1) {
            await page.click("#publish button");
            await page.locator("#receipt", { hasText: "receiver" }).waitFor();
            for (const over of ["SSE", "Bayeux"]) {
                const item = page.locator("#messages li", { hasText: over }).first();
                await item.locator("pre", { hasText: text }).waitFor();
                await page.locator(`#total-${over.toLowerCase()}`, { hasText: String(n) }).waitFor();
            }
            assert.equal(await page.locator("#messages li").count(), n, "each message once, also where it says the same as another");
        }
        assert.equal(await page.locator("#messages b").count(), 0, "data is never markup");
        assert.equal(await scrollsSideways(page), false, "the page does not scroll sideways");
        assert.deepEqual(faults, []);
        await close();
    });
}

test("what is not recorded is shown once, too", { timeout: 60_000 }, async () => {
    const unrecorded = await startServer("--config", path.join(ROOT, "tests/clients/page_unrecorded.toml"));
    const { page, close } = await openPage(browser, unrecorded);
    for (const state of ["#sse-state", "#bayeux-state"]) {
        await page.locator(state, { hasText: /^open$/ }).waitFor();
    }
    for (let n = 1; n <= 2; n += 1) {
        await page.click("#publish button");
        await page.locator("#receipt", { hasText: "not recorded" }).waitFor();
        await page.locator("#total-sse", { hasText: String(n) }).waitFor();
        await page.locator("#total-bayeux", { hasText: String(n) }).waitFor();
    }
    assert.equal(await page.locator("#messages li").count(), 2);
    await close();
    await unrecorded.kill();
});

test("figures of the host are drawn as soon as they come, whichever transports bring them", { timeout: 60_000 }, async () => {
    const { page, faults, close } = await open({});
    assert.equal(await page.isVisible("#host"), false);
    // Both transports bring the messages: the second copy of one is no step in time.
    await page.fill("#filter", "**");
    await page.click("#listen button");
    for (const state of ["#sse-state", "#bayeux-state"]) {
        await page.locator(state, { hasText: /^open$/ }).waitFor();
    }
    const script = path.join(ROOT, "examples/host-metrics/publish.sh");
    for (let n = 0; n < 3; n += 1) {
        execFileSync(script, [server.http]);
        await page.waitForTimeout(150);
    }
    const tile = (name) => page.locator("#host-tiles > div", { hasText: name }).locator("output");
    for (const [name, figure] of [["CPU", /^[\d.]+ %$/], ["Memory", /^[\d.]+ %$/], ["Network in", /B\/s$/], ["Network out", /B\/s$/]]) {
        await tile(name).filter({ hasText: figure }).waitFor();
        assert.match(await tile(name).textContent(), figure);
    }
    assert.match(await page.textContent("#host-figures"), /load 1m/);
    assert.equal(await page.locator("#messages li", { hasText: "host/metrics" }).count(), 3);
    assert.deepEqual(faults, []);
    await close();
});

test("the graph of what comes has a scale and a time", { timeout: 60_000 }, async () => {
    const { page, close } = await open({});
    for (let n = 0; n < 20; n += 1) {
        await server.publish("demo", "1");
    }
    await page.locator("#rate output", { hasText: /^[1-9]/ }).waitFor();
    assert.match(await page.textContent("#rate .scale"), /^\d+.*0$/);
    assert.equal(await page.textContent("#rate .times"), "1 min agonow");
    await until("a line", async () => /M.*L/.test(await page.getAttribute("#rate path.line-0", "d")));
    await close();
});

test("the lines to copy name this server, its real ports and the channel of the form", { timeout: 60_000 }, async () => {
    const { page, close } = await open({});
    await page.fill("#channel", "chat/room 1");
    const wanted = {
        curl: [`${server.http}/v1/publish/chat/room%201`],
        EventSource: [`new EventSource("${server.http}/sse/chat/room%201")`],
        CometD: ['cometd.subscribe("/chat/room 1"'],
        "MQTT.js": [`mqtt.connect("${server.ws}/mqtt")`, `from Node also ${server.mqtt}`],
    };
    for (const [name, lines] of Object.entries(wanted)) {
        await page.getByRole("tab", { name }).click();
        for (const line of lines) {
            assert.ok((await page.textContent("#snippet")).includes(line), `${name}: ${line}`);
        }
    }
    await close();
});

test("a refusal is told in the server's own sentence", { timeout: 60_000 }, async () => {
    const { page, faults, close } = await open({});
    await page.fill("#channel", "a/*/b");
    await page.click("#publish button");
    await page.locator("#receipt.failed").waitFor();
    assert.equal(await page.textContent("#receipt"), await sentence(server, "/v1/publish/a/*/b", { method: "POST", body: "x" }));
    await page.fill("#filter", "a/**/b");
    await page.click("#listen button");
    await page.locator("#sse-state", { hasText: "refused" }).waitFor();
    const expected = await sentence(server, "/sse?channel=a/**/b");
    assert.match(await page.textContent("#listen-problem"), new RegExp(`^Server-Sent Events: ${expected.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")}$`, "m"));
    assert.match(await page.textContent("#listen-problem"), /^Bayeux: has no words for this filter$/m);
    assert.equal(await scrollsSideways(page), false);
    assert.deepEqual(faults, []);
    await close();
});

test("every field has a label and every button a name", { timeout: 60_000 }, async () => {
    const { page, close } = await open({});
    assert.deepEqual(await nameless(page), []);
    await close();
});
