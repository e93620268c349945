// Pages of two runs of fixtures/compared.c: compared.mjs CHANGED BACK SUPPRESSED [PICTURES]
import assert from "node:assert/strict";
import { faultless, launch, open, rows, text } from "./browser.mjs";

const [, , changed, back, suppressed, pictures] = process.argv;
const browser = await launch();

// The texts of a column, from the first row to the last.
const column = (tab, name) =>
  tab.$$eval(`#shown .${name}`, (found) => found.map((cell) => cell.textContent));
const labels = (tab) =>
  tab.$$eval("#flame [role=treeitem]", (found) => found.map((one) => one.ariaLabel));

async function says({ tab }) {
  assert.match(await text(tab, "#verdict"), /^\+3,920 B in \+5 blocks: 1 new, 1 grown, 1 shrunk; 0/);
  assert.equal(await text(tab, "#count"), "3 call sites, +3,920 B in +5 blocks");
  assert.match(await text(tab, "#about"), /^before.*: 250 B in 7 blocks.*after.*: 4,170 B in 12/);
  assert.deepEqual(await column(tab, "change"), ["new", "shrunk", "grown"]);
  assert.deepEqual(await column(tab, "before"), ["0 B", "200 B", "50 B"]);
  assert.deepEqual(await column(tab, "now"), ["4,000 B", "100 B", "70 B"]);
  assert.ok(await tab.$("#time[hidden]"), "no time");
}

async function sortsAndFilters({ tab }) {
  await tab.click('[data-column="bytes"]');
  assert.deepEqual(await column(tab, "change"), ["new", "grown", "shrunk"]);
  await tab.click('[data-column="before"]');
  assert.deepEqual(await column(tab, "change"), ["shrunk", "grown", "new"]);
  await tab.select("#change", "grown");
  assert.equal(await text(tab, "#count"), "1 of 3 call sites, +20 B in +2 blocks");
  await tab.click("#clear");
  await tab.type("#query", "second");
  assert.deepEqual(await column(tab, "change"), ["shrunk"]);
  await tab.click("#shown tr");
  assert.match(
    await text(tab, "#facts"),
    /^-100 B in -1 block · shrunk, 200 B in 2 blocks before, 100 B in 1 block now · malloc$/,
  );
  assert.match(await text(tab, "#stacks h4"), /^Stack: -100 B in -1 block/);
  assert.deepEqual(
    (await labels(tab)).filter((label) => label.startsWith("second")),
    ["second: -100 B, less than before"],
  );
  await tab.click("#clear");
}

async function isDrawn({ tab }) {
  const all = await labels(tab);
  assert.ok(all.includes("all: +3,920 B, more than before"), `${all}`);
  assert.ok(all.includes("first: +20 B, more than before"), `${all}`);
  const kind = (name) => tab.$eval(`#flame [aria-label^="${name}:"]`, (one) => one.className);
  assert.deepEqual([await kind("third"), await kind("second")], ["more", "less"]);
  await tab.select("#measure", "blocks");
  assert.ok((await labels(tab)).includes("second: -1 block, less than before"));
  await tab.select("#measure", "now");
  assert.ok((await labels(tab)).includes("second: -100 B, less than before, 100 B now"));
  await tab.select("#view", "functions");
  const lines = await tab.$$eval("#functions tbody tr", (all) => all.map((row) => row.innerText));
  assert.ok(lines.some((line) => /^\+3,920 B\s+\+0 B\s+main/.test(line)), lines.join("\n"));
}

async function isShown(path, name) {
  for (const width of [400, 1600]) {
    for (const scheme of ["light", "dark"]) {
      const shown = await open(browser, path, { hash: "#site=0", width, scheme });
      const { tab } = shown;
      await tab.$$eval("details", (all) => all.forEach((one) => (one.open = true)));
      const wide = await tab.evaluate(() => document.documentElement.scrollWidth);
      assert.ok(wide <= width, `${wide} pixels of ${width}`);
      const picture = `${pictures}/${name}-${width}-${scheme}.png`;
      if (pictures) await tab.screenshot({ path: picture, fullPage: true });
      await faultless(shown, `${name}: ${width} pixels, ${scheme}`);
      await tab.close();
    }
  }
}

try {
  const page = await open(browser, changed);
  for (const step of [says, sortsAndFilters, isDrawn]) {
    console.log(step.name);
    await step(page);
  }
  await faultless(page, "at the end");

  const { tab } = await open(browser, back);
  assert.deepEqual(await column(tab, "change"), ["gone", "grown", "shrunk"]);
  await tab.click("#shown tr");
  assert.match(await text(tab, "#facts"), /· gone, 4,000 B in 4 blocks before, none left ·/);

  const { tab: other } = await open(browser, suppressed);
  assert.equal((await rows(other)).length, 1);
  assert.match(await text(other, "#verdict"), /; suppressed: 50 B in 5 blocks$/);
  assert.equal(await text(other, "#suppressed-count"), "1 suppression used, 1 unused");
  const lines = await other.$$eval("#suppressed tbody tr", (all) =>
    all.map((row) => [...row.cells].map((cell) => cell.textContent.replace(/^.*\//, ""))),
  );
  const used = ["50 B in 5 blocks of 1 stack", "a", "rules:1"];
  assert.deepEqual(lines, [used, ["nothing", "b", "rules:7"]]);
  await isShown(changed, "changed");
  await isShown(suppressed, "suppressed");
} finally {
  await browser.close();
}
