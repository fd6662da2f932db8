// Stock clients on the server's own TLS: mqtts, wss, https, by their packages' own means.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { startServer } from "./support.mjs";

const run = promisify(execFile);

test("MQTT.js, eventsource and cometd hear a message of 100 KB inside of TLS", { timeout: 60_000 }, async () => {
    const folder = await mkdtemp(path.join(tmpdir(), "fanwire-tls-"));
    const file = (name) => path.join(folder, name);
    await run("openssl", ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
        "-keyout", file("key.pem"), "-out", file("cert.pem"), "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]);
    const both = 'tls = "optional"\n';
    await writeFile(file("fanwire.toml"), `[tls]\ncert_file = "cert.pem"\nkey_file = "key.pem"\n[http]\n${both}[mqtt]\n${both}`);
    const server = await startServer("--config", file("fanwire.toml"));
    try {
        const port = (url) => new URL(url).port;
        const program = path.join(path.dirname(fileURLToPath(import.meta.url)), "tls_clients.mjs");
        const urls = [`https://localhost:${port(server.http)}`, `mqtts://localhost:${port(server.mqtt)}`];
        const env = { ...process.env, NODE_EXTRA_CA_CERTS: file("cert.pem") };
        const { stdout } = await run(process.execPath, [program, ...urls], { env });
        const names = ["mqtts", "wss", "eventsource", "websocket", "long-polling"];
        assert.deepEqual(JSON.parse(stdout), names.map((name) => [name, true]));
    } finally {
        await server.kill();
        await rm(folder, { recursive: true });
    }
});
