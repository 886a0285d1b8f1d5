// A report, opened as a file:  node report.mjs FILE.html [FOLDER for screenshots]
import assert from "node:assert/strict";
import { accessible, check, launch, open } from "./common.mjs";

const [file, shots] = process.argv.slice(2);
const browser = await launch();
try {
  for (const colorScheme of [process.env.NETSPOT_SCHEME || "dark"]) {
    await check(`the report, ${colorScheme}`, async () => {
      const { page, wrong, close } = await open(browser, `file://${file}`, { viewport: { width: 1100, height: 900 }, colorScheme });
      assert.equal(await page.locator("#charts canvas").count(), await page.locator("#stats tr").count());
      const canvas = page.locator("#charts canvas").first();
      await canvas.focus();
      await page.keyboard.press("ArrowLeft");
      assert.match(await page.locator("#charts output").first().textContent(), /\d\d:\d\d:\d\d: /);
      await canvas.hover();
      if (shots) await page.screenshot({ path: `${shots}/report-${colorScheme}.png` });
      await accessible(page, `report, ${colorScheme}`);
      await page.setViewportSize({ width: 320, height: 740 });
      assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 320);
      assert.deepEqual(wrong, []);
      await close();
    });
  }
} finally {
  await browser.close();
}
