// What the flame graph shows, as a table: each function once.

const LINES = 200;

// `more` are signed numbers, of a difference; else what has the functions' width.
function functionsOf(process, own, sums, more) {
  const found = new Map();
  const of = (node) => {
    const name = frameName(process.nodes.frame[node]);
    if (!found.has(name))
      found.set(name, { name, frame: process.nodes.frame[node], self: 0, total: 0 });
    return found.get(name);
  };
  // What a function has that calls itself counts once: where it is called first.
  const above = new Map();
  const waiting = [[state.zoom, false]];
  while (waiting.length > 0) {
    const [node, isLeft] = waiting.pop();
    if (node === 0 || sums[node] === 0) {
      if (node === 0) for (const child of childrenOf(process)[0]) waiting.push([child, false]);
      continue;
    }
    const one = of(node);
    const depth = above.get(one) ?? 0;
    if (isLeft) {
      above.set(one, depth - 1);
      continue;
    }
    one.self += (more?.own ?? own)[node];
    if (depth === 0) one.total += (more?.sums ?? sums)[node];
    above.set(one, depth + 1);
    waiting.push([node, true]);
    for (const child of childrenOf(process)[node]) waiting.push([child, false]);
  }
  const size = Math.abs;
  const all = [...found.values()];
  return all.sort((a, b) => size(b.total) - size(a.total) || size(b.self) - size(a.self));
}

function showFunctions(process, own, sums) {
  const { more } = flame;
  const all = functionsOf(process, own, sums, more);
  const share = more ? [] : ["%"];
  const heads = ["With callees", ...share, "Itself", "Function"];
  const head = element("tr", {}, ...heads.map((text) => element("th", { scope: "col" }, text)));
  const rows = all.slice(0, LINES).map(({ name, frame, self, total }) => {
    const only = element(
      "button",
      { type: "button", class: "quiet", title: fullName(frame) },
      name,
    );
    only.addEventListener("click", () => change({ only: name }));
    const numbers = more
      ? [signed(total, inMeasure), signed(self, inMeasure)]
      : [inMeasure(total), percent(total, sums[state.zoom]), inMeasure(self)];
    const cells = numbers.map((text) => element("td", { class: "number" }, text));
    const place = element("span", { class: "place" }, frameModule(frame));
    return element("tr", {}, ...cells, element("td", {}, only, " ", place));
  });
  const table = element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows));
  const left = all.length - rows.length;
  const rest = left > 0 ? `… ${count(left, "more function")}` : "";
  byId("functions").replaceChildren(table, element("p", { class: "hint" }, rest));
}
