// The page as a whole.

const THEMES = { "": "Theme: system", light: "Theme: light", dark: "Theme: dark" };

function show() {
  const chosen = selection(state);
  showTheme();
  showProcess(chosen.process);
  showFilters(chosen.process);
  byId("count").textContent = inWords(chosen);
  showTable(chosen);
  showSite(chosen);
  showTimeline(chosen);
  showFlame(chosen);
}

function showTheme() {
  byId("theme").textContent = THEMES[state.theme];
  document.documentElement.dataset.theme = state.theme;
}

const page = { process: null };

function showProcess(process) {
  byId("process").value = state.process;
  if (page.process === process) return;
  page.process = process;
  document.title = `leaktap: ${process.name}`;
  byId("verdict").textContent = process.verdict;
  byId("title").textContent = process.title;
  byId("about").replaceChildren(
    ...process.about.flatMap(([name, value]) => [
      element("dt", value ? {} : { class: "family" }, name),
      element("dd", {}, value),
    ]),
  );
  byId("notes").replaceChildren(...process.notes.map((note) => element("li", {}, note)));
  byId("notes").hidden = process.notes.length === 0;
  showProbes(process.probes);
  showSuppressed(process.suppressed);
  showPeak(process);
  const { kind, growth } = process.sites;
  options(byId("kind"), [["", "all"], ...different(kind).map((word) => [word, word])], "");
  const growths = different(growth).map((word) => [word, word]);
  options(byId("growth"), [["", "all"], ...growths, ["none", "not proven"]], "");
  byId("growth").parentElement.hidden = !!process.more;
  options(byId("change"), [["", "all"], ...CHANGES.map((word) => [word, word])], "");
  byId("change").parentElement.hidden = !process.more;
  const modules = [...new Set(process.sites.frame.map((_, site) => moduleOf(process, site)))];
  const named = modules.filter((name) => name).sort();
  options(byId("module"), [["", "all"], ...named.map((name) => [name, name])], "");
}

const different = (column) =>
  [...new Set(column)].map((text) => texts[text]).filter((word) => word);

function showProbes(probes) {
  const kinds = [...new Set(probes.map(([, kind]) => kind))];
  const numbers = kinds.map(
    (kind) => `${probes.filter((probe) => probe[1] === kind).length} by ${kind}`,
  );
  const text = `${count(probes.length, "function")}: ${numbers.join(", ")}`;
  showTexts("probes", text, ["Function", "Watched by", "Module", "Why not better"], probes);
}

function showSuppressed(all) {
  const unused = all.filter(([what]) => what === "nothing").length;
  const used = `${count(all.length - unused, "suppression")} used`;
  const text = unused ? `${used}, ${grouped(unused)} unused` : used;
  showTexts("suppressed", text, ["What", "Suppression", "From"], all);
}

// A table in a part of the page that is closed at first, and not there without rows.
function showTexts(id, text, heads, rows) {
  const part = byId(id).closest("details");
  // With its heading, if that is its own.
  const { parentElement: section } = part;
  (section.id === "time" ? part : section).hidden = rows.length === 0;
  byId(`${id}-count`).textContent = text;
  const isUsed = heads.map((_, column) => rows.some((cells) => cells[column]));
  const row = (name, attributes) => (cells) => {
    const made = cells.map((cell, column) => {
      const isNumber = ["Bytes", "%"].includes(heads[column]);
      return element(name, isNumber ? { ...attributes, class: "number" } : attributes, cell);
    });
    return element("tr", {}, ...made.filter((_, column) => isUsed[column]));
  };
  const head = element("thead", {}, row("th", { scope: "col" })(heads));
  const body = element("tbody", {}, ...rows.map(row("td", {})));
  byId(id).replaceChildren(element("table", {}, head, body));
}

const CHOSEN = ["scope", "kind", "growth", "change", "module"];

const UNFILTERED = Object.fromEntries(["query", "only", ...CHOSEN].map((key) => [key, ""]));

function showFilters(process) {
  const query = byId("query");
  if (query !== document.activeElement) query.value = state.query;
  for (const key of CHOSEN) byId(key).value = state[key];
  byId("kind").parentElement.hidden = different(process.sites.kind).length < 2 && !state.kind;
  byId("only").hidden = !state.only;
  byId("only").textContent = `Only through ${state.only} ✕`;
  const isFiltered = Object.keys(UNFILTERED).some((key) => key !== "scope" && state[key]);
  byId("clear").hidden = !isFiltered;
}

function startFilters() {
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  options(byId("scope"), SCOPES, "");
  let isTyping = false;
  byId("query").addEventListener("input", (event) => {
    change({ query: event.target.value }, { step: !isTyping });
    isTyping = true;
  });
  byId("query").addEventListener("blur", () => (isTyping = false));
  for (const key of CHOSEN) {
    byId(key).addEventListener("change", (event) => change({ [key]: event.target.value }));
  }
  byId("only").addEventListener("click", () => change({ only: "" }));
  byId("clear").addEventListener("click", () => {
    change(UNFILTERED);
    byId("query").value = "";
    byId("query").focus();
  });
}

function startChooser() {
  const names = data.processes.map((process, i) => [i, process.name]);
  options(byId("process"), names, 0);
  byId("chooser").hidden = names.length < 2;
  byId("process").addEventListener("change", (event) =>
    change({ ...OF_PROCESS, process: Number(event.target.value) }),
  );
  byId("theme").addEventListener("click", () => {
    const themes = Object.keys(THEMES);
    const next = themes[(themes.indexOf(state.theme) + 1) % themes.length];
    change({ theme: next }, { step: false });
  });
}

function restore() {
  state = stateOf(location.hash);
  byId("query").value = state.query;
  show();
}

byId("version").textContent = `${data.leaktap} · ${data.started}`;
startChooser();
startFilters();
startTable();
startSite();
startTimeline();
startFlame();
addEventListener("popstate", restore);
restore();
