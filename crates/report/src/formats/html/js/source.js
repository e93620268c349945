// Source lines, if the user has asked for them.

const AROUND = 3; // as in excerpts.rs

const hasSource = (frame) => frames.source[frame] > 0;

// The line of a frame, and those around it.
function sourceOf(frame, isOpen) {
  const lines = data.tables.sources[frames.source[frame] - 1];
  const at = frames.line[frame];
  const wide = `${at + AROUND}`.length;
  const shown = element("pre", {});
  for (let line = at - AROUND; line <= at + AROUND; line += 1) {
    if (lines[line] === undefined) continue;
    const number = `${line === at ? "→" : " "} ${`${line}`.padStart(wide)}  `;
    const text = `${number}${lines[line]}\n`;
    shown.append(line === at ? element("mark", {}, text) : text);
  }
  const source = element("details", { class: "source" }, element("summary", {}, "source"), shown);
  source.open = isOpen;
  return source;
}
