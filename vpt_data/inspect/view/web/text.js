// Elements and text. All text of a corpus becomes text nodes: nothing here or elsewhere sets HTML.

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes and children; functions are event handlers, null, undefined and false are left out. */
function el(name, attributes = {}, ...children) {
  return build(document.createElement(name), attributes, children);
}

function svg(name, attributes = {}, ...children) {
  return build(document.createElementNS(SVG, name), attributes, children);
}

function build(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(9).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

const byId = (id) => document.getElementById(id);
const words = (name) => String(name).replaceAll("_", " ").replace(/\biou\b/, "IoU");
const count = (n) => n.toLocaleString("en-US");
const plural = (n, one, many = one + "s") => `${count(n)} ${n === 1 ? one : many}`;
const percent = (share) => `${(100 * share).toPrecision(share < 0.1 ? 2 : 3)} %`;

// Control characters, halves of surrogate pairs, and marks without a width that reorder or hide text; not tab and newline.
const CONTROLS =
  /(?:(?![\t\n])[\p{Cc}\p{Cs}\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\u{e0000}-\u{e007f}])+/gu;
const ASCII = "NUL SOH STX ETX EOT ENQ ACK BEL BS HT LF VT FF CR SO SI DLE DC1 DC2 DC3 DC4 NAK SYN ETB CAN EM SUB ESC FS GS RS US".split(" ");
const NAMED = new Map(Object.entries({
  "\u007f": "DEL", "\u00ad": "SHY", "\u061c": "ALM", "\u200b": "ZWSP", "\u200e": "LRM", "\u200f": "RLM", "\u202a": "LRE", "\u202b": "RLE",
  "\u202c": "PDF", "\u202d": "LRO", "\u202e": "RLO", "\u2066": "LRI", "\u2067": "RLI", "\u2068": "FSI", "\u2069": "PDI", "\ufeff": "BOM",
}));

/** The name of a character that cannot be seen; symbols of Unicode for them are missing in many fonts. */
function symbol(character) {
  const code = character.codePointAt(0);
  return `‹${ASCII[code] ?? NAMED.get(character) ?? "U+" + code.toString(16).toUpperCase().padStart(4, "0")}›`;
}

/** Text without invisible characters, cut to a length: for labels and attributes. */
function plain(text, limit = 200) {
  const shown = cut(String(text ?? ""), limit);
  return shown.replace(CONTROLS, (run) => [...run].map(symbol).join("")) + (shown.length < String(text ?? "").length ? "…" : "");
}

/** The beginning of a text; a character of two halves stays whole. */
function cut(text, limit) {
  if (text.length <= limit) return text;
  const last = text.charCodeAt(limit - 1);
  return text.slice(0, last >= 0xd800 && last < 0xdc00 ? limit - 1 : limit);
}

/** Text in its own direction, invisible characters by their names. */
function say(text, attributes = {}) {
  const parts = [];
  let end = 0;
  for (const match of text.matchAll(CONTROLS)) {
    parts.push(text.slice(end, match.index));
    parts.push(el("span", { class: "control", title: "characters that cannot be seen" }, [...match[0]].map(symbol).join("")));
    end = match.index + match[0].length;
  }
  return el("bdi", attributes, ...parts, text.slice(end));
}

const FOLD = 1500;

/** Text of which only the beginning is shown until somebody asks for the rest. */
function fold(text, limit = FOLD) {
  if (text.length <= limit * 1.2) return say(text);
  const holder = el("span", { class: "folded" });
  const show = (whole) => {
    const label = whole ? "Show less" : `Show all ${count(text.length)} characters`;
    const button = el("button", { type: "button", class: "more", "aria-expanded": String(whole), click: () => show(!whole) }, label);
    const had = holder.contains(document.activeElement);
    holder.replaceChildren(say(whole ? text : cut(text, limit) + " …"), " ", button);
    if (had) button.focus();
  };
  show(false);
  return holder;
}

function chip(text, kind = "", title = null) {
  return el("span", { class: `chip ${kind}`, title }, say(plain(text, 60)));
}

/** A table of text: a header and rows. */
function table(header, rows, caption = null) {
  const cell = (value) => el("td", { class: /^-?[\d.,]+ ?%?$/.test(String(value)) ? "number" : null }, fold(String(value ?? "")));
  return el("div", { class: "scroll" }, el("table", {},
    caption && el("caption", {}, say(caption)),
    el("thead", {}, el("tr", {}, header.map((name) => el("th", { scope: "col" }, say(String(name)))))),
    el("tbody", {}, rows.map((row) => el("tr", {}, row.map(cell))))));
}
