// One row in full: pictures, dialogue, numbers, origin, licences, the row as it is stored.

const LEGEND = [
  ["box", "Annotated box", "b"], ["cells", "Chosen cells", "c"], ["grid", "Grid", null],
];

/** What the lines mean, each with a switch; only those that are on the pictures. */
function legend(pictures) {
  const root = document.documentElement;
  const drawn = LEGEND.filter(([kind]) => pictures.some((frame) => frame.querySelector(`.overlay .${kind}`)));
  return drawn.length > 0 && el("div", { class: "legend", role: "group", "aria-label": "What is drawn on the picture" },
    drawn.map(([kind, label, key]) => {
      const swatch = svg("svg", { class: "swatch", viewBox: "0 0 26 14", "aria-hidden": "true" }, rectangle(kind, [2, 2, 24, 12]));
      const box = el("input", { type: "checkbox", "data-layer": kind, change: (event) => setLayer(kind, event.target.checked) });
      box.checked = root.dataset[kind] !== "off";
      return el("label", {}, box, swatch, label, key && el("kbd", { "aria-hidden": "true" }, key));
    }));
}

function setLayer(kind, on) {
  document.documentElement.dataset[kind] = on ? "on" : "off";
  for (const box of document.querySelectorAll(`input[data-layer="${kind}"]`)) box.checked = on;
}

function toggleLayer(kind) {
  setLayer(kind, document.documentElement.dataset[kind] === "off");
}

function problems(item) {
  if (!item.problems.length) return null;
  return el("ul", { class: "problems", "aria-label": "Problems and repairs" },
    item.problems.map(({ kind, text }) => el("li", {}, chip(words(kind), "warn"), " ", fold(text, 400))));
}

function facts(pairs) {
  const shown = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return el("dl", { class: "facts" }, shown.map(([name, value]) =>
    el("div", {}, el("dt", {}, name), el("dd", {}, typeof value === "string" ? fold(value, 600) : value))));
}

function numbers(item) {
  const { box_area: area, cells, iou, text } = item.numbers;
  return facts([
    ["Box, share of the image", area === null ? null : percent(area)],
    ["Box, in cells", cells === null ? null : cells.toPrecision(3)],
    ["IoU of crop and box", iou === null ? null : iou.toFixed(3)],
    ["Grid", item.k ? `${item.k} × ${item.k}` : null],
    ["Text", plural(text, "character")],
  ]);
}

function provenance(item) {
  const images = item.images.map((image, which) => facts([
    [item.images.length > 1 ? `Image ${which}` : "Image", image.path],
    ["Size", image.width ? `${image.width} × ${image.height} px` : null],
    ["Licence of the image", image.license ?? "not stated"],
    ["Attribution", image.attribution],
  ]));
  return [
    facts([
      ["Question", item.question], ["Answers", item.answers.length ? item.answers.join("\n") : null],
      ["Region", item.region_status && words(item.region_status)],
      ["Data set", [item.source, item.dataset].filter(Boolean).join(" / ")], ["Task", item.task && words(item.task)], ["Split", item.split],
      ["Origin", item.origin && `${item.origin.file}, record ${count(item.origin.row)} counted from 0`],
      ["Stored in", item.place && `${item.place.file}, row ${count(item.place.row)} counted from 0`],
      ["Licence of the annotation", item.license ?? "not stated in the row"],
    ]),
    ...images,
  ];
}

/** The row as it is stored, written out only when somebody opens it. */
function rawRow(item) {
  const body = el("pre", { tabindex: "0", "aria-label": "The row as JSON" });
  const open = (event) => {
    if (event.target.open && !body.firstChild) body.append(fold(JSON.stringify(item.raw, null, 2), 20000));
  };
  return el("details", { class: "raw", toggle: open }, el("summary", {}, "The row as it is stored (JSON)"), body);
}

/** One item; `title` names its corpus where two are side by side, `other` is its twin there. */
function panelOf(item, title = null, other = null) {
  const panel = el("article", { class: "panel" });
  const pictures = item.images.length ? item.images.map((_, which) => framed(item, which)) : [el("p", { class: "missing" }, "This row has no image.")];
  return build(panel, {}, [
    title && el("h3", {}, say(title)),
    el("div", { class: "columns" },
      el("section", { class: "seen", "aria-label": "Picture" }, pictures, legend(pictures), problems(item), numbers(item)),
      el("section", { class: "said", "aria-label": "Dialogue" }, dialogue(item, panel, other))),
    el("details", { class: "provenance", open: !title }, el("summary", {}, "Origin, licence, annotation"), provenance(item)),
    rawRow(item),
  ]);
}

function pairOf(item) {
  const [first, second] = DOC.corpora.map((corpus) => corpus.name);
  const sides = item.only_in === 1 ? [null, item] : [item, item.other];
  return el("div", { class: "pair" }, [first, second].map((name, place) => sides[place]
    ? panelOf(sides[place], name, sides[1 - place])
    : el("article", { class: "panel" }, el("h3", {}, say(name)), el("p", { class: "missing" }, "This corpus has no row with this id."))));
}

function chips(item) {
  return el("p", { class: "chips" },
    item.take && chip(item.take, "", "take"), item.template && chip(item.template, "", "template"),
    item.looks.map((look) => chip(`look: ${look}`, "look")), item.expected && chip(`expected: ${item.expected}`, "look"),
    item.prompted === false && chip("free choice", "", "The question does not ask for the look."),
    item.repaired.filter((kind) => !item.problems.some((problem) => problem.kind === kind)).map((kind) => chip(`repaired: ${words(kind)}`, "warn")),
    differs(item) && chip(item.only_in === null ? `differs: ${differences(item).join(", ")}` : `only in ${DOC.corpora[item.only_in].name}`, "differs"));
}

/** The page of one row. `place`: where it is in the list, from 0, or -1; `step(n)` goes n rows on. */
function samplePage(item, place, total, step) {
  const move = (n, label, key) => el("button", { type: "button", disabled: n < 0 && place <= 0, click: () => step(n) }, label, " ", el("kbd", { "aria-hidden": "true" }, key));
  return el("div", { class: "sample" },
    el("div", { class: "steps" },
      el("a", { href: hashOf({ id: "" }), class: "button" }, "Gallery ", el("kbd", { "aria-hidden": "true" }, "g")),
      move(-1, "Previous", "k"), move(1, "Next", "j"),
      el("span", { class: "soft", role: "status" }, place < 0 ? "not among the rows that the filters show" : `${count(place + 1)} of ${count(total)}`)),
    el("h2", { id: "heading", tabindex: "-1" }, say(plain(item.id, 300))),
    chips(item),
    DOC.corpora.length > 1 ? pairOf(item) : panelOf(item));
}
