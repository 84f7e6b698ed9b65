// Where rows come from: the document in this page, or the server that sent it. Both answer the same questions.

const DOC = JSON.parse(byId("document").textContent);
const FILTERS = {
  take: (item) => [item.take],
  template: (item) => [item.template],
  look: (item) => (item.looks.length ? [...new Set(item.looks)] : ["none"]),
  expected: (item) => [item.expected ?? "none"],
  repaired: (item) => (item.repaired.length ? item.repaired : ["none"]),
  problem: (item) => [...new Set(item.problems.map((problem) => problem.kind))],
};
const NUMBERS = {
  area: (item) => item.numbers.box_area,
  iou: (item) => item.numbers.iou,
  text: (item) => item.numbers.text,
  problems: (item) => item.numbers.severity,
};
const SORTS = [
  ["order", "as chosen"], ["problems-", "problems first"],
  ["area", "smallest box first"], ["area-", "largest box first"],
  ["iou", "lowest cell-to-box IoU first"], ["iou-", "highest cell-to-box IoU first"],
  ["text-", "longest text first"], ["text", "shortest text first"],
];

/** The picture behind a `src`: a data URI of the document, or a path on the server; nothing else is ever asked for. */
function pictureOf(src, side = null) {
  if (src === null || src === undefined) return null;
  const held = Object.hasOwn(DOC.pictures, src) ? DOC.pictures[src] : src;
  if (held.startsWith("data:image/")) return held;
  return DOC.api && /^\/(?!\/)/.test(held) ? held + (side ? `?side=${side}` : "") : null;
}

/** Everything of an item that can be searched, in lower case; made once an item. */
const haystacks = new WeakMap();
function haystack(item) {
  if (!haystacks.has(item)) {
    const turns = item.turns.flatMap((turn) => turn.parts.map((part) => part.text));
    const paths = item.images.map((image) => image.path);
    haystacks.set(item, [item.id, item.question, ...item.answers, turns.join(""), ...paths].join("\n").toLowerCase());
  }
  return haystacks.get(item);
}

/** What two corpora may have different under one id. */
const ASPECTS = {
  dialogue: (item) => item.turns,
  boxes: (item) => item.images.map((image) => image.boxes),
  views: (item) => item.views.map((view) => [view.turn, view.image, view.encoder, view.box, view.cells]),
  answers: (item) => [item.question, item.answers],
  images: (item) => item.images.map((image) => [image.path, image.width, image.height]),
};

/** The aspects in which an item and the same id of the other corpus differ. */
function differences(item) {
  if (item.other === null) return [];
  return Object.keys(ASPECTS).filter((name) => JSON.stringify(ASPECTS[name](item)) !== JSON.stringify(ASPECTS[name](item.other)));
}

const differs = (item) => item.only_in !== null || differences(item).length > 0;

function fits(item, query) {
  const named = Object.entries(FILTERS).every(([name, values]) => {
    const wanted = query[name];
    return !wanted || (wanted === "any" ? values(item).some((value) => value !== "none") : values(item).includes(wanted));
  });
  return named && (!query.differs || differs(item)) && (!query.text || haystack(item).includes(query.text.toLowerCase()));
}

/** Sorted by a number; rows without it come last, equal ones keep their order. */
function sorted(items, sort) {
  const value = NUMBERS[sort.replace("-", "")];
  if (!value) return items;
  const sign = sort.endsWith("-") ? -1 : 1;
  return items.toSorted((a, b) => {
    const [left, right] = [value(a), value(b)];
    if (left === null || right === null) return (left === null) - (right === null);
    return sign * (left - right);
  });
}

function tally(items, values) {
  const counts = {};
  for (const item of items) for (const value of values(item)) if (value !== null) counts[value] = (counts[value] ?? 0) + 1;
  return counts;
}

const embedded = {
  page: 500,
  async facets() {
    return Object.fromEntries(Object.entries(FILTERS).map(([name, values]) => [name, tally(DOC.items, values)]));
  },
  async rows(query, offset) {
    const found = sorted(DOC.items.filter((item) => fits(item, query)), query.sort);
    return { total: found.length, items: found.slice(offset, offset + this.page) };
  },
  async row(id) {
    return DOC.items.find((item) => item.id === id) ?? null;
  },
  async dropped(query, offset) {
    const found = DOC.dropped.filter((drop) => (!query.take || drop.take === query.take) && (!query.reason || drop.reason === query.reason));
    return { total: found.length, dropped: found.slice(offset, offset + this.page) };
  },
};

/** Something that the reader gets to read in one sentence; all other errors are mistakes of this page. */
class Refusal extends Error {}

const served = {
  page: 60,
  known: null,
  async ask(what, parameters = []) {
    const address = `${DOC.api}/${what}?${new URLSearchParams(parameters)}`;
    const answer = await fetch(address).catch(() => {
      throw new Refusal("The server does not answer; start `vpt-data view --serve` again and load this page again.");
    });
    const said = await answer.json();
    if (answer.status === 404 && what === "row") return null;
    if (!answer.ok) throw new Refusal(said.error);
    return said;
  },
  async facets() {
    this.known ??= this.ask("facets").catch((error) => {
      this.known = null;
      throw error;
    });
    return this.known;
  },
  async rows(query, offset) {
    const parameters = [["offset", offset], ["limit", this.page]];
    for (const name of Object.keys(FILTERS)) {
      const any = query[name] === "any" ? Object.keys((await this.facets())[name] ?? {}).filter((value) => value !== "none") : [query[name]];
      parameters.push(...any.filter(Boolean).map((value) => [name, value]));
    }
    if (query.text) parameters.push(["text", query.text]);
    if (query.sort !== "order") parameters.push(["sort", query.sort.replace("-", "")], ["descending", Number(query.sort.endsWith("-"))]);
    return this.ask("rows", parameters);
  },
  async row(id) {
    return this.ask("row", [["id", id]]);
  },
  async dropped(query, offset) {
    const wanted = ["take", "reason"].filter((name) => query[name]).map((name) => [name, query[name]]);
    return this.ask("dropped", [["offset", offset], ["limit", this.page], ...wanted]);
  },
};

const provider = DOC.api ? served : embedded;

/** The rows of one query, fetched page by page and kept, so that gallery and sample page walk the same list. */
class Rows {
  constructor(query) {
    this.query = query;
    this.items = [];
    this.total = null;
  }

  get complete() {
    return this.total !== null && this.items.length >= this.total;
  }

  /** The next page; what is already under way is waited for, not asked for twice. */
  more() {
    this.pending ??= provider.rows(this.query, this.items.length).then((found) => {
      this.items.push(...found.items);
      this.total = found.items.length ? found.total : this.items.length;
    }).finally(() => { this.pending = null; });
    return this.pending;
  }

  indexOf(id) {
    return this.items.findIndex((item) => item.id === id);
  }
}
