// Which sites are listed, in which order, and how much of each: what is filtered and brushed.

let selected = { key: "" };

const isBrushed = (of) => of.to > of.from;

// The sites that `of` asks for, in order; what is left of each of them and of each stack.
function selection(of) {
  const { process, query, scope, kind, growth, change, module, only, sort, up, from, to } = of;
  const asked = [process, query, scope, kind, growth, change, module, only, sort, up, from, to];
  const key = JSON.stringify(asked);
  if (selected.key !== key) {
    const its = processAt(process);
    const left = amounts(its, of);
    const order = matching(its, of, left);
    sortSites(its, order, of, left);
    selected = { key, process: its, order, ...left };
  }
  return selected;
}

function amounts(process, of) {
  const { stacks, sites } = process;
  if (process.more) return process.more;
  if (!isBrushed(of)) {
    const stack = { blocks: stacks.blocks, bytes: stacks.bytes };
    return { blocks: sites.blocks, bytes: sites.bytes, stack };
  }
  const stack = {
    blocks: new Float64Array(stacks.node.length),
    bytes: new Float64Array(stacks.node.length),
  };
  const blocks = new Float64Array(sites.bytes.length);
  const sum = new Float64Array(sites.bytes.length);
  for (let i = 0; i < stacks.node.length; i += 1) {
    [stack.blocks[i], stack.bytes[i]] = inParts(process, i, of.from, of.to);
    blocks[process.siteOf[i]] += stack.blocks[i];
    sum[process.siteOf[i]] += stack.bytes[i];
  }
  return { blocks, bytes: sum, stack };
}

function matching(process, of, left) {
  const { sites } = process;
  const wanted = (column, text) => (text ? (site) => texts[column[site]] === text : null);
  const tests = [
    isBrushed(of) ? (site) => left.blocks[site] > 0 : null,
    wanted(sites.kind, of.kind),
    of.growth === "none" ? (site) => sites.growth[site] === 0 : wanted(sites.growth, of.growth),
    wanted(sites.change, of.change),
    of.module ? (site) => moduleOf(process, site) === of.module : null,
    of.query.trim() ? searched(process, of.query.trim().toLowerCase(), of.scope) : null,
    of.only ? bySome(process, (frame) => frameName(frame) === of.only) : null,
  ].filter((test) => test);
  const order = [];
  for (let site = 0; site < sites.bytes.length; site += 1) {
    if (tests.every((test) => test(site))) order.push(site);
  }
  return order;
}

const moduleOf = (process, site) => {
  const frame = siteFrame(process, site);
  return frame < 0 ? "" : frameModule(frame);
};

// Each text is looked at once, not once for each frame.
function searched(process, query, scope) {
  const found = texts.map((text) => text.toLowerCase().includes(query));
  const parts = {
    function: (frame) => found[frames.name[frame]] || found[frames.full[frame]],
    file: (frame) => found[frames.file[frame]] || framePlace(frame).toLowerCase().includes(query),
    module: (frame) => frameModule(frame).toLowerCase().includes(query),
  };
  const any = (frame) => parts.function(frame) || parts.file(frame) || parts.module(frame);
  if (scope !== "site") return bySome(process, parts[scope] ?? any);
  return (site) => {
    const frame = siteFrame(process, site);
    return frame >= 0 && any(frame);
  };
}

// Whether a stack of a site has a frame like that.
function bySome(process, test) {
  const asked = new Map();
  const known = (frame) => {
    if (!asked.has(frame)) asked.set(frame, test(frame));
    return asked.get(frame);
  };
  // Callers come before those that they call.
  const nodes = new Uint8Array(process.callers.length);
  for (let node = 1; node < nodes.length; node += 1) {
    nodes[node] = nodes[process.callers[node]] || known(process.nodes.frame[node]) ? 1 : 0;
  }
  return (site) => {
    for (let i = process.firstStack[site]; i < process.firstStack[site + 1]; i += 1) {
      if (nodes[process.stacks.node[i]]) return true;
    }
    return false;
  };
}

// Without a column, as leaktap has sorted them. Equals stay in that order, too.
function sortSites(process, order, of, left) {
  const { sites } = process;
  const numbers = { bytes: left.bytes, blocks: left.blocks, oldest: sites.oldest };
  if (process.more) {
    Object.assign(numbers, { before: sites.before.bytes, now: sites.bytes });
    numbers.rate = sites.bytes.map((_, site) => rateOf(process, site));
  }
  const words = {
    growth: (site) => texts[sites.growing[site]],
    kind: (site) => texts[sites.kind[site]],
    change: (site) => texts[sites.change[site]] ?? "",
    site: (site) => siteName(process, site),
    module: (site) => moduleOf(process, site),
    function: (site) => texts[sites.function[site]],
  };
  const sign = of.up ? 1 : -1;
  if (numbers[of.sort]) {
    const column = numbers[of.sort];
    order.sort((a, b) => sign * (column[a] - column[b]) || a - b);
  } else if (words[of.sort]) {
    const ranks = ranked(order.map(words[of.sort]));
    const rank = new Map(order.map((site, at) => [site, ranks[at]]));
    order.sort((a, b) => -sign * (rank.get(a) - rank.get(b)) || a - b);
  }
}

// What place each word has among all of them: words are compared once. None comes last.
function ranked(words) {
  const different = [...new Set(words)];
  const before = (a, b) => (a === "") - (b === "") || (a < b ? -1 : 1);
  const rank = new Map(different.sort(before).map((word, at) => [word, at]));
  return words.map((word) => rank.get(word));
}

// What is listed, in one line.
function inWords({ process, order, blocks, bytes: sizes }) {
  const all = process.sites.bytes.length;
  const sites = order.length === all ? grouped(all) : `${grouped(order.length)} of ${grouped(all)}`;
  const sums = [0, 0];
  let size = 0;
  for (const site of order) {
    sums[process.sites.region[site]] += blocks[site];
    size += sizes[site];
  }
  const some = counted(process, sums[0], "block");
  const regions = counted(process, sums[1], "region");
  const what = sums[1] === 0 ? some : sums[0] === 0 ? regions : `${some} and ${regions}`;
  return `${sites} call site${all === 1 ? "" : "s"}, ${sized(process, size)} in ${what}`;
}
