// The page over made-up statistics:  node page.mjs PYTHON FEED.py [FOLDER for screenshots]
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { accessible, check, launch, login, open, redDots } from "./common.mjs";

const [python, feedScript, shots] = process.argv.slice(2);

async function feed(...args) {
  const child = spawn(python, [feedScript, "--listen", "127.0.0.1:0", ...args], { stdio: ["pipe", "pipe", "inherit"] });
  const line = await new Promise((resolve, reject) => {
    createInterface({ input: child.stdout }).once("line", resolve);
    child.once("exit", () => reject(new Error("the feed ended")));
  });
  const { port, token } = JSON.parse(line);
  return { url: `http://127.0.0.1:${port}/`, token, attack: (stat) => child.stdin.write(stat + "\n"), end: () => child.stdin.end() };
}

const served = await feed("--past", "640", "--attack", "R_SYN", "FANOUT_PORTS", "TRAFFIC");
const browser = await launch();
try {
  const { page, wrong, close } = await open(browser, served.url, { viewport: { width: 1280, height: 800 } });

  await check("every statistic has a card with a value and a line", async () => {
    await page.waitForSelector(".card .value");
    assert.equal(await page.locator(".card").count(), 12);
    assert.match(await page.locator('.card[data-stat="TRAFFIC"] .value').textContent(), /^\d+ packet\/s$/);
    assert.equal(await page.locator("#plain").isVisible(), false);
    assert.match(await page.locator("#phase").textContent(), /^Watching$/);
    assert.equal(await page.evaluate(() => [1234, 5e15, 1e30].map(Chart.number).join()), "1234,5000T,1.0e+30");
    assert.ok((await redDots(page, "R_SYN")) > 20, "the attack before the start is red");
    assert.equal(await redDots(page, "R_ACK"), 0);
  });

  await check("values change by themselves", async () => {
    const value = page.locator('.card[data-stat="AVG_PKT_SIZE"] .value');
    const before = await value.textContent();
    await page.waitForFunction((text) => document.querySelector('.card[data-stat="AVG_PKT_SIZE"] .value').textContent !== text, before, { timeout: 5000 });
  });

  await check("an attack shows within 3 s, in its card, the header and the incidents", async () => {
    const before = await redDots(page, "DNS_NX");
    served.attack("DNS_NX");
    await page.waitForSelector('.card.alarm[data-stat="DNS_NX"]', { timeout: 4200 }); // a window, and 3 s
    assert.match(await page.locator("#phase").textContent(), /Alarm: DNS_NX/);
    assert.match(await page.locator("#incidents li").first().textContent(), /port scan.*still going on.*DNS_NX/s);
    assert.match(await page.locator("#news").textContent(), /^Incident: port scan/);
    assert.ok((await redDots(page, "DNS_NX")) > before);
    await page.locator("#incidents li.open summary").focus();
    await page.keyboard.press("Enter");
    await page.waitForSelector('.card.watching[data-stat="DNS_NX"]', { timeout: 8000 });
    await page.waitForFunction(() => !document.querySelector("#incidents li.open"));
    const held = () => [document.activeElement.textContent, document.activeElement.parentElement.open];
    assert.deepEqual(await page.evaluate(held), ["Evidence", true], "what the keyboard is at stays when it is written anew");
  });

  await check("an answer that comes twice is taken once", async () => {
    await page.evaluate(() => {
      const { draw } = Chart;
      Chart.draw = (canvas, data, options) => { window.drawn = [...data.t]; draw(canvas, data, options); };
    });
    await page.route("**/api/poll*", (route) => setTimeout(() => route.continue(), 700));
    for (let i = 0; i < 8; i++) {
      await page.evaluate(() => document.dispatchEvent(new Event("visibilitychange")));
      await page.waitForTimeout(300);
    }
    await page.unrouteAll({ behavior: "wait" });
    await page.waitForTimeout(1500);
    assert.deepEqual(await page.evaluate(() => drawn.filter((ms, row) => row && ms <= drawn[row - 1])), []);
  });

  await check("the large view works with the keyboard alone", async () => {
    await page.locator('.card[data-stat="R_SYN"] button').focus();
    await page.keyboard.press("Enter");
    assert.equal(await page.locator("#detail-title").textContent(), "R_SYN");
    await page.locator("#detail-chart").focus();
    await page.keyboard.press("ArrowLeft");
    assert.match(await page.locator("#detail-read").textContent(), /^\d\d:\d\d:\d\d: 0\.\d+, normal to 0\.\d+/);
    for (const [span, shown] of [["hour", /: 0\.\d+, normal/], ["day", /: 0\.\d+ to 0\.\d+, normal/]]) {
      const loaded = page.waitForResponse(new RegExp(`history=${span}`));
      await page.locator(`#spans input[value="${span}"]`).check();
      await loaded;
      await page.waitForTimeout(100);
      await page.locator("#detail-chart").focus();
      await page.keyboard.press("ArrowLeft");
      assert.match(await page.locator("#detail-read").textContent(), shown);
    }
    await accessible(page, "large view");
    assert.equal(await page.locator("#actions").isVisible(), false, "no change without a login");
    await page.keyboard.press("Escape");
    assert.equal(await page.locator("#detail").isVisible(), false);
    assert.equal(await page.evaluate(() => document.activeElement.textContent), "R_SYN");
  });

  await check("a wrong token is told, a right one logs in", async () => {
    await page.click("#login summary");
    await page.fill("#token", "wrong");
    await page.click("#login button");
    await page.waitForSelector("#wrong:not(:empty)");
    assert.equal(await page.locator("#wrong").textContent(), "That was not the token.");
    await page.waitForSelector("#token:visible"); // still open
    await page.fill("#token", served.token);
    await page.click("#login button");
    await page.waitForSelector('body[data-state~="in"]');
  });

  await check("muting works after the login", async () => {
    await page.locator('.card[data-stat="R_IP"] button').click();
    await page.click('#actions button:has-text("Mute for 1 hour")');
    await page.waitForFunction(() => document.getElementById("answer").textContent === "Done.");
    await page.keyboard.press("Escape");
    await page.waitForSelector('.card.muted[data-stat="R_IP"]', { timeout: 4000 });
    await page.locator('.card[data-stat="R_IP"] button').click();
    await page.click('#actions button:has-text("Unmute")');
    await page.waitForSelector('.card.watching[data-stat="R_IP"]', { timeout: 4000, state: "attached" });
    await page.keyboard.press("Escape");
    await page.click("#logout button");
    await page.waitForSelector('body[data-state~="out"]');
  });

  await check("nothing went wrong, nothing was asked of another host", async () => assert.deepEqual(wrong, []));
  await close();

  for (const [width, height] of [[1280, 800], [320, 740]]) {
    for (const colorScheme of ["light", "dark"]) {
      await check(`${width} px, ${colorScheme}: accessible, and no wider than the screen`, async () => {
        const { page, wrong, close } = await open(browser, served.url, { viewport: { width, height }, colorScheme });
        await page.waitForSelector(".card .value");
        await page.waitForTimeout(300);
        await page.evaluate(() => { for (const name of document.querySelectorAll("h1, .card h3 button")) name.textContent = "A".repeat(64); });
        assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), width);
        const wide = await page.evaluate(() =>
          [...document.querySelectorAll(".card .mid")].filter((row) => row.scrollWidth > row.clientWidth).map((row) => row.innerText));
        assert.deepEqual(wide, []);
        if (shots) await page.screenshot({ path: `${shots}/page-${width}-${colorScheme}.png`, fullPage: width > 1000 });
        await page.click("#alarms-box summary");
        await page.click("#login summary");
        await accessible(page, `page at ${width} px, ${colorScheme}`);
        assert.deepEqual(wrong, []);
        await close();
      });
    }
  }

  await check("without JavaScript it is a table", async () => {
    const { page, wrong, close } = await open(browser, served.url, { javaScriptEnabled: false, viewport: { width: 360, height: 740 } });
    assert.equal(await page.locator("#plain tbody tr").count(), 12);
    assert.ok(await page.locator("#plain").isVisible());
    assert.match(await page.locator("#plain tbody tr").first().innerText(), /R_SYN\s+0\.\d+/);
    assert.match(await page.locator("#incidents").innerText(), /port scan/);
    await page.click("#login summary");
    await page.fill("#token", served.token);
    await page.click("#login button");
    await page.waitForSelector("#logout button:visible");
    assert.deepEqual(wrong, []);
    await close();
  });

  await check("where reading needs the token, there is a login and nothing else", async () => {
    const closed = await feed("--past", "130", "--read", "token");
    const { page, wrong, close } = await open(browser, closed.url, { viewport: { width: 360, height: 740 } });
    await page.waitForSelector("#token:visible");
    assert.equal(await page.locator("main").isVisible(), false);
    assert.equal(await page.locator("h1").textContent(), "netspot");
    await accessible(page, "login");
    await page.fill("#token", closed.token);
    await page.click("#login button");
    await page.waitForSelector(".card .value");
    assert.deepEqual(wrong, []);
    await close();
    closed.end();
  });

  await check("hours of polling leave nothing behind", async () => {
    const { page, wrong, close } = await open(browser, served.url, { viewport: { width: 1280, height: 800 } });
    await page.waitForSelector(".card .value");
    const client = await page.context().newCDPSession(page);
    await client.send("Performance.enable");
    const measure = async () => {
      await client.send("HeapProfiler.collectGarbage");
      const { metrics } = await client.send("Performance.getMetrics");
      const get = (name) => metrics.find((metric) => metric.name === name).value;
      return { heap: get("JSHeapUsedSize"), nodes: get("Nodes"), listeners: get("JSEventListeners") };
    };
    const rounds = async (n) => {
      for (let i = 0; i < n; i++) {
        const answered = page.waitForResponse(/api\/poll/);
        await page.evaluate(() => document.dispatchEvent(new Event("visibilitychange")));
        await answered;
      }
    };
    await rounds(60);
    const before = await measure();
    await rounds(Number(process.env.NETSPOT_POLLS || 100));
    const after = await measure();
    assert.ok(after.heap - before.heap < 800_000, `heap grew by ${after.heap - before.heap} bytes`);
    assert.ok(after.nodes - before.nodes < 100 && after.listeners - before.listeners < 20, JSON.stringify([before, after]));
    assert.deepEqual(wrong, []);
    await close();
  });
} finally {
  await browser.close();
  served.end();
}
