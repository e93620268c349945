// What the user has chosen. It is in the address, behind the #: a link to it shows the same, and
// the browser's back button goes to what was shown before.

const SCOPES = [
  ["", "any frame"],
  ["site", "the call site"],
  ["function", "functions"],
  ["file", "files"],
  ["module", "modules"],
];
const COLUMNS = ["bytes", "blocks", "oldest", "growth", "kind", "site", "module", "function"];
const COLUMNS_OF_DIFFERENCE = ["before", "now", "rate", "change"];

const START = Object.freeze({
  process: 0,
  query: "",
  scope: "",
  kind: "",
  growth: "",
  change: "",
  module: "",
  only: "",
  sort: "",
  up: 0,
  from: 0,
  to: 0,
  site: -1,
  measure: "",
  zoom: 0,
  view: "",
  theme: "",
});

// What of a process makes no sense in another one.
const OF_PROCESS = { site: -1, zoom: 0, from: 0, to: 0, module: "", only: "" };

const LIMITS = {
  process: () => data.processes.length - 1,
  from: (process) => process.parts,
  to: (process) => process.parts,
  site: (process) => process.sites.bytes.length - 1,
  zoom: (process) => process.nodes.up.length - 1,
  up: () => 1,
};

const WORDS = {
  scope: SCOPES.map(([word]) => word),
  sort: ["", ...COLUMNS, ...COLUMNS_OF_DIFFERENCE],
  view: ["", "functions"],
  theme: ["", "light", "dark"],
};

function number(text, least, most) {
  const value = Number(text);
  return Number.isInteger(value) && value >= least && value <= most ? value : least;
}

// An address is what anybody may have written.
function stateOf(address) {
  const given = new URLSearchParams(address.replace(/^#/, ""));
  const state = { ...START };
  for (const [key, start] of Object.entries(START)) {
    const text = given.get(key);
    if (text === null) continue;
    if (typeof start === "number") {
      state[key] = number(text, start, LIMITS[key](processAt(state.process)));
    } else if (!WORDS[key] || WORDS[key].includes(text)) {
      state[key] = text;
    }
  }
  const process = processAt(state.process);
  if (state.from >= state.to || !process.hasAges) [state.from, state.to] = [0, 0];
  if (!Object.hasOwn(measuresOf(process), state.measure)) state.measure = "";
  return state;
}

function addressOf(state) {
  const given = new URLSearchParams();
  for (const [key, start] of Object.entries(START)) {
    if (state[key] !== start) given.set(key, state[key]);
  }
  return `#${given}`;
}

let state = { ...START };

// Shows the page with these changes. What is typed or dragged is one step back, not many.
function change(changes, { step = true } = {}) {
  const next = { ...state, ...changes };
  const address = addressOf(next);
  if (address !== addressOf(state)) {
    if (step) history.pushState(null, "", address);
    else history.replaceState(null, "", address);
  }
  state = next;
  show();
}
