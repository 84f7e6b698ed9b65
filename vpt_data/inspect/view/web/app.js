// The state is in the hash, so that every view has a link; keys and buttons only change the hash.

const EMPTY = { tab: "rows", id: "", take: "", template: "", look: "", expected: "", repaired: "", problem: "", text: "", differs: "", reason: "", sort: "order" };
const TABS = [["rows", "Rows"], ["dropped", "Dropped"], ["plots", "Plots"]];
const KEYS = [
  ["j or →", "next row; in the gallery the next card"], ["k or ←", "previous row or card"], ["Enter", "open the card"],
  ["g or Esc", "back to the gallery"], ["/", "search"], ["b", "annotated boxes on or off"], ["c", "cells on or off"], ["?", "this help"],
];
let state = { ...EMPTY };
let rows = new Rows(state);
let facets = {};
let turn = 0;

function readHash() {
  const given = new URLSearchParams(location.hash.slice(1));
  const found = Object.fromEntries(Object.entries(EMPTY).map(([name, usual]) => [name, given.get(name) ?? usual]));
  if (!SORTS.some(([sort]) => sort === found.sort)) found.sort = EMPTY.sort;
  if (!TABS.some(([tab]) => tab === found.tab)) found.tab = EMPTY.tab;
  return found;
}

/** The hash of the present state with changes; what is as usual is left out. */
function hashOf(changes) {
  const next = Object.entries({ ...state, ...changes }).filter(([name, value]) => value !== EMPTY[name]);
  return `#${new URLSearchParams(next)}`;
}

/** Go there; `replace`: without a step in the browser's history. */
function go(changes, replace = false) {
  const hash = hashOf(changes);
  if (replace) history.replaceState(null, "", hash);
  else history.pushState(null, "", hash);
  route();
}

/** Run something that may ask the server; what it answers against is shown. */
async function attempt(work) {
  const note = byId("error");
  try {
    await work();
    note.hidden = true;
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    note.replaceChildren(say(error.message));
    note.hidden = false;
  }
}

const queryOf = (found) => JSON.stringify({ ...found, id: "", tab: "", reason: "" });

async function route() {
  const mine = ++turn;
  const before = state;
  state = readHash();
  if (queryOf(state) !== queryOf(before)) rows = new Rows(state);
  await attempt(() => show(before, () => mine === turn));
  if (mine === turn) document.documentElement.dataset.ready = location.hash;
}

const inGallery = () => state.tab === "rows" && !state.id;

async function show(before, current) {
  for (const link of byId("tabs").children) {
    link.href = hashOf({ tab: link.dataset.tab, id: "", ...(link.dataset.tab === "rows" ? {} : { reason: "" }) });
    if (link.dataset.tab === state.tab) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const gallery = inGallery();
  if (!gallery) byId("filters").replaceChildren();
  if (state.tab === "dropped") await fill(droppedPage(state), current);
  else if (state.tab === "plots") await fill(plotsPage(), current);
  else if (state.id) await showSample(current);
  else await showGallery(before, current);
  const moved = before.id !== state.id || before.tab !== state.tab;
  if (current() && moved && !gallery) {
    byId("heading")?.focus({ preventScroll: true });
    scrollTo(0, 0);
  }
}

async function fill(page, current) {
  const made = await page;
  if (current()) byId("main").replaceChildren(made);
}

async function showGallery(before, current) {
  if (rows.total === null) await rows.more();
  if (!current()) return;
  showFilters();
  await fill(galleryPage(rows, state), current);
  if (before.id) focusCard(rows.indexOf(before.id));
}

/** The filters again, with the same field in focus; a search field that is being written in stays as it is. */
function showFilters() {
  const focused = document.activeElement?.id;
  const made = filters(state, facets);
  const old = byId("search");
  if (old && focused === "search") made.querySelector("#search").parentElement.replaceWith(old.parentElement);
  byId("filters").replaceChildren(made);
  if (focused && byId(focused)) byId(focused).focus({ preventScroll: true });
}

async function showSample(current) {
  if (rows.total === null) await rows.more();
  const place = rows.indexOf(state.id);
  const item = place < 0 ? await provider.row(state.id) : rows.items[place];
  const page = item
    ? samplePage(item, place, rows.total, step)
    : el("div", {}, el("h2", { id: "heading", tabindex: "-1" }, "No such row"),
      el("p", {}, "This page holds no row with the id ", say(plain(state.id)), ". "), el("a", { href: hashOf({ id: "" }) }, "See the rows that it holds"));
  await fill(page, current);
}

/** The row that is `n` further in the list; the list grows where it has to. */
async function step(n) {
  const place = rows.indexOf(state.id) + n;
  if (place >= rows.items.length && !rows.complete) await attempt(() => rows.more());
  const next = rows.items[Math.max(place, 0)];
  if (next && next.id !== state.id) go({ id: next.id });
}

function focusCard(place) {
  const cards = document.querySelectorAll(".card");
  const found = cards[Math.min(Math.max(place, 0), cards.length - 1)];
  found?.focus({ preventScroll: true });
  found?.scrollIntoView({ block: "nearest" });
}

function move(n) {
  if (state.tab !== "rows") return;
  if (state.id) step(n);
  else focusCard([...document.querySelectorAll(".card")].indexOf(document.activeElement) + n);
}

function back() {
  if (state.id || state.tab !== "rows") go({ id: "", tab: "rows" });
}

const ACTIONS = {
  j: () => move(1), ArrowRight: () => move(1), k: () => move(-1), ArrowLeft: () => move(-1),
  g: back, Escape: back,
  b: () => toggleLayer("box"), c: () => toggleLayer("cells"),
  "/": () => { if (state.id || state.tab !== "rows") back(); byId("search")?.focus(); },
  "?": () => byId("help").showModal(),
};

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("help").open) return;
  const field = event.target.closest("input:not([type=checkbox]), select, textarea");
  if (field) {
    if (event.key === "Escape") field.blur();
    return;
  }
  if (!Object.hasOwn(ACTIONS, event.key)) return;
  event.preventDefault();
  ACTIONS[event.key]();
}

/** System, dark, light, system, ...; kept where the browser lets a page keep something. */
function nextTheme() {
  const themes = ["system", "dark", "light"];
  setTheme(themes[(themes.indexOf(document.documentElement.dataset.theme) + 1) % 3]);
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  byId("theme").replaceChildren(`Theme: ${theme}`);
  try {
    localStorage.setItem("vpt-data-theme", theme);
  } catch {
    // A file page or a private window may refuse: then the choice holds until the page is closed.
  }
}

function keptTheme() {
  try {
    return localStorage.getItem("vpt-data-theme");
  } catch {
    return null;
  }
}

function corpusLine(corpus) {
  const details = [plural(corpus.rows, "row"), corpus.mode && `images: ${corpus.mode}`, corpus.limited && "limited", corpus.fingerprint && `fingerprint ${corpus.fingerprint.slice(0, 12)}`];
  const name = DOC.corpora.length > 1 || corpus.name !== DOC.title ? [el("strong", {}, say(plain(corpus.name))), " "] : [];
  return el("p", {}, name, say(details.filter(Boolean).join(" · "), { title: plain(corpus.place) }));
}

function start() {
  byId("corpora").append(...DOC.corpora.map(corpusLine), el("p", { class: "soft" }, say(DOC.chosen)));
  const there = { rows: true, dropped: DOC.dropped.length || Object.keys(DOC.dropped_counts).length, plots: DOC.plots.length };
  byId("tabs").append(...TABS.filter(([tab]) => there[tab]).map(([tab, label]) => el("a", { "data-tab": tab }, label)));
  byId("keys").append(...KEYS.map(([key, text]) => el("div", {}, el("dt", {}, el("kbd", {}, key)), el("dd", {}, text))));
  byId("theme").addEventListener("click", nextTheme);
  byId("ask").addEventListener("click", () => byId("help").showModal());
  setTheme(["dark", "light"].includes(keptTheme()) ? keptTheme() : "system");
  addEventListener("hashchange", route);
  addEventListener("keydown", onKey);
  addEventListener("beforeprint", () => document.querySelectorAll("img[data-src]").forEach(reveal));
  route();
  // A server first has to read its corpus to count: the rows do not wait for that.
  attempt(async () => {
    facets = await provider.facets();
    if (inGallery()) showFilters();
  });
}

start();
