// Asking the server, and its own sentence when it refuses.

import { credentials } from "./session.js";

/** What the server did not do, in its words. */
export class Refused extends Error {
  constructor(sentence, { status, code, retryAfter } = {}) {
    super(sentence);
    this.status = status;
    this.code = code;
    this.retryAfter = retryAfter;
  }

  /** Whether the same may be answered otherwise a little later. */
  get passes() {
    return this.status === undefined || this.status === 429 || this.status >= 500;
  }
}

/** A channel as it stands in a path. */
export function inPath(channel) {
  return channel.split("/").map(encodeURIComponent).join("/");
}

/** The answer to a request; throws `Refused`. */
export async function ask(path, { headers, ...options } = {}) {
  let answer;
  try {
    answer = await fetch(path, { ...options, headers: credentials(headers), cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("the server does not answer");
  }
  if (!answer.ok) throw await refusal(answer);
  return answer;
}

async function refusal(answer) {
  const problem = await answer.json().catch(() => ({}));
  const seconds = Number(answer.headers.get("Retry-After"));
  return new Refused(problem.detail ?? `${answer.status} ${answer.statusText}`, {
    status: answer.status,
    code: problem.code,
    retryAfter: seconds > 0 ? seconds * 1000 : undefined,
  });
}

let facts;

/** What the page cannot know by itself: `{ mqtt, mqtts, paths: { sse, bayeux, mqtt } }`. Asked for once. */
export function serverFacts() {
  facts ??= ask("/page/server.json").then((answer) => answer.json()).catch((error) => {
    facts = undefined;
    throw error;
  });
  return facts;
}
