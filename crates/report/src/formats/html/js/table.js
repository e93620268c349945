// The table of sites. Only the rows that can be seen are there: there may be a hundred thousand.

const ROW = 26; // pixels, as in page.css
const SPARE = 8; // rows above and below
const PRINTED = 500;

const NAMES = [
  ["site", "Call site", "name"],
  ["module", "Module", "module"],
  ["function", "Called", "function"],
];
const HEADS = [
  ["bytes", "Bytes", "number"],
  ["", "%", "number share"],
  ["blocks", "Blocks", "number blocks"],
  ["oldest", "Age", "number age"],
  ["growth", "Growth", "growth"],
  ["kind", "Kind", "kind"],
  ...NAMES,
];

const table = { current: 0, listed: [] };

function showTable(chosen) {
  const isOther = table.key !== chosen.key;
  Object.assign(table, { key: chosen.key, chosen, listed: chosen.order });
  table.total = chosen.order.reduce((so, site) => so + chosen.bytes[site], 0);
  byId("sites").classList.toggle("one-kind", new Set(chosen.process.sites.kind).size < 2);
  byId("sites").setAttribute("aria-rowcount", chosen.order.length + 1);
  showHeads();
  const at = chosen.order.indexOf(state.site);
  if (at >= 0) table.current = at;
  table.current = Math.max(0, Math.min(table.current, chosen.order.length - 1));
  if (isOther) {
    if (at < 0) table.current = 0;
    intoView(table.current);
  }
  showRows();
}

function showHeads() {
  const row = byId("sites").tHead.rows[0];
  const heads = headsOf(table.chosen.process).map(([column, text, kind]) => {
    if (!column) return element("th", { scope: "col", class: kind }, text);
    const isSorted = state.sort === column;
    const sorted = isSorted ? (state.up ? "ascending" : "descending") : "none";
    const arrow = isSorted ? (state.up ? " ▲" : " ▼") : "";
    const button = element("button", { type: "button", "data-column": column }, text);
    button.append(element("span", { "aria-hidden": "true" }, arrow));
    return element("th", { scope: "col", class: kind, "aria-sort": sorted }, button);
  });
  const focused = document.activeElement?.dataset?.column;
  row.replaceChildren(...heads);
  if (focused) row.querySelector(`[data-column="${focused}"]`)?.focus();
}

// Numbers from the largest, words from the first; the third time as leaktap has sorted them.
function sortBy(column) {
  if (state.sort !== column) change({ sort: column, up: 0 });
  else if (!state.up) change({ sort: column, up: 1 });
  else change({ sort: "", up: 0 });
}

function showRows(all = false) {
  const rows = byId("rows");
  // It may not be as high yet as it will be, but never higher than the window.
  const most = Math.ceil(innerHeight / ROW) + 2 * SPARE;
  const top = Math.floor(rows.scrollTop / ROW) - SPARE;
  const first = all ? 0 : Math.max(0, Math.min(top, table.listed.length - most));
  const last = Math.min(table.listed.length, all ? PRINTED : first + most);
  const hadFocus = byId("shown").contains(document.activeElement);
  // The row that the keyboard is at is one that can be seen.
  table.current = Math.max(first, Math.min(table.current, last - 1));
  const shown = table.listed.slice(first, last).map((site, i) => rowOf(site, first + i));
  byId("shown").replaceChildren(...shown);
  byId("none").textContent = shown.length ? "" : noRow();
  if (all && last < table.listed.length) {
    byId("none").textContent = `… ${count(table.listed.length - last, "more call site")}`;
  }
  const [above, , below] = byId("sites").tBodies;
  space(above, first);
  space(below, all ? 0 : table.listed.length - last);
  if (hadFocus) focusRow();
}

function space(body, rows) {
  body.hidden = rows === 0;
  body.rows[0].cells[0].style.height = `${rows * ROW}px`;
}

function noRow() {
  const { sites, more } = table.chosen.process;
  if (sites.bytes.length) return "No call site is like that.";
  return more ? "No call site has changed." : "There is no call site.";
}

function rowOf(site, at) {
  const { process } = table.chosen;
  const { sites } = process;
  const frame = siteFrame(process, site);
  const name = element("b", {}, siteName(process, site));
  const place = frame >= 0 && texts[frames.name[frame]] ? framePlace(frame) : "";
  const cells = cellsOf(table.chosen, site);
  const row = element("tr", {
    "aria-rowindex": at + 2,
    "aria-selected": site === state.site,
    tabindex: at === table.current ? 0 : -1,
    "data-at": at,
  });
  for (const [column, , kind] of headsOf(process)) {
    const cell = element("td", { class: kind });
    if (column === "site") {
      cell.append(name, " ", element("span", { class: "place" }, place));
      cell.title = frame >= 0 ? `${fullName(frame)}\n${framePlace(frame)}` : "";
    } else {
      cell.append(cells[column]);
      if (kind === "growth" || kind === "function" || kind === "module") cell.title = cells[column];
    }
    if (column === "growth") cell.dataset.growth = texts[sites.growth[site]];
    if (column === "change") cell.dataset.change = cells.change;
    row.append(cell);
  }
  return row;
}

function cellsOf({ process, blocks, bytes: sizes }, site) {
  const { sites } = process;
  return {
    bytes: sized(process, sizes[site]),
    "": percent(sizes[site], table.total),
    blocks: process.more ? signed(blocks[site], grouped) : grouped(blocks[site]),
    oldest: seconds(sites.oldest[site]),
    growth: texts[sites.growing[site]],
    kind: texts[sites.kind[site]],
    module: moduleOf(process, site),
    function: texts[sites.function[site]],
    ...(process.more ? changedCells(process, site) : {}),
  };
}

function intoView(at) {
  const rows = byId("rows");
  const head = byId("sites").tHead.offsetHeight;
  const top = at * ROW;
  if (top < rows.scrollTop) rows.scrollTop = top;
  const below = top + ROW + head - rows.clientHeight;
  if (below > rows.scrollTop) rows.scrollTop = below;
}

function focusRow() {
  byId("shown").querySelector(`[data-at="${table.current}"]`)?.focus({ preventScroll: true });
}

function goTo(at) {
  table.current = Math.max(0, Math.min(at, table.listed.length - 1));
  intoView(table.current);
  showRows();
  focusRow();
}

function tableKey(event) {
  const page = Math.max(1, Math.floor(byId("rows").clientHeight / ROW) - 2);
  const at = table.current;
  const to = {
    ArrowDown: at + 1,
    ArrowUp: at - 1,
    PageDown: at + page,
    PageUp: at - page,
    Home: 0,
    End: table.listed.length - 1,
  }[event.key];
  if (to !== undefined) goTo(to);
  else if (event.key === "Enter" || event.key === " ") openAt(at);
  else return;
  event.preventDefault();
}

function openAt(at) {
  const site = table.listed[at];
  if (site === undefined) return;
  table.current = at;
  change({ site });
  byId("site-head").focus();
}

function startTable() {
  byId("rows").addEventListener("scroll", () => requestAnimationFrame(() => showRows()));
  byId("sites").tHead.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) sortBy(button.dataset.column);
  });
  byId("shown").addEventListener("click", (event) => {
    const row = event.target.closest("tr[data-at]");
    if (row) openAt(Number(row.dataset.at));
  });
  byId("shown").addEventListener("keydown", tableKey);
  addEventListener("beforeprint", () => showRows(true));
  addEventListener("afterprint", () => showRows());
}
