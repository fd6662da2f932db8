// An AWS Lambda function behind a DynamoDB stream: every change of a row becomes a message. One request carries the batch, and one
// bad item harms only itself.
//
// Set ReportBatchItemFailures on the event source mapping, and FANWIRE_URL and FANWIRE_TOKEN on the function. A batch that is run
// again (the function timed out, or some of it failed) publishes nothing twice: the change's own id is the idempotency key.

/** The JSON of a DynamoDB attribute value. Numbers are kept digit by digit; they have more of them than a double. */
function json(value) {
    const [[type, inner]] = Object.entries(value);
    switch (type) {
        case "N":
            return inner;
        case "NULL":
            return "null";
        case "L":
            return `[${inner.map(json).join(",")}]`;
        case "M":
            return object(inner);
        case "NS":
            return `[${inner.join(",")}]`;
        default: // S, BOOL, B (base64), SS, BS
            return JSON.stringify(inner);
    }
}

function object(image) {
    return `{${Object.entries(image).map(([name, value]) => `${JSON.stringify(name)}:${json(value)}`).join(",")}}`;
}

/** One line of the request: rows go to `table/{name}/{key}`, named after what happened to them. */
function line({ eventID, eventName, eventSourceARN, dynamodb }) {
    const table = eventSourceARN.split("/")[1];
    const key = Object.values(dynamodb.Keys).map((value) => Object.values(value)[0]).join("/");
    const data = dynamodb.NewImage ? object(dynamodb.NewImage) : "null";
    const item = JSON.stringify({ channel: `table/${table}/${key}`, event: eventName.toLowerCase(), key: eventID });
    return `${item.slice(0, -1)},"data":${data}}`;
}

export async function handler(event) {
    const failed = (record) => ({ itemIdentifier: record.dynamodb.SequenceNumber });
    const { FANWIRE_URL: url, FANWIRE_TOKEN: token } = process.env;
    let results;
    try {
        const response = await fetch(`${url}/v1/publish`, {
            method: "POST",
            headers: { "Content-Type": "application/x-ndjson", ...(token && { Authorization: `Bearer ${token}` }) },
            body: event.Records.map(line).join("\n"),
            signal: AbortSignal.timeout(10_000),
        });
        if (!response.ok) {
            throw new Error(`${response.status}: ${await response.text()}`);
        }
        // One line for each, in the same order.
        results = (await response.text()).trimEnd().split("\n").map((line) => JSON.parse(line));
    } catch (error) {
        // Nothing is known to be published: all of it again, later.
        console.error("publish failed:", error.message);
        return { batchItemFailures: event.Records.map(failed) };
    }
    const batchItemFailures = [];
    event.Records.forEach((record, at) => {
        // An answer that breaks off leaves the rest unanswered.
        const { error } = results[at] ?? { error: { status: 503 } };
        if (!error) {
            return;
        }
        if (error.status === 429 || error.status >= 500) {
            batchItemFailures.push(failed(record));
        } else {
            // Refused for good. Reporting it would block the shard behind it until it expires, so it is only told.
            console.error("not published:", record.eventID, error.code, error.detail);
        }
    });
    return { batchItemFailures };
}
