// Leaves a page open:  node stay.mjs URL SECONDS. Prints, as JSON, how many polls there were and what they brought [byte].
import { launch, open } from "./common.mjs";

const [url, seconds] = process.argv.slice(2);
const browser = await launch();
const { page, wrong } = await open(browser, url, { viewport: { width: 1280, height: 800 } });
const sizes = [];
page.on("requestfinished", async (request) => {
  if (request.url().includes("since=")) sizes.push((await request.sizes()).responseBodySize);
});
await page.waitForTimeout(1000 * Number(seconds));
sizes.sort((a, b) => a - b);
console.log(JSON.stringify({ polls: sizes.length, median: sizes[sizes.length >> 1], largest: sizes[sizes.length - 1], wrong }));
await browser.close();
