// A Cloudflare Worker in front of Fanwire: webhooks come in, browsers listen, and the token stays here.
//
//     POST /hooks/{name}     answers 202 at once and publishes to hooks/{name}
//     GET  /events/{name}    the event stream of hooks/{name}
//
// Bindings: FANWIRE_URL, FANWIRE_TOKEN (a secret).

const NAME = /^\/(hooks|events)\/([\w-]{1,64})$/;

export default {
    async fetch(request, env, context) {
        const [, kind, name] = NAME.exec(new URL(request.url).pathname) ?? [];
        if (kind === "hooks" && request.method === "POST") {
            const body = await request.arrayBuffer();
            // The sender tries again if it sees no answer in time. Its delivery id makes that no matter.
            const key = request.headers.get("X-Delivery-Id") ?? (await digest(body));
            context.waitUntil(publish(env, `hooks/${name}`, body, request.headers.get("Content-Type"), key));
            return new Response(null, { status: 202 });
        }
        if (kind === "events" && request.method === "GET") {
            return events(request, env, `hooks/${name}`);
        }
        return new Response("not found\n", { status: 404 });
    },
};

async function publish(env, channel, body, type, key) {
    for (let attempt = 1; attempt <= 4; attempt += 1) {
        try {
            const response = await fetch(`${env.FANWIRE_URL}/v1/publish/${channel}`, {
                method: "POST",
                headers: { ...authorization(env), "Content-Type": type ?? "application/octet-stream", "Idempotency-Key": key },
                body,
            });
            if (response.status !== 429 && response.status < 500) {
                if (!response.ok) {
                    console.error(`not published to ${channel}:`, await response.text());
                }
                return;
            }
        } catch (error) {
            console.error(`publish to ${channel}, attempt ${attempt}:`, error.message);
        }
        await new Promise((resolve) => setTimeout(resolve, Math.random() * 200 * 2 ** attempt));
    }
    console.error(`given up: ${channel} ${key}`);
}

/** Passes the stream through as it comes, and ends it there when the browser goes. */
async function events(request, env, channel) {
    const lastId = request.headers.get("Last-Event-ID") ?? new URL(request.url).searchParams.get("last_event_id");
    const upstream = await fetch(`${env.FANWIRE_URL}/sse/${channel}`, {
        headers: { ...authorization(env), ...(lastId && { "Last-Event-ID": lastId }) },
        signal: request.signal,
    });
    const headers = { "Cache-Control": "no-store, no-transform" };
    const type = upstream.headers.get("Content-Type");
    return new Response(upstream.body, { status: upstream.status, headers: { ...headers, ...(type && { "Content-Type": type }) } });
}

function authorization(env) {
    return env.FANWIRE_TOKEN ? { Authorization: `Bearer ${env.FANWIRE_TOKEN}` } : {};
}

async function digest(bytes) {
    const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
    return [...hash].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
