// The rows as cards, with filters, sorts and the number of rows that are shown.

function select(name, label, options, value) {
  const known = options.some(([option]) => option === value);
  const all = known || !value ? options : [...options, [value, `${value} (0)`]];
  const choice = el("select", { id: `by-${name}`, name, change: (event) => go({ [name]: event.target.value }, true) },
    all.map(([option, text]) => el("option", { value: option, selected: option === value }, plain(text, 60))));
  return el("label", { class: "field", for: `by-${name}` }, el("span", {}, label), choice);
}

/** A select of the values of one filter with their counts; none where there is nothing to choose. */
function filterOf(name, counts, value) {
  const named = Object.entries(counts ?? {}).sort(([a], [b]) => (a === "none") - (b === "none") || a.localeCompare(b));
  if (named.length < 2 && !(name === "problem" && named.length) && !value) return null;
  const any = name === "problem" || (name === "repaired" && named.length > 1) ? [["any", `any ${name === "problem" ? "problem" : "repair"}`]] : [];
  const options = [["", "all"], ...any, ...named.map(([option, n]) => [option, `${words(option)} (${count(n)})`])];
  return select(name, words(name), options, value);
}

let typing = null;

function searchField(state) {
  // Each letter would be a step of the browser's history: the hash is replaced, and only when typing rests.
  const search = (event) => {
    clearTimeout(typing);
    typing = setTimeout(() => go({ text: event.target.value }, true), 150);
  };
  return el("label", { class: "field search", for: "search" }, el("span", {}, "text"),
    el("input", { id: "search", type: "search", value: state.text, placeholder: "question, answer, id … ( / )", input: search, autocomplete: "off", spellcheck: "false" }));
}

function filters(state, facets) {
  const chosen = Object.keys(FILTERS).map((name) => filterOf(name, facets[name], state[name])).filter(Boolean);
  const difference = DOC.corpora.length > 1 &&
    select("differs", "rows", [["", "all"], ["1", "that differ"]], state.differs);
  return el("form", { class: "filters", role: "search", "aria-label": "Filters", submit: (event) => event.preventDefault() },
    searchField(state), chosen, difference, select("sort", "sort", SORTS, state.sort));
}

/** A button that takes the filters away, where there are any. */
function clearing(state) {
  const set = [...Object.keys(FILTERS), "text", "differs"].filter((name) => state[name]);
  const nothing = Object.fromEntries(set.map((name) => [name, ""]));
  return set.length > 0 && el("button", { type: "button", id: "clear", click: () => go(nothing, true) }, "Clear filters");
}

function card(item) {
  const problem = item.problems[0];
  const answer = item.answers[0] ?? "";
  const place = item.images.length ? stage(item, 0, false) : el("p", { class: "missing" }, "no image");
  const twin = item.only_in !== null ? `only in ${DOC.corpora[item.only_in]?.name}` : differs(item) ? "differs" : null;
  const more = item.images.length > 1 && chip(`${item.images.length} images`);
  return el("li", {},
    el("a", { class: "card", href: hashOf({ id: item.id }), "data-id": item.id },
      el("div", { class: "thumb" }, place),
      el("p", { class: "question" }, say(plain(item.question || firstWords(item), 160))),
      answer && el("p", { class: "answer" }, say(plain(answer, 100))),
      el("p", { class: "chips" }, item.take && chip(item.take), item.looks.map((look) => chip(look, "look")), item.expected && chip(`expected: ${item.expected}`, "look"), more,
        twin && chip(twin, "differs"),
        problem && chip(`⚠ ${words(problem.kind)}${item.problems.length > 1 ? ` + ${item.problems.length - 1}` : ""}`, "warn", plain(problem.text)))));
}

function firstWords(item) {
  const part = item.turns.flatMap((turn) => turn.parts).find((one) => one.kind === "text" && one.text.trim());
  return part ? part.text.trim() : "";
}

/** A list that grows: a button, pressed by itself when it comes into view. */
function growing(list, load, left) {
  const button = el("button", { type: "button", class: "more", click: () => load() }, "Show more");
  const holder = el("div", { class: "end" }, button);
  const watch = new IntersectionObserver((entries) => { if (entries.some((entry) => entry.isIntersecting)) load(); }, { rootMargin: "800px" });
  holder.update = () => {
    holder.hidden = !left();
    watch.disconnect();
    if (left()) watch.observe(button);
  };
  return holder;
}

function howMany(rows) {
  if (rows.total === null) return "…";
  const all = DOC.api ? DOC.corpora[0].rows : DOC.items.length;
  return rows.total === all ? plural(all, "row") : `${count(rows.total)} of ${plural(all, "row")}`;
}

/** The gallery of `rows`; the first page of them is loaded. */
function galleryPage(rows, state) {
  const list = el("ul", { class: "gallery" });
  const fill = () => list.append(...rows.items.slice(list.children.length).map(card));
  const end = growing(list, async () => { await attempt(() => rows.more()); fill(); end.update(); }, () => !rows.complete);
  fill();
  end.update();
  const troubled = (DOC.api || DOC.items.some((item) => item.problems.length)) && state.sort !== "problems-" && !state.problem;
  return el("div", {},
    el("div", { class: "counted" },
      el("p", { id: "count", role: "status" }, howMany(rows)), clearing(state),
      troubled && el("a", { href: hashOf({ sort: "problems-" }) }, "Show problems first")),
    rows.items.length ? list : el("p", { class: "missing" }, "No row fits these filters."),
    end);
}
