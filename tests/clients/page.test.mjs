// The page at `/` in headless Chromium, at the size of a phone and of a desk, light and dark.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { chromium } from "playwright-core";
import { startServer } from "./support.mjs";

let server;
let browser;
before(async () => {
    server = await startServer();
    const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
    browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu"] });
});
after(async () => {
    await browser?.close();
    await server.kill();
});

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

test("host metrics are shown as soon as they come", { timeout: 60_000 }, async () => {
    const { page, close } = await open({});
    assert.equal(await page.isVisible("#host"), false);
    await server.publish("host/metrics", '{"load":{"1m":0.5},"uptime_secs":12}');
    await page.locator("#host-figures dt", { hasText: "load 1m" }).waitFor();
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
