// A picture of a page, with its first call site open: picture.mjs PAGE PICTURE
import { launch, open } from "./browser.mjs";

const [, , path, picture] = process.argv;
const browser = await launch();
try {
  const { tab } = await open(browser, path, { hash: "#site=0", width: 1240 });
  await tab.screenshot({ path: picture, fullPage: true });
} finally {
  await browser.close();
}
