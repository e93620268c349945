// Pages that are odd, and what may be chosen in them: odd.mjs PAGE...
import { faultless, launch, open } from "./browser.mjs";

const CHOSEN = ["", "#site=0&from=3&to=90&view=functions&zoom=2", "#measure=growing&query=f", "#measure=now&sort=rate"];

const browser = await launch();
try {
  for (const path of process.argv.slice(2)) {
    for (const hash of CHOSEN) await faultless(await open(browser, path, { hash }), path + hash);
  }
} finally {
  await browser.close();
}
