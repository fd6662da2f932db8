// Publishes from Node (or Deno, Bun, a browser) with fetch, once, however often it has to try.
//
//     import { publish } from "./publish.mjs";
//     const { id } = await publish("http://127.0.0.1:8080", "chat/room1", { text: "hello" });

/** What the server refused for good: trying again would be refused again. */
export class Refused extends Error {
    constructor(problem) {
        super(`${problem.status} ${problem.code}: ${problem.detail}`);
        Object.assign(this, { name: "Refused", status: problem.status, code: problem.code });
    }
}

/**
 * Publishes `data` as JSON. `key` names this message: whoever calls again with the same key after a crash publishes it once.
 * Busy servers and broken connections are tried again until `signal` ends it.
 */
export async function publish(url, channel, data, { token, key = crypto.randomUUID(), tries = 5, signal } = {}) {
    const path = channel.split("/").map(encodeURIComponent).join("/");
    for (let attempt = 1; ; attempt += 1) {
        let wait = Math.random() * 100 * 2 ** attempt;
        try {
            const response = await fetch(`${url}/v1/publish/${path}`, {
                method: "POST",
                headers: {
                    "Content-Type": "application/json",
                    "Idempotency-Key": key,
                    ...(token && { Authorization: `Bearer ${token}` }),
                },
                body: JSON.stringify(data),
                signal: signal ?? AbortSignal.timeout(10_000),
            });
            if (response.ok) {
                return await response.json();
            }
            const problem = await response.json();
            if (response.status !== 429 && response.status < 500) {
                throw new Refused(problem);
            }
            wait = Math.max(wait, 1000 * Number(response.headers.get("Retry-After") ?? 0));
            if (attempt === tries) {
                throw new Error(`${problem.status} ${problem.code}: ${problem.detail}`);
            }
        } catch (error) {
            // A connection that breaks does not say whether the message was taken; the key makes that no matter.
            if (error instanceof Refused || signal?.aborted || attempt === tries) {
                throw error;
            }
        }
        await new Promise((resolve) => setTimeout(resolve, wait));
    }
}
