// A picture of a page: picture.mjs PAGE PICTURE
import { launch, open } from "./browser.mjs";

const [, , path, picture] = process.argv;
const browser = await launch();
try {
  const { tab } = await open(browser, path, { width: 1100 });
  await tab.screenshot({ path: picture, fullPage: true });
} finally {
  await browser.close();
}
