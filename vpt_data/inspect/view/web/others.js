// The other tabs: dropped records and plots.

function reasonTable(state) {
  const totals = {};
  for (const [take, reasons] of Object.entries(DOC.dropped_counts)) {
    if (state.take && take !== state.take) continue;
    for (const [reason, n] of Object.entries(reasons)) totals[reason] = (totals[reason] ?? 0) + n;
  }
  const most = Math.max(1, ...Object.values(totals));
  const bar = (n) => {
    const filled = el("span", { class: "bar", "aria-hidden": "true" });
    filled.style.width = `${(100 * n) / most}%`;
    return el("td", { class: "bars" }, filled);
  };
  const row = ([reason, n]) => el("tr", { "aria-current": state.reason === reason ? "true" : null },
    el("th", { scope: "row" }, el("a", { href: hashOf({ reason: state.reason === reason ? "" : reason }) }, say(words(reason)))),
    el("td", { class: "number" }, count(n)), bar(n));
  return el("table", { class: "reasons" }, el("caption", {}, "Dropped records by reason, of the whole corpus; choose one to see its records"),
    el("tbody", {}, Object.entries(totals).sort((a, b) => b[1] - a[1]).map(row)));
}

function dropCard(drop) {
  const item = drop.item;
  return el("li", { class: "drop" },
    el("p", { class: "chips" }, chip(words(drop.reason), "warn"), chip(drop.take)),
    item?.images.length ? el("div", { class: "thumb" }, stage(item, 0, false)) : null,
    item?.question && el("p", { class: "question" }, fold(item.question, 300)),
    item?.answers.length ? el("p", { class: "answer" }, fold(item.answers.join(" · "), 200)) : null,
    drop.detail && el("p", {}, fold(drop.detail, 300)),
    el("p", { class: "soft" }, fold([drop.file, drop.line && `line ${count(drop.line)}`, drop.key].filter(Boolean).join(" · "), 300)));
}

async function droppedPage(state) {
  const takes = Object.entries(DOC.dropped_counts).map(([take, reasons]) => [take, Object.values(reasons).reduce((a, b) => a + b, 0)]).filter(([, n]) => n);
  const list = el("ul", { class: "drops" });
  let [total, shown] = [null, 0];
  const load = async () => {
    const found = await provider.dropped(state, shown);
    shown += found.dropped.length;
    total = found.dropped.length ? found.total : shown;
    list.append(...found.dropped.map(dropCard));
  };
  const end = growing(list, async () => { await attempt(load); end.update(); }, () => total === null || shown < total);
  await load();
  end.update();
  const every = takes.reduce((sum, [, n]) => sum + n, 0);
  return el("div", {},
    el("h2", { id: "heading", tabindex: "-1" }, "Dropped records"),
    el("p", { class: "soft" }, every ? "Every record that was read and is not in the corpus is counted here, with its reason." : "No record was dropped."),
    takes.length > 1 && el("div", { class: "filters" }, select("take", "take", [["", "all"], ...takes.map(([take, n]) => [take, `${take} (${count(n)})`])], state.take)),
    every ? reasonTable(state) : null,
    el("p", { id: "count", role: "status" }, DOC.api ? plural(total, "record") : `${plural(total, "record")} shown here`),
    every > 0 && total === 0 && !state.reason && !state.take ? el("p", {}, "Make the page with ", el("code", {}, "vpt-data view --dropped"), " to see the records themselves.") : null,
    list, end);
}

/** The drawing of a plot: its lines follow the theme. What could run, load or style is taken out, should it ever be in. */
function drawing(text, title) {
  const found = new DOMParser().parseFromString(text, "image/svg+xml").documentElement;
  if (found.localName !== "svg") return el("p", { class: "missing" }, "This plot cannot be drawn.");
  for (const element of [found, ...found.querySelectorAll("*")]) {
    if (["script", "style", "foreignObject", "animate", "set"].includes(element.localName)) element.remove();
    for (const { name, localName, value } of [...element.attributes]) {
      const leads = localName === "href" && !/^(#|data:image\/png;)/.test(value);
      if (leads || localName === "style" || localName.startsWith("on")) element.removeAttribute(name);
    }
  }
  return build(document.importNode(found, true), { role: "img", "aria-label": `Plot: ${plain(title)}; its numbers are in the table below it` }, []);
}

function plotFigure(plot) {
  return el("figure", { class: "plot" },
    el("h3", {}, say(plot.title)), el("div", { class: "scroll", tabindex: "0" }, drawing(plot.svg, plot.title)), el("figcaption", {}, say(plot.note)),
    el("details", {}, el("summary", {}, "Numbers"), table(plot.table.header, plot.table.rows)));
}

function plotsPage() {
  return el("div", {}, el("h2", { id: "heading", tabindex: "-1" }, "Plots"), el("div", { class: "plots" }, DOC.plots.map(plotFigure)));
}
