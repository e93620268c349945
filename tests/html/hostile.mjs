// The page of processes with a hostile name: hostile.mjs PAGE NAME
import assert from "node:assert/strict";
import { faultless, launch, open, text } from "./browser.mjs";

const [, , path, name] = process.argv;
const browser = await launch();
try {
  const page = await open(browser, path);
  const { tab } = page;
  const names = await tab.$$eval("#process option", (found) => found.map((one) => one.textContent));
  assert.equal(names[0], "All 3 processes");
  assert.match(await text(tab, "#title"), /^All 3 processes$/);
  const at = names.findIndex((one) => one.startsWith(name));
  assert.ok(at > 0, `${names}`);
  await tab.select("#process", `${at}`);
  assert.ok((await text(tab, "#title")).includes(name));
  assert.ok((await text(tab, "#about")).includes(name));
  assert.equal(await tab.$("img, main script, iframe"), null);
  await tab.goBack();
  assert.match(await text(tab, "#title"), /^All 3 processes$/);
  await faultless(page, "hostile names");
} finally {
  await browser.close();
}
