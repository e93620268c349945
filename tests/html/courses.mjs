// The page of a run of fixtures/courses.c, which a user looks through: courses.mjs PAGE [PICTURES]
import assert from "node:assert/strict";
import { faultless, hash, launch, open, rows, text } from "./browser.mjs";

const [, , path, pictures] = process.argv;
const browser = await launch();
const page = await open(browser, path);
const { tab } = page;
const names = async () => (await rows(tab)).map((row) => row.split(" ")[0]);
const all = await names();
const focused = () => tab.evaluate(() => document.activeElement.textContent);

async function press(...keys) {
  for (const key of keys) await tab.keyboard.press(key);
}

async function looks() {
  assert.match(await text(tab, "#verdict"), / in 295 blocks left, at 5 call sites$/);
  assert.deepEqual([...all].sort(), [
    "at_start",
    "for_a_while",
    "growing",
    "replacing",
    "turning_over",
  ]);
  assert.match(await text(tab, "#count"), /^5 call sites, 103\.2 KiB in 295 blocks$/);
  assert.equal(await tab.$eval("#sites", (grid) => grid.getAttribute("aria-rowcount")), "6");
}

async function sorts() {
  await tab.click('[data-column="bytes"]');
  await tab.click('[data-column="bytes"]');
  assert.equal((await names())[0], "at_start");
  assert.equal(await hash(tab), "#sort=bytes&up=1");
  assert.ok(await tab.$('th[aria-sort="ascending"] [data-column="bytes"]'));
  await tab.goBack();
  assert.equal((await names())[0], "growing");
  await tab.goBack();
  assert.deepEqual(await names(), all);
}

async function searches() {
  await tab.type("#query", "turning");
  assert.deepEqual(await names(), ["turning_over"]);
  assert.match(await text(tab, "#count"), /^1 of 5 call sites, 2,400 B in 8 blocks$/);
  await tab.select("#scope", "module");
  assert.deepEqual(await names(), []);
  assert.match(await text(tab, "#none"), /No call site is like that/);
  await tab.click("#clear");
  assert.deepEqual(await names(), all);
  await tab.select("#growth", "stopped");
  assert.deepEqual(await names(), ["for_a_while"]);
  await tab.click("#clear");
  assert.equal(await hash(tab), "");
}

async function hasCourses() {
  const said = await tab.$eval("#plot svg", (found) => found.ariaLabel);
  assert.match(said, /; Live bytes: .* at most, peak at [\d.]+ m?s; /);
  assert.match(await text(tab, "#peak-count"), /^Peak: [\d.,]+ K?i?B live at [\d.]+ m?s, and whose$/);
  await tab.click("#peak-count");
  const peak = await tab.$$eval("#peak tbody tr", (found) => found.map((row) => row.innerText));
  assert.ok(peak.some((row) => /^[\d.,]+ K?i?B\s+[\d.]+\s+growing courses\.c:/.test(row)), `${peak}`);
  await tab.click("#peak tbody summary");
  assert.match(await text(tab, "#peak [open] .stack"), /main courses\.c:/);
  await tab.click("#peak-count");
  await tab.click(`#shown tr:nth-child(${all.indexOf("growing") + 1})`);
  const line = await tab.$eval("#course svg", (found) => found.ariaLabel);
  assert.match(line, /^Its live bytes in the whole time: .* first, .* last, .* at most$/);
  await press("Escape");
}

async function opens() {
  await tab.click("#shown tr:nth-child(1)");
  assert.equal(await text(tab, "#site-head"), all[0]);
  assert.equal(await focused(), all[0]);
  const frames = await tab.$$eval(".stack li", (found) =>
    found.map((one) => [...one.querySelectorAll("span")].map((part) => part.textContent).join(" ")),
  );
  assert.ok(frames[0].startsWith(`${all[0]} courses.c:`), frames[0]);
  assert.ok(frames[1].startsWith("main courses.c:") && frames[1].endsWith("yours"), frames[1]);
  // Its source, with the line marked.
  const source = await text(tab, ".source[open] pre");
  const line = Number(frames[0].match(/courses\.c:(\d+)/)[1]);
  assert.equal(source.split("\n").filter((one) => /^[ →] +\d+ /.test(one)).length, 7, source);
  assert.match(await text(tab, ".source[open] mark"), new RegExp(`^→ +${line} .*alloc\\(`));
  await tab.focus(".source[open] summary");
  await press("Enter");
  assert.equal(await tab.$(".source[open]"), null);
  await press("Escape");
  assert.ok(await tab.$("#site[hidden]"));
  // The row has the focus again.
  await press("ArrowDown", "Enter");
  assert.equal(await text(tab, "#site-head"), all[1]);
  await tab.click("#shut");
}

async function brushes() {
  const { x, y, width } = await (await tab.$("#plot svg")).boundingBox();
  const entries = await tab.evaluate(() => history.length);
  await tab.mouse.move(x + width * 0.8, y + 20);
  await tab.mouse.down();
  await tab.mouse.move(x + width * 0.95, y + 20, { steps: 8 });
  await tab.mouse.move(x + width, y + 20);
  await tab.mouse.up();
  assert.ok((await tab.evaluate(() => history.length)) <= entries + 1);
  // What is made at the beginning, and what has stopped, is not of this time.
  const left = await names();
  assert.ok(!left.includes("at_start") && !left.includes("for_a_while"), `${left}`);
  await tab.click("#shown tr");
  assert.equal((await tab.$$("#course .outside")).length, 2);
  await tab.click("#shut");
  assert.match(await text(tab, "#count"), /^\d of 5 call sites/);
  assert.match(
    await text(tab, "#brushed"),
    /only what was allocated from .* to .* and not freed since/,
  );
  await tab.focus("#from");
  await press("Home");
  assert.deepEqual(await names(), all);
  await press("Tab", "ArrowLeft", "Escape");
  assert.ok(await tab.$("#whole[hidden]"));
}

async function zooms() {
  const find = (name) => `#flame [aria-label^="${name}"]`;
  await tab.click(find("for_a_while"));
  assert.match(await text(tab, "#flame-hint"), /^for_a_while: 12\.9 KiB, of the call sites/);
  await press("Escape");
  assert.match(await text(tab, "#flame-hint"), /^main: /);
  await tab.click("#unzoom");
  await tab.focus('#flame [tabindex="0"]');
  await press("Home", "ArrowDown", "ArrowDown", "Enter");
  assert.match(await hash(tab), /zoom=\d+/);
  await tab.click("#unzoom");
  await tab.select("#measure", "growing");
  assert.equal(await tab.$(find("at_start")), null);
  await tab.select("#measure", "");
  await tab.select("#view", "functions");
  const lines = await tab.$$eval("#functions tbody tr", (found) =>
    found.map((row) => row.innerText),
  );
  assert.ok(
    lines.some((line) => /^12\.9 KiB\s+12\.5\s+12\.9 KiB\s+for_a_while/.test(line)),
    lines.join("\n"),
  );
  assert.ok(
    lines.some((line) => /^103\.2 KiB\s+100\.0\s+0 B\s+main/.test(line)),
    lines.join("\n"),
  );
  await tab.$$eval("#functions button", (all) =>
    all.find((one) => one.textContent === "replacing").click(),
  );
  assert.deepEqual(await names(), ["replacing"]);
  await tab.click("#only");
  await tab.select("#view", "");
}

async function restores() {
  const site = all.indexOf("replacing");
  const brushed = "measure=blocks&theme=dark&from=20&to=150";
  const chosen = `#query=ing&sort=blocks&site=${site}&${brushed}`;
  const other = await open(browser, path, { hash: chosen });
  assert.equal(await text(other.tab, "#site-head"), "replacing");
  assert.equal(await other.tab.$eval("#query", (query) => query.value), "ing");
  assert.equal(await text(other.tab, "#theme"), "Theme: dark");
  assert.equal(await other.tab.$eval("#from", (end) => end.getAttribute("aria-valuenow")), "20");
  await faultless(other, "a restored page");
  // What nobody could have chosen.
  const hostile =
    "#site=-7&zoom=1e99&sort=__proto__&measure=%3Cb%3E&from=9&to=1&process=8&up=x&query=%3Cb%3E";
  await faultless(await open(browser, path, { hash: hostile }), "a hostile address");
}

async function isShown() {
  for (const width of [400, 1600]) {
    for (const scheme of ["light", "dark"]) {
      const shown = await open(browser, path, { hash: "#site=0", width, scheme });
      await shown.tab.$$eval("details", (found) => found.forEach((one) => (one.open = true)));
      const wide = await shown.tab.evaluate(() => document.documentElement.scrollWidth);
      assert.ok(wide <= width, `${wide} pixels of ${width}`);
      if (pictures)
        await shown.tab.screenshot({ path: `${pictures}/${width}-${scheme}.png`, fullPage: true });
      await faultless(shown, `${width} pixels, ${scheme}`);
      await shown.tab.close();
    }
  }
}

try {
  for (const step of [looks, sorts, searches, hasCourses, opens, brushes, zooms, restores, isShown]) {
    console.log(step.name);
    await step();
    assert.deepEqual(page.faults, [], step.name);
  }
  await faultless(page, "at the end");
} finally {
  await browser.close();
}
