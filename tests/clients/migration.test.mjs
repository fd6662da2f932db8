// The pages from-cometd.md, from-faye.md and from-mosquitto.md: their configuration, with the clients they speak of.

import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { describe, test } from "node:test";
import faye from "faye";
import { connectMqtt } from "./stock.mjs";
import { ROOT, startServer, until } from "./support.mjs";

faye.logger = { error() {}, warn() {} };

/** The piece of configuration that a page shows, in a file of its own. */
async function configuration(page) {
    const text = await readFile(path.join(ROOT, "docs", page), "utf8");
    const [, indent, block] = /^( *)```toml\n([\s\S]*?)^ *```/m.exec(text);
    const folder = await mkdtemp(path.join(tmpdir(), "fanwire-migration-"));
    const file = path.join(folder, "fanwire.toml");
    await writeFile(file, block.replaceAll(new RegExp(`^${indent}`, "gm"), ""));
    return { file, remove: () => rm(folder, { recursive: true }) };
}

async function served(page, run) {
    const { file, remove } = await configuration(page);
    const server = await startServer("--config", file);
    try {
        await run(server);
    } finally {
        await server.kill();
        await remove();
    }
}

test("faye's client at faye's path, and a script that publishes without a session", async () => {
    await served("from-faye.md", async (server) => {
        for (const transport of ["websocket", "long-polling"]) {
            const client = new faye.Client(`${server.http}/faye`, { timeout: 20, retry: 1 });
            if (transport !== "websocket") {
                client.disable("websocket");
            }
            const heard = [];
            await client.subscribe("/chat/*", (data) => heard.push(data));
            await client.publish("/chat/room1", { text: "hello" });
            await until("the message", () => heard.length === 1);
            const body = JSON.stringify({ channel: "/chat/room1", clientId: "any", data: { text: "from a script" } });
            const headers = { "Content-Type": "application/json" };
            const answer = await fetch(`${server.http}/faye`, { method: "POST", headers, body });
            assert.equal((await answer.json())[0].successful, true);
            await until("the script's message", () => heard.length === 2);
            assert.deepEqual(heard, [{ text: "hello" }, { text: "from a script" }]);
            await client.disconnect();
        }
    });
});

test("CometD's client at another mount, with a lazy channel and a name that CometD Java takes", async () => {
    await served("from-cometd.md", async (server) => {
        const { CometD } = await import("cometd");
        const client = new CometD();
        client.configure({ url: `${server.http}/bayeux`, logLevel: "error" });
        await new Promise((resolve, reject) => client.handshake((reply) => (reply.successful ? resolve() : reject(reply))));
        const heard = [];
        const subscribed = (channel) =>
            new Promise((resolve) => client.subscribe(channel, (message) => heard.push(message.data), resolve));
        assert.equal((await subscribed("/status/a.b")).successful, true);
        await server.publish("status/a.b", '{"n":1}');
        await until("the lazy message", () => heard.length === 1);
        assert.deepEqual(heard, [{ n: 1 }]);
        await new Promise((resolve) => client.disconnect(resolve));
    });
});

describe("mosquitto's users and retained messages", () => {
    test("a user of the page needs its password", async () => {
        await served("from-mosquitto.md", async (server) => {
            const options = { protocolVersion: 5, username: "thermometer-7", password: "not the one" };
            await assert.rejects(connectMqtt(server, "tcp", options), /Bad User Name or Password|Not authorized/i);
        });
    });

    const mosquitto = ["mosquitto", "/usr/sbin/mosquitto"].find((name) => !spawnSync(name, ["-h"]).error);
    test("a bridge brings what mosquitto retains", { skip: !mosquitto && "mosquitto is not installed" }, async () => {
        const server = await startServer();
        const folder = await mkdtemp(path.join(tmpdir(), "fanwire-mosquitto-"));
        const probe = net.createServer().listen(0, "127.0.0.1");
        await once(probe, "listening");
        const { port } = probe.address();
        probe.close();
        await once(probe, "close");
        const lines = (more) => `user root\nlistener ${port} 127.0.0.1\nallow_anonymous true\n${more}`;
        const file = path.join(folder, "mosquitto.conf");
        const start = async (more) => {
            await writeFile(file, lines(more));
            const child = spawn(mosquitto, ["-c", file], { stdio: "ignore" });
            await until("mosquitto", async () => {
                const socket = net.connect(port, "127.0.0.1");
                const open = await Promise.race([once(socket, "connect").then(() => true), once(socket, "error").then(() => false)]).catch(() => false);
                socket.destroy();
                return open;
            });
            return child;
        };
        const authority = new URL(server.mqtt).host;
        const child = await start(`connection fanwire\naddress ${authority}\ntopic # both 1\n`);
        try {
            const old = { mqtt: `mqtt://127.0.0.1:${port}` };
            const client = await connectMqtt(old, "tcp");
            await client.publishAsync("state/lamp", "on", { qos: 1, retain: true });
            await until("the retained message", async () => {
                const answer = await fetch(`${server.http}/v1/retained/state/lamp`);
                return answer.status === 200 && (await answer.text()).includes("on");
            }, { within: 30_000 });
            await client.endAsync();
        } finally {
            child.kill("SIGKILL");
            await server.kill();
            await rm(folder, { recursive: true });
        }
    });
});
