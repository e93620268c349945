// The time line, and the brush on it: it restricts the page to what was allocated in that time and
// has not been freed since. No more is known of blocks that are gone.

const PANEL = 56; // height of each, in the units of the drawing
const WIDTH = 1000;

const timeline = { drag: null };

const HINT =
  "Drag over the time, or move its ends with the arrow keys, to see only what was allocated then.";

function panelsOf(process) {
  const { moments } = process;
  const panels = [];
  if (!(process.duration > 0)) return panels;
  if (moments.at.length > 1) {
    panels.push({ name: "Resident memory", line: moments.rss });
    panels.push({ name: "Live bytes", line: moments.live, peak: process.peak });
  }
  if (process.hasAges) panels.push({ name: "Unfreed, when allocated", bars: barsOf(process) });
  return panels;
}

function barsOf(process) {
  const bars = new Float64Array(process.parts);
  for (let i = 0; i < process.ages.length; i += 3) bars[process.ages[i]] += process.ages[i + 2];
  return bars;
}

function barsOfSite(process, site) {
  const bars = new Float64Array(process.parts);
  const end = process.firstAge[process.firstStack[site + 1]];
  for (let age = process.firstAge[process.firstStack[site]]; age < end; age += 1) {
    bars[process.ages[3 * age]] += process.ages[3 * age + 2];
  }
  return bars;
}

const largest = (numbers) => numbers.reduce((most, one) => Math.max(most, one), 0);

function showTimeline(chosen) {
  const { process } = chosen;
  const panels = panelsOf(process);
  byId("time").hidden = panels.length === 0;
  if (panels.length === 0) return;
  if (timeline.process !== process || timeline.site !== state.site) {
    Object.assign(timeline, { process, site: state.site });
    drawPanels(process, panels);
  }
  showBrush(chosen);
}

function drawPanels(process, panels) {
  const height = panels.length * PANEL;
  const svg = drawn("svg", {
    viewBox: `0 0 ${WIDTH} ${height}`,
    preserveAspectRatio: "none",
    role: "img",
    "aria-label": panels.map(said).join("; "),
  });
  panels.forEach((panel, i) => {
    const base = (i + 1) * PANEL;
    svg.append(drawn("line", { x1: 0, x2: WIDTH, y1: base, y2: base, class: "base" }));
    if (panel.line) svg.append(lineOf(process, process.moments.at, panel.line, base));
    if (panel.peak) svg.append(peakOf(process, base));
    if (panel.bars) {
      const most = largest(panel.bars);
      svg.append(pathOf(panel.bars, most, base, "bars"));
      if (state.site >= 0)
        svg.append(pathOf(barsOfSite(process, state.site), most, base, "of-site"));
    }
  });
  const scales = panels.map((panel) => {
    const most = element("span", { class: "most" }, bytes(largest(panel.line ?? panel.bars)));
    const [kind, words] = panel.peak
      ? ["peaks", `┊ peak at ${seconds(panel.peak.at)}`]
      : ["key", panel.bars && state.site >= 0 ? "of the open call site" : ""];
    const key = element("span", { class: kind }, words);
    return element("div", {}, element("span", {}, panel.name), key, most);
  });
  byId("scales").replaceChildren(...scales);
  byId("plot").replaceChildren(svg, brushElement(process), ticks(process));
  byId("plot").style.setProperty("--height", `${height}px`);
}

function said(panel) {
  if (panel.bars) return `${panel.name}: at most ${bytes(largest(panel.bars))} at once`;
  const [first, last] = [panel.line[0], panel.line[panel.line.length - 1]];
  const most = bytes(largest(panel.line));
  const peak = panel.peak ? `, peak at ${seconds(panel.peak.at)}` : "";
  return `${panel.name}: ${bytes(first)} first, ${bytes(last)} last, ${most} at most${peak}`;
}

// Values at these times; where one is not known, the line is broken.
function lineOf(process, at, line, base) {
  const most = largest(line) || 1;
  let path = "";
  line.forEach((value, i) => {
    if (value === null) return;
    const x = (WIDTH * at[i]) / process.duration;
    const isFirst = i === 0 || line[i - 1] === null;
    const y = base - ((PANEL - 8) * value) / most;
    path += `${isFirst ? "M" : "L"}${x.toFixed(1)},${y.toFixed(1)}${isFirst ? "h.1" : ""}`;
  });
  return drawn("path", { d: path, class: "line" });
}

function peakOf({ peak, duration }, base) {
  const x = (WIDTH * peak.at) / duration;
  return drawn("line", { x1: x, x2: x, y1: base - PANEL, y2: base, class: "peak" });
}

function pathOf(bars, most, base, kind) {
  const wide = WIDTH / bars.length;
  let path = "";
  bars.forEach((value, part) => {
    if (value === 0) return;
    const high = Math.max(1.5, ((PANEL - 8) * value) / (most || 1));
    path += `M${part * wide},${base}v${-high}h${wide}v${high}z`;
  });
  return drawn("path", { d: path, class: kind });
}

function ticks(process) {
  const row = element("div", { class: "ticks", "aria-hidden": "true" });
  for (const share of [0, 0.25, 0.5, 0.75, 1]) {
    row.append(element("span", {}, share ? seconds(process.duration * share) : "0"));
  }
  return row;
}

function brushElement(process) {
  const brush = element("div", { id: "brush" });
  if (!process.hasAges) return brush;
  for (const [end, name] of [
    ["from", "From"],
    ["to", "To"],
  ]) {
    const handle = element("div", {
      role: "slider",
      tabindex: 0,
      id: end,
      "aria-label": `${name}: time of allocation`,
      "aria-valuemin": 0,
      "aria-valuemax": process.parts,
    });
    handle.addEventListener("keydown", (event) => moveEnd(event, end));
    brush.append(handle);
  }
  return brush;
}

// The parts that are chosen: all, if no time is.
const chosenParts = (process) => (isBrushed(state) ? [state.from, state.to] : [0, process.parts]);

function showBrush(chosen) {
  const { process } = chosen;
  byId("whole").hidden = !isBrushed(state);
  byId("plot").classList.toggle("can-brush", process.hasAges);
  const [from, to] = chosenParts(process);
  const time = (part) => seconds((process.duration * part) / process.parts);
  for (const [end, part] of process.hasAges
    ? [
        ["from", from],
        ["to", to],
      ]
    : []) {
    byId(end).style.left = `${(100 * part) / process.parts}%`;
    byId(end).setAttribute("aria-valuenow", part);
    byId(end).setAttribute("aria-valuetext", time(part));
  }
  const brush = byId("brush");
  brush.classList.toggle("on", isBrushed(state));
  brush.style.setProperty("--from", `${(100 * from) / process.parts}%`);
  brush.style.setProperty("--to", `${(100 * to) / process.parts}%`);
  byId("brushed").textContent = wordsOfBrush(chosen, time(from), time(to));
}

function wordsOfBrush(chosen, from, to) {
  if (!chosen.process.hasAges)
    return "When blocks were allocated is not known of this: no time can be chosen.";
  if (!isBrushed(state)) return HINT;
  return (
    `Call sites and stacks: only what was allocated from ${from} to ${to} and not freed since. ` +
    "Summary, peak, ages and growth: of the whole time."
  );
}

function brushTo(one, other, how) {
  const { parts } = processAt(state.process);
  const [from, to] = one < other ? [one, other] : [other, one];
  const isAll = from === 0 && to === parts;
  change(isAll || from === to ? { from: 0, to: 0 } : { from, to }, how);
}

function moveEnd(event, end) {
  const process = processAt(state.process);
  let [from, to] = chosenParts(process);
  const by = event.shiftKey ? 10 : 1;
  const now = end === "from" ? from : to;
  const next = {
    ArrowLeft: now - by,
    ArrowDown: now - by,
    ArrowRight: now + by,
    ArrowUp: now + by,
    PageDown: now - 10,
    PageUp: now + 10,
    Home: 0,
    End: process.parts,
  }[event.key];
  if (event.key === "Escape") [from, to] = [0, process.parts];
  else if (next === undefined) return;
  else if (end === "from") from = Math.max(0, Math.min(next, to - 1));
  else to = Math.min(process.parts, Math.max(next, from + 1));
  event.preventDefault();
  brushTo(from, to, { step: false });
}

function partAt(event, round) {
  const { left, width } = byId("plot").getBoundingClientRect();
  const { parts } = processAt(state.process);
  const part = round(((event.clientX - left) / width) * parts);
  return Math.max(0, Math.min(parts, part));
}

function dragged(event) {
  if (!timeline.drag) return readOff(event);
  const at = partAt(event, Math.round);
  timeline.drag.moved ||= Math.abs(event.clientX - timeline.drag.x) > 3;
  // The first step makes an entry in the history, the others change it.
  if (timeline.drag.moved) {
    brushTo(timeline.drag.part, at, { step: !timeline.drag.isNoted });
    timeline.drag.isNoted = true;
  }
}

// What there was at the time below the pointer.
function readOff(event) {
  const process = processAt(state.process);
  const { moments } = process;
  const at = (process.duration * partAt(event, (part) => part)) / process.parts;
  const words = [seconds(at)];
  if (moments.at.length > 1) {
    const later = moments.at.findIndex((time) => time > at);
    const i = Math.max(0, (later < 0 ? moments.at.length : later) - 1);
    words.push(`resident ${bytes(moments.rss[i])}`, `live ${bytes(moments.live[i])}`);
  }
  byId("reading").textContent = words.join(" · ");
}

// An end that is dragged moves against the other one; elsewhere a new time begins.
function dragFrom(event) {
  const process = processAt(state.process);
  if (!process.hasAges || event.button !== 0) return;
  const [from, to] = chosenParts(process);
  const end = isBrushed(state) ? event.target.id : "";
  const part = end === "from" ? to : end === "to" ? from : partAt(event, Math.round);
  timeline.drag = { part, x: event.clientX, moved: false, isNoted: false };
  byId("plot").setPointerCapture(event.pointerId);
}

function startTimeline() {
  const plot = byId("plot");
  plot.addEventListener("pointerdown", dragFrom);
  plot.addEventListener("pointermove", dragged);
  plot.addEventListener("pointerup", () => (timeline.drag = null));
  plot.addEventListener("pointercancel", () => (timeline.drag = null));
  plot.addEventListener("pointerleave", () => (byId("reading").textContent = ""));
  byId("whole").addEventListener("click", () => {
    change({ from: 0, to: 0 });
    byId("from")?.focus();
  });
}
