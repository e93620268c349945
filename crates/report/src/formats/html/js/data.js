// What leaktap has written into the page. See columns.rs for what each column is.

const data = JSON.parse(byId("data").textContent);
const texts = data.tables.texts;
const frames = data.tables.frames;

const CLASSES = ["your code", "libraries", "interpreters", "standard libraries", "system"];

const lastPart = (path) => path.slice(path.lastIndexOf("/") + 1);

const frameClass = (frame) => frames.marks[frame] & 7;
const isInlined = (frame) => (frames.marks[frame] & 8) !== 0;
const isGuessed = (frame) => (frames.marks[frame] & 16) !== 0;

function framePlace(frame) {
  const file = texts[frames.file[frame]];
  const line = frames.line[frame];
  return line ? `${file}:${line}` : file;
}

const frameName = (frame) => texts[frames.name[frame]] || framePlace(frame);

const fullName = (frame) => texts[frames.full[frame]] || frameName(frame);

const frameModule = (frame) => lastPart(texts[frames.module[frame]]);

// Where each one's part of a column begins whose lengths these are, and where the last one's ends.
function offsets(lengths) {
  const starts = new Uint32Array(lengths.length + 1);
  for (let i = 0; i < lengths.length; i += 1) starts[i + 1] = starts[i] + lengths[i];
  return starts;
}

// Adds what can be found more quickly once it has been looked up.
function prepared(process) {
  const { nodes, sites, stacks } = process;
  process.callers = Uint32Array.from(nodes.up, (up, node) => node - up);
  process.firstStack = offsets(sites.stacks);
  process.firstAge = offsets(stacks.ages);
  process.siteOf = new Uint32Array(stacks.node.length);
  for (let site = 0; site < sites.bytes.length; site += 1) {
    process.siteOf.fill(site, process.firstStack[site], process.firstStack[site + 1]);
  }
  if (process.compared) {
    const more = ({ blocks, bytes, before }) => ({
      blocks: blocks.map((is, i) => is - before.blocks[i]),
      bytes: bytes.map((is, i) => is - before.bytes[i]),
    });
    process.more = { ...more(sites), stack: more(stacks) };
  }
  process.hasAges = process.ages.length > 0;
  process.hasAllocated = stacks.allocated.length > 0;
  return process;
}

const known = new Map();

function processAt(index) {
  if (!known.has(index)) known.set(index, prepared(data.processes[index]));
  return known.get(index);
}

// The frame that a site is known by; -1 if there is none.
const siteFrame = (process, site) => process.sites.frame[site] - 1;

const siteName = (process, site) => {
  const frame = siteFrame(process, site);
  return frame < 0 ? "[no stack]" : frameName(frame);
};

// The frames of a node, innermost first.
function stackOf(process, node) {
  const found = [];
  for (let at = node; at > 0; at = process.callers[at]) found.push(process.nodes.frame[at]);
  return found;
}

// Adds up the blocks and bytes of a stack that were allocated in these parts of the time.
function inParts(process, stack, from, to) {
  let blocks = 0;
  let size = 0;
  for (let age = process.firstAge[stack]; age < process.firstAge[stack + 1]; age += 1) {
    const part = process.ages[3 * age];
    if (part >= from && part < to) {
      blocks += process.ages[3 * age + 1];
      size += process.ages[3 * age + 2];
    }
  }
  return [blocks, size];
}
