// What the browser tests share: a browser, a page that notes what went wrong, and small checks.
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const CHROMIUM = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find(existsSync);
const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

export async function launch() {
  return chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox", "--disable-gpu"] });
}

// A page, and what it did: console errors, exceptions, requests to any other host.
export async function open(browser, url, options = {}) {
  const context = await browser.newContext({ bypassCSP: false, ...options });
  const page = await context.newPage();
  const wrong = [];
  page.on("console", (message) => { if (["error", "warning"].includes(message.type()) && !message.text().includes("getImageData")) wrong.push(`console: ${message.text()}`); });
  page.on("pageerror", (error) => wrong.push(`exception: ${error.message}`));
  page.on("request", (request) => { if (new URL(request.url()).host !== new URL(url).host) wrong.push(`request to ${request.url()}`); });
  await page.goto(url);
  return { page, wrong, close: () => context.close() };
}

// axe-core, evaluated by the debugger and so past the page's own content policy.
export async function accessible(page, what) {
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => axe.run({ resultTypes: ["violations"] }));
  const text = violations.map((v) => `${v.id}: ${v.help} (${v.nodes.map((n) => n.target.join(" ")).join(", ")})`);
  assert.deepEqual(text, [], `axe-core: ${what}`);
}

// Whether the canvas of a card shows something in the colour of anomalies.
export async function redDots(page, stat) {
  return page.evaluate((name) => {
    const canvas = document.querySelector(`.card[data-stat="${name}"] canvas`);
    const bad = getComputedStyle(canvas).getPropertyValue("--bad").trim();
    const [r, g, b] = [1, 3, 5].map((at) => parseInt(bad.slice(at, at + 2), 16));
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    let found = 0;
    for (let i = 0; i < data.length; i += 4) if (Math.abs(data[i] - r) + Math.abs(data[i + 1] - g) + Math.abs(data[i + 2] - b) < 12) found++;
    return found;
  }, stat);
}

export async function login(page, token) {
  await page.click("#login summary");
  await page.fill("#token", token);
  await Promise.all([page.waitForURL(/\/$/), page.click("#login button")]);
  await page.waitForSelector('body[data-state~="in"]');
}

export async function check(name, body) {
  const start = performance.now();
  await body();
  console.log(`ok ${name} (${Math.round(performance.now() - start)} ms)`);
}
