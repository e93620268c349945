// Numbers and times as leaktap's text report writes them, and elements made of text.

const grouped = (n) => n.toLocaleString("en-US", { maximumFractionDigits: 0 });

const count = (n, what) => `${grouped(n)} ${what}${n === 1 ? "" : "s"}`;

function bytes(size) {
  if (size < 10 * 1024) return `${grouped(size)} B`;
  const units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
  let value = size / 1024;
  let unit = 0;
  while (value >= 1000 && unit + 1 < units.length) {
    value /= 1024;
    unit += 1;
  }
  return `${value.toFixed(1)} ${units[unit]}`;
}

// Of a difference, where more has a plus.
const signed = (n, write, ...more) => (n < 0 ? "-" : "+") + write(Math.abs(n), ...more);

// Not where the number is one that this page cannot have exactly.
function exactBytes(size) {
  const rounded = bytes(size);
  const isExact = !rounded.endsWith("iB") || !Number.isSafeInteger(size);
  return isExact ? rounded : `${rounded} (${grouped(size)} B)`;
}

function seconds(value) {
  if (value < 0.1) return `${(value * 1000).toFixed(0)} ms`;
  if (value < 10) return `${value.toFixed(1)} s`;
  if (value < 120) return `${value.toFixed(0)} s`;
  if (value < 7200) return `${(value / 60).toFixed(0)} min`;
  return `${(value / 3600).toFixed(1)} h`;
}

const percent = (part, whole) => (whole > 0 ? `${((100 * part) / whole).toFixed(1)}` : "0.0");

const byId = (id) => document.getElementById(id);

// An element with attributes, and texts or elements in it. Names of the target are but text.
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function drawn(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function options(select, pairs, chosen) {
  select.replaceChildren(...pairs.map(([value, text]) => element("option", { value }, text)));
  select.value = chosen;
}
