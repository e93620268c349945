// The stacks of one site.

const STACKS = 20;

const opened = { site: -1, most: STACKS };

function showSite(chosen) {
  const { site } = state;
  const { process } = chosen;
  byId("site").hidden = site < 0;
  document.querySelector(".split").classList.toggle("open", site >= 0);
  if (opened.site !== site || opened.process !== process) opened.most = STACKS;
  Object.assign(opened, { site, process });
  if (site < 0) return;
  byId("site-head").textContent = siteName(process, site);
  byId("facts").textContent = factsOf(chosen, site);
  showCourse(chosen, site);
  const [first, end] = [process.firstStack[site], process.firstStack[site + 1]];
  const stacks = Array.from({ length: end - first }, (_, i) => first + i);
  const left = stacks.filter((stack) => isShown(chosen, stack));
  const size = (stack) => Math.abs(chosen.stack.bytes[stack]);
  left.sort((a, b) => size(b) - size(a));
  const shown = left
    .slice(0, opened.most)
    .map((stack, i) => stackElement(chosen, stack, i, left.length));
  const more = left.length - shown.length;
  if (more > 0) {
    const button = element("button", { type: "button" }, `${count(more, "more stack")}`);
    button.addEventListener("click", () => {
      opened.most += 10 * STACKS;
      showSite(chosen);
    });
    shown.push(button);
  }
  if (process.more && left.length < stacks.length) {
    const same = `${count(stacks.length - left.length, "stack")} as before`;
    shown.push(element("p", { class: "hint" }, same));
  }
  byId("stacks").replaceChildren(...shown);
}

function factsOf({ process, blocks, bytes: sizes }, site) {
  const { sites } = process;
  const what = sites.region[site] ? "region" : "block";
  if (process.more) {
    const size = signed(sizes[site], exactBytes);
    const more = `${size} in ${counted(process, blocks[site], what)}`;
    return [more, ...changeOf(process, site), texts[sites.function[site]]].join(" · ");
  }
  const number = blocks[site];
  const average = number > 1 ? `, ${bytes(Math.floor(sizes[site] / number))} on average` : "";
  const [youngest, oldest] = [seconds(sites.youngest[site]), seconds(sites.oldest[site])];
  const ages = youngest === oldest ? oldest : `${youngest} to ${oldest}`;
  const growth = texts[sites.growing[site]];
  const then = isBrushed(state) ? " of the chosen time" : "";
  return [
    `${exactBytes(sizes[site])} in ${count(number, what)}${then}${average}`,
    `${texts[sites.kind[site]]}, ${ages} old${growth ? `, ${growth}` : ""}`,
    texts[sites.function[site]],
  ].join(" · ");
}

function stackElement(chosen, stack, at, of) {
  const { process } = chosen;
  const node = process.stacks.node[stack];
  const what = process.sites.region[process.siteOf[stack]] ? "region" : "block";
  const blocks = counted(process, chosen.stack.blocks[stack], what);
  const size = `${sized(process, chosen.stack.bytes[stack])} in ${blocks}`;
  const which = of > 1 ? `Stack ${at + 1} of ${grouped(of)}: ` : "Stack: ";
  const zoom = element("button", { type: "button", class: "quiet" }, "in the flame graph");
  zoom.addEventListener("click", () => {
    change({ view: "", zoom: outermost(process, node) });
    flameFocus(node);
  });
  const list = element("ol", { class: "stack", "aria-label": `${which}${size}, innermost first` });
  const calls = stackOf(process, node);
  // The first of your own code is open.
  const first = calls.find((frame) => frameClass(frame) === 0 && hasSource(frame));
  for (const frame of calls) list.append(frameElement(frame, at === 0 && frame === first));
  const head = element("h4", {}, `${which}${size} `, zoom);
  return element("div", { class: "one" }, head, list);
}

function frameElement(frame, isOpen) {
  const marks = [
    frameClass(frame) === 0 ? "yours" : "",
    isInlined(frame) ? "inlined" : "",
    isGuessed(frame) ? "by frame pointer" : "",
  ].filter((mark) => mark);
  const item = element("li", { class: `c${frameClass(frame)}`, title: fullName(frame) });
  const name = texts[frames.name[frame]];
  item.append(element("span", { class: "name" }, name || framePlace(frame)));
  if (name) item.append(" ", element("span", { class: "place" }, framePlace(frame)));
  if (marks.length) item.append(" ", element("span", { class: "marks" }, marks.join(", ")));
  if (hasSource(frame)) item.append(sourceOf(frame, isOpen));
  return item;
}

function closeSite() {
  change({ site: -1 });
  goTo(table.current);
}

function startSite() {
  byId("shut").addEventListener("click", closeSite);
  byId("site").addEventListener("keydown", (event) => {
    if (event.key === "Escape") closeSite();
  });
}
