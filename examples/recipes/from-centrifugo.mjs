// A backend of Centrifugo's proxy, asked as it is used to: this stands between Fanwire's webhook and it.
//
//     CONNECT=http://app/centrifugo/connect SUBSCRIBE=… PUBLISH=… SECRET=whsec_… PORT=9100 node from-centrifugo.mjs
//
//     [[gateway.webhooks]]
//     id = "centrifugo"
//     url = "http://127.0.0.1:9100/"
//     secret = "whsec_…"
//     events = ["connect", "subscribe", "publish"]
//
// Needs the package `standardwebhooks`. A token that clients gave Centrifugo in `data` they give as a password (MQTT) or in
// `ext` (Bayeux): it arrives as `data` here.

import { createServer } from "node:http";
import { Webhook } from "standardwebhooks";

/** What Centrifugo would have asked. */
export function asked({ type, data: event }) {
    const client = { client: event.connection ?? "", transport: event.transport, protocol: "json", encoding: "json" };
    if (type === "connect") return { ...client, data: event.ext ?? (event.password && { token: event.password }) ?? {} };
    const channel = event.channel ?? event.filter;
    if (type === "subscribe") return { ...client, user: event.user ?? "", channel };
    return { ...client, user: event.user ?? "", channel, data: event.data ?? event.text, b64data: event.base64 };
}

/** What its backend's answer means here. */
export function answered({ type }, { result, error, disconnect }) {
    const no = error ?? disconnect;
    if (no) return { allow: false, reason: no.message ?? no.reason ?? `code ${no.code}` };
    if (type === "publish") return result?.data === undefined ? {} : { replace: { data: result.data } };
    if (type !== "connect") return {};
    const { user, channels, data, expire_at: end, meta } = result ?? {};
    const answer = { user, subscribe: channels, reply: data, context: meta };
    if (end) answer.expires_at = new Date(end * 1000).toISOString().replace(".000", "");
    return answer;
}

/** Headers of the client's own request, which Fanwire passes on. */
const PASSED = ["cookie", "authorization", "origin", "x-request-id"];

export function adapter({ secret, ...endpoints }) {
    const webhook = new Webhook(secret);
    return createServer(async (request, response) => {
        let body = "";
        for await (const piece of request) body += piece;
        try {
            webhook.verify(body, request.headers);
        } catch {
            return response.writeHead(401).end();
        }
        const event = JSON.parse(body);
        // Whatever has no endpoint is allowed, as the configuration of both sides says.
        const endpoint = endpoints[event.type];
        if (!endpoint) return response.writeHead(204).end();
        const headers = { "Content-Type": "application/json" };
        for (const name of PASSED) if (request.headers[name]) headers[name] = request.headers[name];
        try {
            const answer = await fetch(endpoint, { method: "POST", headers, body: JSON.stringify(asked(event)) });
            if (!answer.ok) return response.writeHead(answer.status).end();
            const said = JSON.stringify(answered(event, await answer.json()));
            response.writeHead(200, { "Content-Type": "application/json" }).end(said);
        } catch {
            response.writeHead(502).end();
        }
    });
}

if (process.argv[1] === import.meta.filename) {
    const { CONNECT: connect, SUBSCRIBE: subscribe, PUBLISH: publish, SECRET: secret, PORT = 9100 } = process.env;
    adapter({ secret, connect, subscribe, publish }).listen(PORT, "127.0.0.1");
}
