// The page of a hundred thousand call sites opens in a second: large.mjs PAGE
import assert from "node:assert/strict";
import { faultless, launch, open, rows, text } from "./browser.mjs";

const SITES = 100_000;
const [, , path] = process.argv;
const browser = await launch();

// Seconds that the page's own thread computes, however busy the machine is.
async function computed(tab, work) {
  const session = await tab.createCDPSession();
  await session.send("Performance.enable", { timeDomain: "threadTicks" });
  const taken = async () => {
    const { metrics } = await session.send("Performance.getMetrics");
    return metrics.find(({ name }) => name === "TaskDuration").value;
  };
  const before = await taken();
  await work();
  // What is to be painted is painted.
  await tab.evaluate(() => new Promise((done) => requestAnimationFrame(() => setTimeout(done))));
  return (await taken()) - before;
}

try {
  const page = await open(browser, path);
  const { tab } = page;
  const opened = await computed(tab, () => tab.reload());
  assert.equal(
    await tab.$eval("#sites", (grid) => grid.getAttribute("aria-rowcount")),
    `${SITES + 1}`,
  );
  assert.ok((await rows(tab)).length < 100, "only rows that can be seen");
  const searched = await computed(tab, () =>
    tab.$eval("#query", (query) => {
      query.value = "function_77";
      query.dispatchEvent(new Event("input"));
    }),
  );
  assert.match(await text(tab, "#count"), /^[\d,]+ of 100,000 call sites/);
  await tab.click("#clear");
  const sorted = await computed(tab, () => tab.click('[data-column="site"]'));
  await tab.focus('#shown tr[tabindex="0"]');
  await tab.keyboard.press("End");
  const last = await tab.evaluate(() => document.activeElement.getAttribute("aria-rowindex"));
  assert.equal(last, `${SITES + 1}`);
  await faultless(page, "a large page");
  for (const [what, took] of Object.entries({ opened, searched, sorted })) {
    console.log(`${what} in ${took.toFixed(2)} s`);
    assert.ok(took <= 1, `${what} in ${took} s`);
  }
} finally {
  await browser.close();
}
