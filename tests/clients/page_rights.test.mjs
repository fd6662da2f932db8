// The page's tab *Watch* in headless Chromium on a server with rights, and on one that is full or gone: what it says then.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import { launch, live, scrollsSideways, sentence, watching } from "./browser.mjs";
import { startServer } from "./support.mjs";

const PATIENCE = { timeout: 60_000 };
const SECRETS = { operator: "the operator's secret, which nobody guesses", listener: "the listener's, which does not let it watch" };
const sha256 = (text) => createHash("sha256").update(text).digest("hex");
const RIGHTS = `
[[anonymous.allow]]
actions = ["subscribe"]
channels = ["public/**"]
[[keys]]
id = "operator"
hash = "sha256:${sha256(SECRETS.operator)}"
rights = [{ actions = ["publish", "subscribe", "history", "presence", "manage"], channels = ["**"] }]
[[keys]]
id = "listener"
hash = "sha256:${sha256(SECRETS.listener)}"
rights = [{ actions = ["subscribe"], channels = ["**"] }]
`;

let guarded;
let browser;
let folder;
before(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "fanwire-"));
    await writeFile(path.join(folder, "rights.toml"), RIGHTS);
    guarded = await startServer("--config", path.join(folder, "rights.toml"));
    browser = await launch();
});
after(async () => {
    await browser?.close();
    await guarded?.kill();
    await rm(folder, { recursive: true, force: true });
});

const refused = (page) => page.locator("#figures-state", { hasText: "refused" }).waitFor();

test("without rights the server's sentence is shown and nothing else is asked", PATIENCE, async () => {
    const { page, faults, close } = await watching(browser, guarded);
    const asked = [];
    page.on("request", (request) => asked.push(new URL(request.url()).pathname));
    await refused(page);
    assert.equal(await page.textContent("#figures-problem"), await sentence(guarded, "/v1/figures"));
    assert.equal(await page.getByRole("alert").count(), 1);
    await page.waitForTimeout(500);
    assert.deepEqual(asked.filter((pathname) => pathname.startsWith("/v1/") && pathname !== "/v1/figures"), []);
    assert.deepEqual(faults, []);
    await close();
});

test("a token that is refused, one without the right, and one with it", PATIENCE, async () => {
    const { page, faults, close } = await watching(browser, guarded);
    const bearer = (secret) => ({ Authorization: `Bearer ${secret}` });
    for (const secret of ["nobody's", SECRETS.listener]) {
        await page.fill("#token", secret);
        await page.press("#token", "Enter");
        const expected = await sentence(guarded, "/v1/figures", { headers: bearer(secret) });
        await page.locator("#figures-problem", { hasText: expected }).waitFor();
        await refused(page);
    }
    // What anonymous clients may not hear the listener's token lets one hear, over both transports.
    await page.getByRole("tab", { name: "Try" }).click();
    for (const state of ["#sse-state", "#bayeux-state"]) {
        await page.locator(state, { hasText: /^open$/ }).waitFor();
    }
    await page.fill("#token", "nobody's");
    await page.click("#token-form button[type=submit]");
    const expected = await sentence(guarded, "/sse/demo", { headers: bearer("nobody's") });
    await page.locator("#listen-problem", { hasText: expected }).waitFor();
    await page.locator("#bayeux-state", { hasText: "refused" }).waitFor();
    assert.match(await page.textContent("#listen-problem"), /^Bayeux: handshake denied$/m);
    assert.equal(await scrollsSideways(page), false);

    await page.getByRole("tab", { name: "Watch" }).click();
    await page.fill("#token", SECRETS.operator);
    await page.press("#token", "Enter");
    await live(page);
    assert.equal(await page.isVisible("#figures-problem"), false);
    assert.equal(await page.inputValue("#token"), "", "it is not left to be read on the screen");
    assert.deepEqual(faults, []);
    await close();
});

test("the token stays in its tab of the browser and in nothing else", PATIENCE, async () => {
    const { page, context, close } = await watching(browser, guarded);
    await page.fill("#token", SECRETS.operator);
    await page.press("#token", "Enter");
    await live(page);
    await page.reload();
    await live(page);
    assert.deepEqual(await page.evaluate(() => [localStorage.length, document.cookie, location.href.includes("secret")]), [0, "", false]);
    const other = await context.newPage();
    await other.goto(`${guarded.http}/#watch`);
    await refused(other);
    await page.click("#token-forget");
    await refused(page);
    await page.reload();
    await refused(page);
    await close();
});

test("one more than may watch is told so and let in when there is room", PATIENCE, async () => {
    const server = await startServer();
    const watchers = [];
    for (let n = 0; n < 16; n += 1) {
        const aborting = new AbortController();
        const answer = await fetch(`${server.http}/v1/figures`, { headers: { Accept: "text/event-stream" }, signal: aborting.signal });
        assert.equal(answer.status, 200);
        watchers.push(aborting);
    }
    const { page, close } = await watching(browser, server);
    await page.locator("#figures-problem", { hasText: "16 clients watch the figures already" }).waitFor();
    watchers.forEach((aborting) => aborting.abort());
    await live(page);
    await close();
    await server.kill();
});

test("a server that goes is missed, and said so", PATIENCE, async () => {
    const server = await startServer();
    const { page, close } = await watching(browser, server);
    await live(page);
    await server.terminate();
    await page.locator("#figures-state", { hasText: "connecting" }).waitFor();
    await page.locator("#figures-problem", { hasText: "the server does not answer" }).waitFor();
    await close();
});
