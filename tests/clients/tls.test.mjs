// The server's own TLS: stock clients by their packages' own means, and WebSockets over HTTP/2.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import http2 from "node:http2";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { launch } from "./browser.mjs";
import { startServer, until } from "./support.mjs";

const run = promisify(execFile);

let folder;
let server;
let secure;
const file = (name) => path.join(folder, name);

before(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "fanwire-tls-"));
    await run("openssl", ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
        "-keyout", file("key.pem"), "-out", file("cert.pem"), "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]);
    const both = 'tls = "optional"\n';
    await writeFile(file("fanwire.toml"),
        `[tls]\ncert_file = "cert.pem"\nkey_file = "key.pem"\n[http]\n${both}[mqtt]\n${both}[logging]\naccess = true\n`);
    server = await startServer("--config", file("fanwire.toml"));
    secure = `https://localhost:${new URL(server.http).port}`;
});
after(async () => {
    await server?.kill();
    await rm(folder, { recursive: true });
});

test("MQTT.js, eventsource and cometd hear a message of 100 KB inside of TLS", { timeout: 60_000 }, async () => {
    const program = path.join(path.dirname(fileURLToPath(import.meta.url)), "tls_clients.mjs");
    const urls = [secure, `mqtts://localhost:${new URL(server.mqtt).port}`];
    const env = { ...process.env, NODE_EXTRA_CA_CERTS: file("cert.pem") };
    const { stdout } = await run(process.execPath, [program, ...urls], { env });
    const names = ["mqtts", "wss", "eventsource", "websocket", "long-polling"];
    assert.deepEqual(JSON.parse(stdout), names.map((name) => [name, true]));
});

/** A text frame or a close, masked with zeros. */
function frame(first, text) {
    const payload = Buffer.from(text);
    assert.ok(payload.length < 65_536);
    const length = payload.length < 126 ? [0x80 | payload.length] : [0xfe, payload.length >> 8, payload.length & 0xff];
    return Buffer.concat([Buffer.from([first, ...length, 0, 0, 0, 0]), payload]);
}

for (const over of ["TLS", "plain HTTP"]) {
    test(`Node's http2 client has WebSockets as streams, over ${over}`, { timeout: 60_000 }, async () => {
        const ca = await readFile(file("cert.pem"));
        const session = over === "TLS" ? http2.connect(secure, { ca }) : http2.connect(server.http);
        const [settings] = await once(session, "remoteSettings");
        assert.equal(settings.enableConnectProtocol, true);
        const stream = session.request({
            ":method": "CONNECT", ":protocol": "websocket", ":path": "/cometd", "sec-websocket-version": "13",
        }, { endStream: false });
        const [head] = await once(stream, "response");
        assert.equal(head[":status"], 200);
        let come = Buffer.alloc(0);
        stream.on("data", (data) => (come = Buffer.concat([come, data])));
        const shake = { channel: "/meta/handshake", version: "1.0", supportedConnectionTypes: ["websocket"] };
        stream.write(frame(0x81, JSON.stringify([shake])));
        await until(() => `a reply, not ${come}`, () => come.includes('"successful":true'));
        // Another stream of the same connection meanwhile.
        const health = session.request({ ":path": "/healthz" });
        assert.equal((await once(health, "response"))[0][":status"], 200);
        health.resume();
        come = Buffer.alloc(0);
        const ended = once(stream, "end");
        stream.write(frame(0x88, "\x03\xe8"));
        await ended;
        assert.equal(come[0], 0x88, "a close frame, and then the end");
        const refused = session.request({ ":method": "CONNECT", ":protocol": "other", ":path": "/cometd" });
        assert.equal((await once(refused, "response"))[0][":status"], 501);
        session.destroy();
    });
}

test("Chromium opens its WebSockets on the connection that it has", { timeout: 60_000 }, async () => {
    const browser = await launch();
    try {
        const context = await browser.newContext({ ignoreHTTPSErrors: true });
        const page = await context.newPage();
        await page.goto(secure);
        // The page itself has one open by then, to Bayeux.
        await page.locator("#bayeux-state", { hasText: /^open$/ }).waitFor();
        const accepted = async () => {
            const text = await server.text("/metrics");
            return Number(/^fanwire_accepted_connections_total (\d+)$/m.exec(text)[1]);
        };
        const before = await accepted();
        const said = await page.evaluate(() => Promise.all([97, 98, 99].map((name) => new Promise((resolve, reject) => {
            const socket = new WebSocket(`wss://${location.host}/mqtt`, "mqtt");
            socket.binaryType = "arraybuffer";
            // CONNECT of MQTT 3.1.1 with a name of one letter.
            socket.onopen = () => socket.send(new Uint8Array([16, 13, 0, 4, 77, 81, 84, 84, 4, 2, 0, 60, 0, 1, name]));
            socket.onmessage = ({ data }) => {
                socket.onclose = ({ code }) => resolve([socket.protocol, [...new Uint8Array(data)], code]);
                socket.close(1000);
            };
            socket.onerror = () => reject(new Error("no WebSocket"));
        }))));
        assert.deepEqual(said, Array(3).fill(["mqtt", [32, 2, 0, 0], 1000]));
        // Who asks for the number may have had to connect anew.
        assert.ok(await accepted() - before <= 1, "the three are streams of the page's connection");
        const connections = await (await fetch(`${server.http}/v1/connections`)).json();
        assert.ok(JSON.stringify(connections).includes("bayeux"), JSON.stringify(connections));
        await page.click("#publish button");
        await page.locator("#total-bayeux", { hasText: "1" }).waitFor();
        await context.close();
    } finally {
        await browser.close();
    }
});

test("the page prints addresses of TLS where MQTT has no other, and paths that were moved", { timeout: 60_000 }, async () => {
    await writeFile(file("moved.toml"), '[tls]\ncert_file = "cert.pem"\nkey_file = "key.pem"\n[mqtt]\ntls = "required"\n'
        + '[http]\ntls = "off"\n[bayeux]\nmount = ["/faye", "/cometd"]\n');
    const moved = await startServer("--config", file("moved.toml"));
    const browser = await launch();
    try {
        const page = await browser.newPage();
        await page.goto(moved.http);
        await page.locator("#bayeux-state", { hasText: /^open$/ }).waitFor();
        const snippet = async (name) => {
            await page.getByRole("tab", { name }).click();
            return page.locator("#snippet").textContent();
        };
        const port = new URL(moved.mqtt).port;
        assert.match(await snippet("MQTT.js"), new RegExp(`// .* mqtts://127\\.0\\.0\\.1:${port}\\n.*ws://127\\.0\\.0\\.1:\\d+/mqtt"`, "s"));
        assert.doesNotMatch(await snippet("MQTT.js"), /mqtt:\/\//);
        assert.match(await snippet("CometD"), /"http:\/\/127\.0\.0\.1:\d+\/faye"/);
        assert.match(await snippet("curl"), /\/sse\/demo/);
    } finally {
        await browser.close();
        await moved.kill();
    }
});
