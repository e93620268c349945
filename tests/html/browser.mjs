// A page in headless Chromium, without a network; what must not happen there ends the test.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import puppeteer from "puppeteer-core";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

export const launch = () =>
  puppeteer.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"],
  });

// The page at `path`, and what is said of it that nobody wants to read.
export async function open(browser, path, { hash = "", width = 1600, scheme = "light" } = {}) {
  const tab = await browser.newPage();
  const faults = [];
  const address = pathToFileURL(path).href;
  tab.on("console", (message) => faults.push(`console: ${message.text()}`));
  tab.on("pageerror", (error) => faults.push(`error: ${error.stack}`));
  tab.on("dialog", (dialog) => {
    faults.push(`dialog: ${dialog.message()}`);
    dialog.dismiss();
  });
  tab.on("request", (request) => {
    if (request.url().split("#")[0] !== address) faults.push(`request: ${request.url()}`);
  });
  await tab.setOfflineMode(true);
  await tab.setViewport({ width, height: 1000 });
  await tab.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  await tab.goto(address + hash);
  return { tab, faults };
}

// Fails if axe-core finds anything, or there was something to be said.
export async function faultless({ tab, faults }, what) {
  await tab.evaluate(axe);
  const found = await tab.evaluate(async () => {
    const { violations } = await globalThis.axe.run(document, { resultTypes: ["violations"] });
    return violations.map(({ id, nodes }) => ({ id, html: nodes.slice(0, 3).map((n) => n.html) }));
  });
  assert.deepEqual(found, [], `${what}: axe`);
  assert.deepEqual(faults, [], what);
}

export const text = (tab, selector) => tab.$eval(selector, (found) => found.textContent);

export const rows = (tab) =>
  tab.$$eval("#shown tr", (found) => found.map((row) => row.querySelector(".name").textContent));

export const hash = (tab) => tab.evaluate(() => location.hash);
