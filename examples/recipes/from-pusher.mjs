// A backend that hears Pusher's webhooks, told as it is used to: this stands between Fanwire's webhook and it.
//
//     URL=http://app/pusher KEY=… PUSHER_SECRET=… SECRET=whsec_… PORT=9200 node from-pusher.mjs
//
//     [[gateway.webhooks]]
//     id = "pusher"
//     url = "http://127.0.0.1:9200/"
//     secret = "whsec_…"
//     events = ["occupied", "vacated", "message"]
//     batch = 100
//
// Needs the package `standardwebhooks`. Where Pusher repeats and reorders, events of one channel come in order here, and
// each `channel_occupied` has its `channel_vacated`.

import { createHmac } from "node:crypto";
import { createServer } from "node:http";
import { Webhook } from "standardwebhooks";

/** An event in Pusher's words; nothing for what it does not tell of. */
export function told({ type, data }) {
    switch (type) {
        case "occupied":
            return { name: "channel_occupied", channel: data.channel };
        case "vacated":
            return { name: "channel_vacated", channel: data.channel };
        case "message":
            // What clients publish among themselves is a client event there, by its name.
            if (!data.event?.startsWith("client-")) return undefined;
            return { name: "client_event", channel: data.channel, event: data.event, data: JSON.stringify(data.data ?? data.text) };
    }
}

export function adapter({ secret, url, key, pusherSecret }) {
    const webhook = new Webhook(secret);
    return createServer(async (request, response) => {
        let body = "";
        for await (const piece of request) body += piece;
        try {
            webhook.verify(body, request.headers);
        } catch {
            return response.writeHead(401).end();
        }
        const events = [JSON.parse(body)].flat();
        const named = events.map(told).filter((event) => event !== undefined);
        if (named.length === 0) return response.writeHead(204).end();
        const batch = JSON.stringify({ time_ms: Date.parse(events[0].timestamp), events: named });
        const signature = createHmac("sha256", pusherSecret).update(batch).digest("hex");
        const headers = { "Content-Type": "application/json", "X-Pusher-Key": key, "X-Pusher-Signature": signature };
        // Fanwire tries again by the status, as Pusher does.
        const answer = await fetch(url, { method: "POST", headers, body: batch }).catch(() => ({ status: 502 }));
        response.writeHead(answer.status).end();
    });
}

if (process.argv[1] === import.meta.filename) {
    const { URL: url, KEY: key, PUSHER_SECRET: pusherSecret, SECRET: secret, PORT = 9200 } = process.env;
    adapter({ secret, url, key, pusherSecret }).listen(PORT, "127.0.0.1");
}
