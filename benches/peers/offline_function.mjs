/** Takes as long as the functions that it is compared with. */
export async function handler() {
    await new Promise((resolve) => setTimeout(resolve, Number(process.env.DELAY)));
    return { statusCode: 200, body: "done" };
}
