// What a page of two traces has, where one of a single trace says what is left: how much more there
// is, or less. Numbers then are signed, `process.more`.

const sized = (process, size) => (process.more ? signed(size, bytes) : bytes(size));

const counted = (process, n, what) => (process.more ? signed(n, count, what) : count(n, what));

const CHANGES = ["new", "grown", "shrunk", "gone"];

const HEADS_OF_DIFFERENCE = [
  ["bytes", "Bytes", "number"],
  ["blocks", "Blocks", "number blocks"],
  ["change", "Change", "change"],
  ["before", "Before", "number before"],
  ["now", "Now", "number now"],
  ["rate", "Rate", "number rate"],
  ...NAMES,
];

function headsOf(process) {
  if (!process.more) return HEADS;
  const hasRates = process.compared.duration !== null;
  return HEADS_OF_DIFFERENCE.filter(([column]) => hasRates || column !== "rate");
}

const rate = (size, time) => (time > 0 ? size / time : 0);

// By so many bytes a second more is left, or fewer.
function rateOf({ sites, duration, compared }, site) {
  return rate(sites.bytes[site], duration) - rate(sites.before.bytes[site], compared.duration);
}

function changedCells(process, site) {
  const { sites } = process;
  return {
    change: texts[sites.change[site]],
    before: bytes(sites.before.bytes[site]),
    now: bytes(sites.bytes[site]),
    rate: `${signed(rateOf(process, site), bytes)}/s`,
  };
}

// What has become of a site, as leaktap's text says it.
function changeOf(process, site) {
  const { sites, duration, compared } = process;
  const what = sites.region[site] ? "region" : "block";
  const word = texts[sites.change[site]];
  const was = `${bytes(sites.before.bytes[site])} in ${count(sites.before.blocks[site], what)}`;
  const is = `${bytes(sites.bytes[site])} in ${count(sites.blocks[site], what)}`;
  const both = { new: "", gone: `, ${was} before, none left` };
  const rates = [
    rate(sites.before.bytes[site], compared.duration),
    rate(sites.bytes[site], duration),
  ].map((one) => `${bytes(Math.floor(one))}/s`);
  const told = compared.duration === null || word === "gone";
  return [
    `${word}${both[word] ?? `, ${was} before, ${is} now`}`,
    ...(told ? [] : [`${rates[0]} before, ${rates[1]} now`]),
  ];
}

// Whether a stack has anything to be shown.
const isShown = ({ process, stack }, i) =>
  process.more ? stack.blocks[i] !== 0 || stack.bytes[i] !== 0 : stack.blocks[i] > 0;

const MEASURES_OF_DIFFERENCE = {
  "": "bytes more and less",
  blocks: "blocks more and less",
  now: "bytes that are left now",
};

// How much more there is of what each node has itself, and with what is below it.
function netOf(chosen, measure) {
  const { process, order, stack } = chosen;
  const column = measure === "blocks" ? stack.blocks : stack.bytes;
  const own = ofStacks(process, order, column);
  return { own, sums: summed(process, own) };
}

function moreInWords(node, sums) {
  const more = flame.more.sums[node];
  const left = state.measure === "now" ? `, ${bytes(sums[node])} now` : "";
  const word = more > 0 ? "more than" : more < 0 ? "less than" : "as much as";
  return `${signed(more, inMeasure)}, ${word} before${left}`;
}

// Red is more, blue is less, the stronger the more of what is there has changed that way.
function colour(block, more, of) {
  const share = of > 0 ? Math.min(1, Math.abs(more) / of) : 0;
  block.classList.add(more > 0 ? "more" : more < 0 ? "less" : "even");
  block.style.setProperty("--share", `${Math.round(25 + 75 * share)}%`);
}

const LEGEND_OF_DIFFERENCE = [
  ["more", "+ more than before"],
  ["less", "- less"],
  ["even", "as much"],
];
