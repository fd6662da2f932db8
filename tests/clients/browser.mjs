// Headless Chromium on the page of a server.
//
// FW_TEST_PAGE=src/page takes the page's files from that folder instead of the binary, to try a change without building.

import { readFile } from "node:fs/promises";
import path from "node:path";
import { chromium } from "playwright-core";
import { ROOT } from "./support.mjs";

// As root it needs no sandbox of its own, and a test is no reason to call home.
const QUIET = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
];

/** Sizes and colours that the page is looked at in. */
export const LOOKS = [
    { name: "phone, light", viewport: { width: 375, height: 740 }, colorScheme: "light" },
    { name: "phone, dark", viewport: { width: 375, height: 740 }, colorScheme: "dark" },
    { name: "desk, light", viewport: { width: 1280, height: 900 }, colorScheme: "light" },
    { name: "desk, dark", viewport: { width: 1280, height: 900 }, colorScheme: "dark" },
];

const FOLDER = process.env.FW_TEST_PAGE && path.resolve(ROOT, process.env.FW_TEST_PAGE);

export function launch() {
    // A page that is not the server's own could otherwise open no WebSocket to this machine.
    const args = FOLDER ? [...QUIET, "--disable-features=LocalNetworkAccessChecks"] : QUIET;
    return chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args });
}

/** The server's answer, with what stands in the folder now as its body. */
async function fromFolder(route) {
    const { pathname } = new URL(route.request().url());
    const file = pathname === "/" ? "page.html" : pathname.replace("/page/", "");
    const answer = await route.fetch();
    await route.fulfill({ response: answer, body: await readFile(path.join(FOLDER, file)) });
}

/**
 * Opens a server's page in a context of its own. `faults` collects what the page logs as an error; of answers that the server
 * refuses the browser itself logs a line, which is no fault of the page.
 */
export async function openPage(browser, server, { look = {}, hash = "" } = {}) {
    const context = await browser.newContext(look);
    if (FOLDER) {
        await context.route(({ pathname }) => pathname === "/" || /^\/page\/.*\.(js|css)$/.test(pathname), fromFolder);
    }
    const page = await context.newPage();
    const faults = watchFaults(page);
    await page.goto(`${server.http}/${hash}`);
    return { page, faults, context, close: () => context.close() };
}

function watchFaults(page) {
    const faults = [];
    const isRefusal = (text) => text.startsWith("Failed to load resource: the server responded with a status of");
    page.on("console", (message) => message.type() === "error" && !isRefusal(message.text()) && faults.push(message.text()));
    page.on("pageerror", (error) => faults.push(error.message));
    return faults;
}

/** Whether the page is wider than its window. */
export function scrollsSideways(page) {
    return page.evaluate(() => document.documentElement.scrollWidth > window.innerWidth);
}

/** Fields and buttons that a screen reader has no name for. */
export function nameless(page) {
    return page.evaluate(() => {
        const named = (field) => field.labels?.length || field.getAttribute("aria-label") || field.textContent.trim();
        const fields = [...document.querySelectorAll("input, textarea, select, button")];
        return fields.filter((field) => !named(field)).map((field) => field.outerHTML);
    });
}

/** Opens the tab *Watch*. */
export function watching(browser, server, look) {
    return openPage(browser, server, { look, hash: "#watch" });
}

/** Waits until figures come. */
export function live(page) {
    return page.locator("#figures-state", { hasText: "live" }).waitFor();
}

/** Has the page listen to nothing itself, so that only others are connected. */
export async function quiet(page) {
    await page.getByRole("tab", { name: "Try" }).click();
    for (const box of ["#over-sse", "#over-bayeux"]) {
        await page.uncheck(box);
        await page.locator(`${box.replace("over-", "")}-state`, { hasText: "off" }).waitFor();
    }
    await page.getByRole("tab", { name: "Watch" }).click();
}

/** What the server itself says to a request that it refuses. */
export async function sentence(server, pathname, options) {
    const answer = await fetch(server.http + pathname, options);
    if (answer.ok) {
        throw new Error(`${pathname} is not refused`);
    }
    return (await answer.json()).detail;
}
