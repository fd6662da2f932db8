// The page at `/` in headless Chromium, at the size of a phone and of a desk, light and dark.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import path from "node:path";
import { after, before, test } from "node:test";
import { chromium } from "playwright-core";
import { ROOT, startServer } from "./support.mjs";

let server;
let browser;
before(async () => {
    server = await startServer();
    const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
    browser = await chromium.launch({ executablePath, args: QUIET });
});
after(async () => {
    await browser?.close();
    await server?.kill();
});

// As root it needs no sandbox of its own, and a test is no reason to call home.
const QUIET = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
];
const LOOKS = [
    { name: "phone, light", viewport: { width: 360, height: 740 }, colorScheme: "light" },
    { name: "phone, dark", viewport: { width: 360, height: 740 }, colorScheme: "dark" },
    { name: "desk, light", viewport: { width: 1280, height: 900 }, colorScheme: "light" },
    { name: "desk, dark", viewport: { width: 1280, height: 900 }, colorScheme: "dark" },
];

/** Opens the page and waits until it listens over both protocols. */
async function open(look) {
    const context = await browser.newContext(look);
    const page = await context.newPage();
    const faults = [];
    page.on("console", (message) => message.type() === "error" && faults.push(message.text()));
    page.on("pageerror", (error) => faults.push(error.message));
    await page.goto(server.http);
    for (const state of ["#sse-state", "#bayeux-state"]) {
        await page.locator(state, { hasText: /^open$/ }).waitFor();
    }
    return { page, faults, close: () => context.close() };
}

for (const { name, ...look } of LOOKS) {
    test(`what the form publishes is shown over both protocols (${name})`, { timeout: 60_000 }, async () => {
        const { page, faults, close } = await open(look);
        await page.fill("#data", '{"text":"<b>hello</b>","n":12345678901234567890}');
        await page.click("#publish button");
        await page.locator("#receipt", { hasText: "receiver" }).waitFor();
        for (const over of ["SSE", "Bayeux"]) {
            const item = page.locator("#messages li", { hasText: over });
            await item.locator("pre", { hasText: '{"text":"<b>hello</b>","n":12345678901234567890}' }).first().waitFor();
        }
        assert.equal(await page.locator("#messages b").count(), 0, "data is never markup");
        const sideways = await page.evaluate(() => document.documentElement.scrollWidth > window.innerWidth);
        assert.equal(sideways, false, "the page does not scroll sideways");
        assert.deepEqual(faults, []);
        await close();
    });
}

test("figures of the host are drawn as soon as they come", { timeout: 60_000 }, async () => {
    const { page, faults, close } = await open({});
    assert.equal(await page.isVisible("#host"), false);
    const script = path.join(ROOT, "examples/host-metrics/publish.sh");
    for (let n = 0; n < 3; n += 1) {
        execFileSync(script, [server.http]);
        await page.waitForTimeout(150);
    }
    const tile = (name) => page.locator("#host-tiles > div", { hasText: name }).locator("dd").first();
    for (const [name, figure] of [["CPU", /^[\d.]+ %$/], ["Memory", /^[\d.]+ %$/], ["Network in", /B\/s$/]]) {
        await page.locator("#host-tiles > div", { hasText: name }).locator("dd", { hasText: figure }).waitFor();
        assert.match(await tile(name).textContent(), figure);
    }
    assert.match(await page.textContent("#host-figures"), /load 1m/);
    assert.deepEqual(faults, []);
    await close();
});

test("the lines to copy name this server and the channel of the form", { timeout: 60_000 }, async () => {
    const { page, close } = await open({});
    await page.fill("#channel", "chat/room 1");
    const wanted = {
        curl: `${server.http}/v1/publish/chat/room%201`,
        EventSource: `new EventSource("${server.http}/sse/chat/room%201")`,
        CometD: `cometd.subscribe("/chat/room 1"`,
        "MQTT.js": `mqtt.connect("${server.ws}/mqtt")`,
    };
    for (const [name, line] of Object.entries(wanted)) {
        await page.getByRole("tab", { name }).click();
        assert.ok((await page.textContent("#snippet")).includes(line), name);
    }
    await close();
});

test("a refused publish says why", { timeout: 60_000 }, async () => {
    const { page, close } = await open({});
    await page.fill("#channel", "a/*/b");
    await page.click("#publish button");
    await page.locator("#receipt.failed").waitFor();
    await close();
});

test("every field has a label and every button a name", { timeout: 60_000 }, async () => {
    const { page, close } = await open({});
    const nameless = await page.evaluate(() => {
        const named = (field) => field.labels?.length || field.getAttribute("aria-label") || field.textContent.trim();
        return [...document.querySelectorAll("input, textarea, button")].filter((field) => !named(field)).map((field) => field.outerHTML);
    });
    assert.deepEqual(nameless, []);
    await close();
});
