// The page of a live netspot:  node live.mjs URL TOKEN. Says "ready" once the detectors watch, then waits for an attack.
import assert from "node:assert/strict";
import { accessible, check, launch, login, open, redDots } from "./common.mjs";

const [url, token] = process.argv.slice(2);
const browser = await launch();
try {
  const { page, wrong } = await open(browser, url, { viewport: { width: 1280, height: 800 } });

  await check("a live page shows its statistics, learning", async () => {
    await page.waitForSelector('.card[data-stat="R_SYN"] .value');
    assert.match(await page.locator("#phase").textContent(), /^Learning, \d+ of \d+ windows, \d+ s left$/);
    assert.match(await page.locator("#figures").textContent(), /Packets.*\/s/);
  });

  await check("it watches when it has learned", async () => {
    const watching = page.waitForFunction(() => document.getElementById("phase").textContent === "Watching", null, { timeout: 30_000 });
    await watching.catch(async (error) => { throw new Error(`${await page.locator("#phase").textContent()}: ${error.message}`); });
    assert.match(await page.locator('.card[data-stat="R_SYN"] .range').textContent(), /^normal to 0/);
    await login(page, token);
  });
  console.log("ready");

  await check("an attack on the wire shows, with an incident", async () => {
    await page.waitForSelector('.card.alarm[data-stat="R_SYN"]', { timeout: 15_000 });
    console.log(`alarm ${Date.now()}`);
    assert.ok((await redDots(page, "R_SYN")) > 10);
    await page.waitForSelector("#incidents li.open, #alarms li", { state: "attached", timeout: 5000 });
    console.log(`incidents: ${await page.locator("#incidents").innerText()}`);
    await accessible(page, "page during an alarm");
  });

  await check("muting reaches the detectors", async () => {
    await page.locator('.card[data-stat="R_SYN"] button').click();
    await page.click('#actions button:has-text("Mute for 1 hour")');
    await page.waitForFunction(() => document.getElementById("answer").textContent === "Done.");
    await page.keyboard.press("Escape");
    await page.waitForSelector('.card.muted[data-stat="R_SYN"]', { timeout: 5000 });
  });
  assert.deepEqual(wrong, []);
} finally {
  await browser.close();
}
