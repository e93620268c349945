// The flame graph: callers above those that they call, each as wide as what was allocated below it.

const LEAST = 0.0012; // the least share of the width that is drawn
const MOST = 4000; // elements

const flame = { key: "", current: 0, focus: -1 };

const MEASURES = {
  "": "unfreed bytes",
  blocks: "unfreed blocks",
  growing: "unfreed bytes of what grows",
  allocated: "all bytes allocated",
};

function measuresOf(process) {
  if (process.more) return MEASURES_OF_DIFFERENCE;
  const { allocated, ...always } = MEASURES;
  return process.hasAllocated ? { ...always, allocated } : always;
}

const isGrowing = (process, site) => texts[process.sites.growth[site]] === "growing";

// What each stack of the sites that are listed comes to.
function weightsOf({ process, order, stack }, measure) {
  const { bytes: now, allocated } = process.stacks;
  const column = { blocks: stack.blocks, allocated, now }[measure] ?? stack.bytes;
  const sites = measure === "growing" ? order.filter((site) => isGrowing(process, site)) : order;
  return ofStacks(process, sites, process.more ? column.map(Math.abs) : column);
}

// The sums of a column of stacks, of these sites, by node.
function ofStacks(process, sites, column) {
  const sums = new Float64Array(process.callers.length);
  for (const site of sites) {
    for (let i = process.firstStack[site]; i < process.firstStack[site + 1]; i += 1) {
      sums[process.stacks.node[i]] += column[i] ?? 0;
    }
  }
  return sums;
}

// Adds to each node what is below it. Callers come before those that they call.
function summed(process, own) {
  const sums = Float64Array.from(own);
  for (let node = sums.length - 1; node > 0; node -= 1) sums[process.callers[node]] += sums[node];
  return sums;
}

function childrenOf(process) {
  process.children ??= (() => {
    const children = Array.from({ length: process.callers.length }, () => []);
    for (let node = 1; node < children.length; node += 1)
      children[process.callers[node]].push(node);
    return children;
  })();
  return process.children;
}

const inMeasure = (value) => (state.measure === "blocks" ? count(value, "block") : bytes(value));

function showFlame(chosen) {
  const { process } = chosen;
  options(byId("measure"), Object.entries(measuresOf(process)), state.measure);
  showLegend(process);
  byId("view").value = state.view;
  const isGraph = state.view === "";
  byId("flame").hidden = !isGraph;
  byId("legend").hidden = !isGraph;
  byId("functions").hidden = isGraph;
  byId("unzoom").hidden = state.zoom === 0;
  const key = JSON.stringify([chosen.key, state.measure, state.zoom, state.view]);
  if (flame.key === key) return;
  flame.key = key;
  const own = weightsOf(chosen, state.measure);
  const sums = summed(process, own);
  flame.more = process.more ? netOf(chosen, state.measure) : null;
  byId("flame-hint").textContent = hintOf(process, sums);
  if (isGraph) drawFlame(process, sums);
  else showFunctions(process, own, sums);
}

function hintOf(process, sums) {
  if (sums[state.zoom] === 0) return "There is nothing of that.";
  const of = state.zoom ? `${frameName(process.nodes.frame[state.zoom])}: ` : "";
  const how = state.view ? "" : " Enter or a click zooms, Esc zooms out; arrow keys move.";
  if (flame.more) {
    const wide = state.measure === "now" ? "is left" : "has changed";
    const width = state.view ? "" : ` As wide as what ${wide} below it.`;
    const more = signed(flame.more.sums[state.zoom], inMeasure);
    return `${of}${more}, of the call sites listed above.${width}${how}`;
  }
  const then = state.measure === "allocated" ? ", freed or not, where that is known" : "";
  return `${of}${inMeasure(sums[state.zoom])}${then}, of the call sites listed above.${how}`;
}

function drawFlame(process, sums) {
  const blocks = [];
  const path = [];
  for (let node = state.zoom; node > 0; node = process.callers[node]) path.unshift(node);
  path.unshift(0);
  path.forEach((node, level) => blocks.push({ node, level, left: 0, width: 1 }));
  const rest = sums[state.zoom] > 0 ? [blocks[blocks.length - 1]] : [];
  for (let at = 0; at < rest.length && blocks.length < MOST; at += 1) {
    const { node, level, left, width } = rest[at];
    let x = left;
    const children = childrenOf(process)[node].filter((child) => sums[child] > 0);
    children.sort((a, b) => sums[b] - sums[a] || a - b);
    for (const child of children) {
      const share = (width * sums[child]) / sums[node];
      if (share < LEAST) break; // those after it have no more
      const block = { node: child, level: level + 1, left: x, width: share };
      blocks.push(block);
      rest.push(block);
      x += share;
    }
  }
  const levels = blocks.reduce((most, block) => Math.max(most, block.level), 0) + 1;
  const byNode = new Map(blocks.map((block) => [block.node, block]));
  Object.assign(flame, { process, blocks: byNode, sums });
  if (!byNode.has(flame.current)) flame.current = state.zoom;
  const graph = byId("flame");
  const hadFocus = graph.contains(document.activeElement);
  graph.style.height = `${levels * 20}px`;
  graph.replaceChildren(
    ...inTreeOrder(process, byNode).map((block) => blockElement(process, block, sums)),
  );
  if (hadFocus || flame.focus >= 0) {
    if (byNode.has(flame.focus)) flame.current = flame.focus;
    flame.focus = -1;
    focusBlock(flame.current);
  }
}

// As a reader goes through a tree: a node, then what is below it.
function inTreeOrder(process, blocks) {
  const sorted = new Map();
  for (const block of blocks.values()) {
    const above = block.node === 0 ? -1 : process.callers[block.node];
    if (!sorted.has(above)) sorted.set(above, []);
    sorted.get(above).push(block);
  }
  const ordered = [];
  const waiting = [blocks.get(0)];
  while (waiting.length > 0) {
    const block = waiting.pop();
    ordered.push(block);
    block.below = sorted.get(block.node) ?? [];
    waiting.push(...[...block.below].reverse());
  }
  return ordered;
}

function blockElement(process, { node, level, left, width, below }, sums) {
  const frame = process.nodes.frame[node];
  const name = node === 0 ? "all" : blockName(process, node);
  const share = flame.more
    ? moreInWords(node, sums)
    : `${inMeasure(sums[node])}, ${percent(sums[node], sums[0])} %`;
  const made = element("div", {
    role: "treeitem",
    class: flame.more ? "" : node === 0 ? "all" : `c${frameClass(frame)}`,
    tabindex: node === flame.current ? 0 : -1,
    "aria-level": level + 1,
    "aria-label": `${name}: ${share}`,
    "data-node": node,
  });
  if (below.length > 0) made.setAttribute("aria-expanded", true);
  if (flame.more) colour(made, flame.more.sums[node], sums[node]);
  const shown = flame.more ? `${name}: ${signed(flame.more.sums[node], inMeasure)}` : name;
  made.append(width > 0.012 ? shown : "");
  made.title = node === 0 ? share : `${fullName(frame)}\n${framePlace(frame)}\n${share}`;
  made.classList.toggle("above", node !== state.zoom && level < levelOf(process, state.zoom));
  made.style.left = `${100 * left}%`;
  made.style.width = `${100 * width}%`;
  made.style.top = `${20 * level}px`;
  return made;
}

// With its place, where its caller calls the same function at another one.
function blockName(process, node) {
  const frame = process.nodes.frame[node];
  const name = frameName(frame);
  const beside = flame.blocks.get(process.callers[node]).below;
  const alike = beside.filter((block) => frameName(process.nodes.frame[block.node]) === name);
  return alike.length > 1 ? `${name} ${framePlace(frame)}` : name;
}

function levelOf(process, node) {
  let level = 0;
  for (let at = node; at > 0; at = process.callers[at]) level += 1;
  return level;
}

function focusBlock(node) {
  const graph = byId("flame");
  graph.querySelector('[tabindex="0"]')?.setAttribute("tabindex", -1);
  flame.current = node;
  const block = graph.querySelector(`[data-node="${node}"]`);
  block?.setAttribute("tabindex", 0);
  block?.focus();
}

// Draws with the focus on this one, if it is wide enough to be there.
function flameFocus(node) {
  flame.focus = node;
  flame.key = "";
  showFlame(selection(state));
}

// The first caller of this one that leads nowhere else: all of the stack can be seen from there.
function outermost(process, node) {
  let at = node;
  while (at > 0 && childrenOf(process)[process.callers[at]].length === 1) at = process.callers[at];
  return at === node ? process.callers[node] : at;
}

function flameKey(event) {
  const { process, blocks } = flame;
  const now = blocks.get(flame.current);
  const beside = (by) => {
    const all = blocks.get(process.callers[now.node])?.below ?? [];
    return now.node === 0 ? undefined : all[all.indexOf(now) + by]?.node;
  };
  const goes = {
    ArrowDown: () => now.below[0]?.node,
    ArrowUp: () => (now.node === 0 ? undefined : process.callers[now.node]),
    ArrowRight: () => beside(1),
    ArrowLeft: () => beside(-1),
    Home: () => 0,
  }[event.key];
  if (goes) {
    const to = goes();
    if (to !== undefined) focusBlock(to);
  } else if (event.key === "Enter" || event.key === " ") zoomTo(now.node);
  else if (event.key === "Escape") zoomOut();
  else return;
  event.preventDefault();
}

function zoomTo(node) {
  flame.current = node;
  change({ zoom: node });
}

function zoomOut() {
  if (state.zoom > 0) zoomTo(flame.process.callers[state.zoom]);
}

function startFlame() {
  const graph = byId("flame");
  graph.addEventListener("keydown", flameKey);
  graph.addEventListener("click", (event) => {
    const block = event.target.closest("[data-node]");
    if (block) zoomTo(Number(block.dataset.node));
  });
  byId("measure").addEventListener("change", (event) => change({ measure: event.target.value }));
  byId("view").addEventListener("change", (event) => change({ view: event.target.value }));
  byId("unzoom").addEventListener("click", () => change({ zoom: 0 }));
}

function showLegend(process) {
  const all = process.more ? LEGEND_OF_DIFFERENCE : CLASSES.map((name, i) => [`c${i}`, name]);
  const legend = all.map(([kind, name]) =>
    element("li", {}, element("span", { class: `swatch ${kind}` }), name),
  );
  byId("legend").replaceChildren(...legend);
}
