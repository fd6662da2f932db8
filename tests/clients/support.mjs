// Starts the real server for a test file and gives it the few things that every test needs.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import net from "node:net";
import path from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

/** The repository's root. */
export const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");

// Not FANWIRE_…: the server reads those as its configuration, and refuses names that it does not know.
const BINARY = process.env.FW_TEST_BINARY ?? path.join(ROOT, "target/release/fanwire");
const EMBEDDED = process.env.FW_TEST_EMBEDDED ?? path.join(ROOT, "target/release/examples/embedded_subscriber");
const SERVICE = process.env.FW_TEST_SERVICE ?? path.join(ROOT, "target/release/examples/bayeux_service");

const children = new Set();
process.on("exit", () => {
    for (const child of children) {
        child.kill("SIGKILL");
    }
});

/** A running server on free ports. */
class Server {
    constructor(child, lines) {
        this.child = child;
        this.lines = lines;
        this.exited = once(child, "exit").then(([code, signal]) => {
            children.delete(child);
            return { code, signal };
        });
    }

    /** Reads where it listens: the first line it prints. */
    async ready() {
        const line = await Promise.race([
            once(this.lines, "line").then(([text]) => text),
            this.exited.then(({ code }) => assert.fail(`the server ended with ${code} before it listened`)),
        ]);
        const listening = /^listening http=(\S+) mqtt=(\S+)(?: |$)/.exec(line);
        assert.ok(listening, `unexpected first line: ${line}`);
        this.authority = listening[1];
        this.http = `http://${listening[1]}`;
        this.ws = `ws://${listening[1]}`;
        this.mqtt = `mqtt://${listening[2]}`;
        return this;
    }

    /** Publishes over HTTP and returns the parsed receipt. Without a channel the payload is an item that names its own. */
    async publish(channel, payload, { query = "", type = "application/json" } = {}) {
        const target = channel === null ? "/v1/publish" : `/v1/publish/${channel}`;
        const response = await fetch(`${this.http}${target}${query}`, {
            method: "POST",
            headers: type ? { "Content-Type": type } : {},
            body: payload,
        });
        const answer = await response.text();
        assert.equal(response.status, 200, answer);
        return JSON.parse(answer);
    }

    /** The raw text of a GET. */
    async text(pathname) {
        const response = await fetch(this.http + pathname);
        assert.equal(response.status, 200, pathname);
        return response.text();
    }

    /** Asks it to stop and waits for its exit code. */
    async terminate() {
        this.child.kill("SIGTERM");
        return (await this.exited).code;
    }

    /** Ends it at once. */
    async kill() {
        if (children.has(this.child)) {
            this.child.kill("SIGKILL");
            await this.exited;
        }
    }
}

async function start(binary, args) {
    const child = spawn(binary, ["--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0", ...args], {
        stdio: ["ignore", "pipe", process.env.FW_TEST_LOG ? "inherit" : "ignore"],
    });
    children.add(child);
    return new Server(child, createInterface({ input: child.stdout })).ready();
}

/** Starts the `fanwire` binary. */
export function startServer(...args) {
    return start(BINARY, args);
}

/** Starts `examples/embedded_subscriber.rs`: a Rust service that embeds the broker and prints what it receives. */
export function startEmbedded(...args) {
    return start(EMBEDDED, args);
}

/** Starts `examples/bayeux_service.rs`: a Rust service that answers on `/service/...`. */
export function startService(...args) {
    return start(SERVICE, args);
}

/** An event stream, as the socket that it comes over: whoever wants a slow reader does not read it. */
export async function eventStream(server, channel, agent = "test") {
    const [host, port] = server.authority.split(":");
    const socket = net.connect(Number(port), host);
    await once(socket, "connect");
    socket.write(`GET /sse/${channel} HTTP/1.1\r\nHost: ${server.authority}\r\nUser-Agent: ${agent}\r\n\r\n`);
    await once(socket, "readable");
    return socket;
}

/** A TCP proxy whose connections a test can cut, as a bad network does. */
export class Cuttable {
    static async to(authority) {
        const proxy = new Cuttable();
        const [host, port] = authority.split(":");
        proxy.sockets = new Set();
        proxy.connections = 0;
        proxy.server = net.createServer((client) => {
            proxy.connections += 1;
            const upstream = net.connect(Number(port), host);
            for (const [from, into] of [[client, upstream], [upstream, client]]) {
                proxy.sockets.add(from);
                from.on("error", () => {});
                from.on("close", () => {
                    proxy.sockets.delete(from);
                    into.destroy();
                });
                from.pipe(into);
            }
        });
        proxy.server.listen(0, "127.0.0.1");
        await once(proxy.server, "listening");
        proxy.authority = `127.0.0.1:${proxy.server.address().port}`;
        return proxy;
    }

    /** Resets every connection that is open now; new ones are let through. */
    cut() {
        for (const socket of this.sockets) {
            socket.resetAndDestroy();
        }
    }

    async close() {
        this.cut();
        this.server.close();
        await once(this.server, "close");
    }
}

/** Waits until `condition` holds, and says what it waited for if it never does. */
export async function until(what, condition, { within = 10_000 } = {}) {
    const deadline = Date.now() + within;
    for (;;) {
        const value = await condition();
        if (value) {
            return value;
        }
        if (Date.now() > deadline) {
            assert.fail(`not within ${within} ms: ${typeof what === "function" ? what() : what}`);
        }
        await pause(10);
    }
}

export function pause(milliseconds) {
    return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

/** A port that was free a moment ago. */
export async function freePort() {
    const probe = net.createServer().listen(0, "127.0.0.1");
    await once(probe, "listening");
    const { port } = probe.address();
    probe.close();
    await once(probe, "close");
    return port;
}
