// What lived in the course of the trace: of the open call site, and at the peak.

// Bytes of a site at the moments of `series.at`; null where that was not noted.
function seriesOf({ series }, site) {
  const index = series.site.indexOf(site);
  const { length } = series.at;
  return index < 0 ? null : series.bytes.slice(index * length, (index + 1) * length);
}

// The line of the open site has the time of the whole trace, and a scale of its own.
function showCourse({ process }, site) {
  const line = process.duration > 0 ? seriesOf(process, site) : null;
  byId("course").hidden = !line;
  if (!line) return;
  const known = line.filter((value) => value !== null);
  const [first, last] = [known[0] ?? 0, known[known.length - 1] ?? 0].map(bytes);
  const words = `Its live bytes in the whole time: ${first} first, ${last} last, ${bytes(largest(known))} at most`;
  const svg = drawn("svg", {
    viewBox: `0 0 ${WIDTH} ${PANEL}`,
    preserveAspectRatio: "none",
    role: "img",
    "aria-label": words,
  });
  svg.append(drawn("line", { x1: 0, x2: WIDTH, y1: PANEL, y2: PANEL, class: "base" }));
  svg.append(lineOf(process, process.series.at, line, PANEL));
  if (isBrushed(state)) {
    const wide = WIDTH / process.parts;
    const outside = [
      [0, state.from],
      [state.to, process.parts],
    ];
    for (const [from, to] of outside) {
      const [x, width] = [from * wide, (to - from) * wide];
      svg.append(drawn("rect", { x, width, y: 0, height: PANEL, class: "outside" }));
    }
  }
  byId("course").replaceChildren(svg, element("p", { class: "hint" }, words));
}

function showPeak({ peak }) {
  const rows = peak ? peak.sites.bytes.map((_, i) => peakRow(peak, i)) : [];
  const rest = peak ? peak.bytes - peak.sites.bytes.reduce((so, size) => so + size, 0) : 0;
  if (rest > 0) rows.push([bytes(rest), percent(rest, peak.bytes), "smaller ones", ""]);
  const text = peak ? `Peak: ${bytes(peak.bytes)} live at ${seconds(peak.at)}, and whose` : "";
  showTexts("peak", text, ["Bytes", "%", "Call site", "Called"], rows);
}

function peakRow({ bytes: all, sites }, i) {
  const stack = sites.frames[i];
  const frame = stack.find((one) => frameClass(one) === 0) ?? stack[0];
  const name = frame === undefined ? "[no stack]" : frameName(frame);
  const place = frame === undefined || !texts[frames.name[frame]] ? "" : framePlace(frame);
  const list = element("ol", { class: "stack", "aria-label": "Stack, innermost first" });
  for (const one of stack) list.append(frameElement(one, false));
  const summary = element("summary", {}, element("b", {}, name), " ");
  summary.append(element("span", { class: "place" }, place));
  const site = element("details", {}, summary, list);
  const size = sites.bytes[i];
  return [bytes(size), percent(size, all), site, texts[sites.function[i]]];
}
