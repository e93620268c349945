// A picture of what a terminal has been sent, as it shows colours: terminal.mjs PICTURE < OUTPUT
import { readFileSync } from "node:fs";
import { launch } from "./browser.mjs";

const [, , picture] = process.argv;
const sent = readFileSync(0, "utf8").replace(/\r/g, "");

const COLOURS = ["#1b1f24", "#b3261e", "#1a7f37", "#9a6700", "#0a5ca8", "#8250df", "#1b7c83"];

const escaped = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;");

// Select Graphic Rendition (ECMA-48, 8.3.117); anything else would not be shown as it is.
function styleOf(style, codes) {
  for (const code of codes.split(";").map(Number)) {
    if (code === 0) style = {};
    else if (code === 1) style = { ...style, "font-weight": "bold" };
    else if (code === 2) style = { ...style, color: "#6b747e" };
    else if (code === 22) style = { color: undefined };
    else if (code >= 30 && code <= 36) style = { ...style, color: COLOURS[code - 30] };
    else if (code === 39) style = { ...style, color: undefined };
    else throw new Error(`what is SGR ${code}?`);
  }
  return style;
}

let style = {};
let html = "";
for (const [, codes, text] of sent.matchAll(/\x1b\[([\d;]*)m|([^\x1b]+|\x1b)/g)) {
  if (text === "\x1b") throw new Error("a sequence that is no colour");
  if (codes !== undefined) style = styleOf(style, codes || "0");
  else {
    const css = Object.entries(style).filter(([, value]) => value);
    html += `<span style="${css.map((pair) => pair.join(":")).join(";")}">${escaped(text)}</span>`;
  }
}

const browser = await launch();
try {
  const tab = await browser.newPage();
  await tab.setViewport({ width: 1200, height: 600 });
  await tab.setContent(`<!doctype html><meta charset="utf-8"><style>
    body { margin: 0; background: #fff; }
    pre { display: inline-block; margin: 0; padding: 14px 18px; color: #1b1f24;
      border: 1px solid #d8dde3; font: 13px/1.38 "DejaVu Sans Mono", monospace; }
  </style><pre>${html}</pre>`);
  await (await tab.$("pre")).screenshot({ path: picture });
} finally {
  await browser.close();
}
