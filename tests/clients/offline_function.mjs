/** Hands each event to whoever compares them. */
export async function handler(event) {
    await fetch(process.env.COLLECTOR, { method: "POST", body: JSON.stringify(event) });
    return { statusCode: 200 };
}
