// The page's tab *Watch* with several nodes over a real NATS server: what it shows of them, and what it does to their clients.

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, readdir, rm, writeFile } from "node:fs/promises";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import { launch, live, quiet, scrollsSideways, watching } from "./browser.mjs";
import { ROOT, eventStream, startServer, until } from "./support.mjs";

const PATIENCE = { timeout: 90_000 };

/** Where a NATS server is that keeps messages: of 2.12 or newer. */
function findNats() {
    const places = [process.env.NATS_SERVER, path.join(ROOT, ".cache/venv/bin/nats-server")];
    places.push(...(process.env.PATH ?? "").split(":").map((folder) => path.join(folder, "nats-server")));
    return places.find((place) => {
        if (!place || !existsSync(place)) return false;
        const [, major, minor] = /v(\d+)\.(\d+)/.exec(execFileSync(place, ["--version"], { encoding: "utf8" })) ?? [];
        return Number(major) > 2 || (Number(major) === 2 && Number(minor) >= 12);
    });
}

const NATS = findNats();
const skip = NATS ? false : "no nats-server of 2.12 or newer";
let folder;
let browser;
let nats;
let nodes = [];

async function startNats() {
    const child = spawn(NATS, ["-a", "127.0.0.1", "-p", "-1", "--ports_file_dir", folder, "-js", "-sd", folder], { stdio: "ignore" });
    let url;
    await until("NATS listens", async () => {
        const file = (await readdir(folder)).find((name) => name.endsWith(".ports"));
        url = file && /nats:\/\/[\d.]+:\d+/.exec(await readFile(path.join(folder, file), "utf8"))?.[0];
        return url !== undefined;
    });
    return { child, url };
}

/** Says something to NATS, to which it answers nobody. */
async function tellNats(subject) {
    const { hostname, port } = new URL(nats.url);
    const socket = net.connect(Number(port), hostname);
    socket.write(`CONNECT {"verbose":false}\r\nPUB ${subject} 0\r\n\r\nPING\r\n`);
    let said = "";
    for await (const part of socket) {
        said += part;
        if (said.includes("PONG")) break;
    }
    socket.destroy();
}

async function startNode(name) {
    const file = path.join(folder, `${name}.toml`);
    const namespace = `[[namespaces]]\nname = "orders"\ndurability = "always"\n`;
    await writeFile(file, `[cluster]\nservers = ["${nats.url}"]\nnode = "${name}"\nreplicas = 1\n${namespace}`);
    return startServer("--config", file);
}

before(async () => {
    if (!NATS) return;
    folder = await mkdtemp(path.join(tmpdir(), "fanwire-"));
    nats = await startNats();
    nodes = [await startNode("fan-1"), await startNode("fan-2")];
    browser = await launch();
});
after(async () => {
    await browser?.close();
    await Promise.all(nodes.map((node) => node.kill()));
    nats?.child.kill("SIGKILL");
    if (folder) await rm(folder, { recursive: true, force: true });
});

test("nodes are shown with their states, connections and rates, and clients of all with their node", { ...PATIENCE, skip }, async () => {
    const { page, faults, close } = await watching(browser, nodes[0]);
    await quiet(page);
    await live(page);
    const row = (name) => page.locator("#nodes tr", { has: page.locator("th", { hasText: name }) });
    const cell = (name, at) => row(name).locator("td").nth(at);
    for (const name of ["fan-1", "fan-2"]) {
        await row(name).locator("output.open", { hasText: "ready" }).waitFor();
        await cell(name, 0).getByText("streams are there").waitFor();
    }
    await page.locator("#cluster-note", { hasText: "2 nodes." }).waitFor();
    await row("fan-1").getByText("answers here").waitFor();
    // One client on each, of the same channel.
    const here = await eventStream(nodes[0], "chat", "here/1");
    const there = await eventStream(nodes[1], "chat", "there/1");
    await until("each has one", async () => (await cell("fan-1", 1).textContent()) === "1" && (await cell("fan-2", 1).textContent()) === "1");
    const sending = setInterval(() => nodes[1].publish("chat", "1").catch(() => {}), 20);
    try {
        await until("what goes and comes", async () => /^[1-9]/.test(await cell("fan-2", 2).textContent()) && /^[1-9]/.test(await cell("fan-1", 3).textContent()));
    } finally {
        clearInterval(sending);
    }
    await page.click("#connections-form button");
    await page.locator("#connections-note", { hasText: "2 connections." }).waitFor();
    await page.locator("#connections th", { hasText: "on fan-1" }).waitFor();
    await page.selectOption("#connections-scope", "node");
    await page.locator("#connections-note", { hasText: "1 connection." }).waitFor();
    await page.selectOption("#connections-scope", "cluster");
    await page.locator("#connections-note", { hasText: "2 connections." }).waitFor();
    // That of the other node is closed from here.
    await page.fill("#connections-find", "fan-2");
    await page.click("#connections-form button");
    await page.locator("#connections tr", { hasText: "on fan-2" }).getByRole("button").click();
    await page.locator("#connection-details", { hasText: "fan-2" }).waitFor();
    const ended = new Promise((resolve) => there.once("close", resolve).resume());
    await page.fill("#connection-reason", "enough");
    await page.locator("#connection-close button").click();
    await ended;
    await page.locator("#connections-note", { hasText: "Nobody" }).or(page.locator("#connections-note", { hasText: "0 connections" })).waitFor();
    here.destroy();
    assert.deepEqual(faults, []);
    await close();
});

test("a node that is paused is silent, then gone, and nodes whose stream was deleted are degraded", { ...PATIENCE, skip }, async () => {
    const { page, faults, close } = await watching(browser, nodes[0], { viewport: { width: 375, height: 740 } });
    await live(page);
    const row = (name) => page.locator("#nodes tr", { has: page.locator("th", { hasText: name }) });
    await row("fan-2").locator("output", { hasText: "ready" }).waitFor();
    assert.equal(await scrollsSideways(page), false);
    nodes[1].child.kill("SIGSTOP");
    await row("fan-2").locator("output.failed", { hasText: "silent" }).waitFor();
    await page.locator("#cluster-note", { hasText: "not all have answered" }).waitFor();
    await row("fan-2").locator("output.failed", { hasText: "gone" }).waitFor();
    await page.locator("#cluster-note", { hasText: "1 node." }).waitFor();
    nodes[1].child.kill("SIGCONT");
    await row("fan-2").locator("output.open", { hasText: "ready" }).waitFor();
    // Somebody deletes what the nodes keep what is retained in.
    await tellNats("$JS.API.STREAM.DELETE.fw_RET0");
    await row("fan-1").locator("output.failed", { hasText: "degraded" }).waitFor();
    await row("fan-1").getByText("stream of retained messages: lost").waitFor();
    assert.deepEqual(faults, []);
    await close();
});

test("a server by itself shows no cluster and asks for none", { ...PATIENCE, skip }, async () => {
    const alone = await startServer();
    const { page, faults, close } = await watching(browser, alone);
    const asked = [];
    page.on("request", (request) => asked.push(request.url()));
    await live(page);
    await page.click("#connections-form button");
    await page.locator("#busiest-note", { hasText: "nothing was recorded" }).waitFor();
    assert.equal(await page.locator("#cluster").isVisible(), false);
    assert.equal(await page.locator("#connections-of-nodes").isVisible(), false);
    assert.deepEqual(asked.filter((url) => url.endsWith("/v1/nodes")), []);
    assert.ok(asked.some((url) => url.includes("/v1/connections?") && !url.includes("scope")), asked.join());
    assert.deepEqual(faults, []);
    await close();
    await alone.kill();
});
