// The turns of a row: text, perception tokens that mark their cells, and the views that placeholders show.

const ENCODERS = { vlm: "the model's own encoder", dino: "DINOv2", sam: "SAM", clip: "the model's own encoder, once more" };
const AXIS = /^<\|([xy])_(\d+)\|>$/;

/** Parts with neighbouring tokens of one call put together: [part] or [token, token, ...]. */
function runs(parts) {
  const found = [];
  for (const part of parts) {
    const last = found.at(-1);
    const joins = last && part.kind === "token" && last[0].kind === "token" && part.family === last[0].family && part.family !== "other" && part.view === last[0].view;
    if (joins) last.push(part);
    else found.push([part]);
  }
  return found;
}

function tokenElement(part) {
  const quiet = part.loss ? "" : " quiet";
  return el("code", { class: `token ${part.family}${quiet}`, title: part.loss ? null : "carries no loss" }, say(part.text));
}

/** The tokens of one look: a button that marks what they ask for while it is pointed at, focused or pressed. */
function tokenGroup(tokens, panel, item) {
  const view = tokens[0].view === null ? null : item.views[tokens[0].view];
  const marks = tokens.map(tokenElement);
  if (!view) return marks;
  const meaning = view.cells ? `cells ${cellWords(view.cells)}` : `the whole image through ${ENCODERS[view.encoder] ?? view.encoder}`;
  const button = el("button", { type: "button", class: "tokens", "aria-pressed": "false", "aria-label": `Tokens that ask for ${plain(meaning)}` }, marks);
  const pressed = () => button.getAttribute("aria-pressed") === "true";
  const show = () => mark(panel, item, view);
  const hide = () => mark(panel, item, pressed() ? view : null);
  button.addEventListener("pointerenter", show);
  button.addEventListener("pointerleave", hide);
  button.addEventListener("focus", show);
  button.addEventListener("blur", hide);
  button.addEventListener("click", () => {
    button.setAttribute("aria-pressed", String(!pressed()));
    show();
  });
  tokens.forEach((token, place) => {
    const [, axis, index] = AXIS.exec(token.text) ?? [];
    if (axis) marks[place].addEventListener("pointerenter", () => mark(panel, item, view, [{ axis, index: Number(index) }]));
    if (axis) marks[place].addEventListener("pointerleave", show);
  });
  return button;
}

/** What a placeholder shows, as the model gets it: a crop, the whole image, or the whole image through another encoder. */
function viewFigure(item, number) {
  const view = item.views[number];
  if (!view) return el("span", { class: "missing" }, "no view belongs to this placeholder");
  const image = item.images[view.image];
  const encoder = ENCODERS[view.encoder] ?? view.encoder;
  const cropped = view.box !== null;
  const source = pictureOf(cropped ? view.src : image?.src);
  const title = cropped ? "Crop" : view.encoder === "vlm" ? "Whole image" : `Whole image through ${encoder}`;
  const details = cropped
    ? [view.cells && `cells ${cellWords(view.cells)}`, `${view.box[2] - view.box[0]} × ${view.box[3] - view.box[1]} px`, `through ${encoder}`]
    : [view.encoder === "vlm" ? `through ${encoder}` : "encoded again, steered by the control token"];
  const why = (cropped ? view.missing : null) ?? image?.missing ?? "There is no picture.";
  return el("figure", { class: `view ${cropped ? "cropped" : "whole"} ${plain(view.encoder)}`, "data-view": number },
    source ? picture(source, `${title}, ${plain(details.filter(Boolean).join(", "))}`, false) : el("p", { class: "missing" }, say(plain(why, 300))),
    el("figcaption", {}, el("strong", {}, say(title)), " ", say(details.filter(Boolean).join(" · "))));
}

/** A depth map in its tokens: the picture where the codes can be drawn, and the tokens for who opens them. */
function depthMap(part) {
  const drawn = pictureOf(part.src);
  return el("figure", { class: "view depth" },
    drawn ? picture(drawn, "Depth map that the tokens say, brighter is closer", false) : el("p", { class: "missing" }, "Its codes are drawn by their tokenizer's weights only."),
    el("figcaption", {}, el("strong", {}, "Depth map"), " brighter is closer ",
      el("details", {}, el("summary", {}, plural(part.text.split("><").length, "token")), el("code", { class: "token other" }, say(part.text)))));
}

const written = (turn) => turn.parts.map((part) => part.text).join("");

/** Text with what differs from another text marked: all but the common beginning and the common end. */
function textBeside(text, other) {
  if (other === null || text === other) return fold(text);
  let start = 0;
  while (start < text.length && text[start] === other[start]) start++;
  let end = 0;
  while (end < Math.min(text.length, other.length) - start && text.at(-1 - end) === other.at(-1 - end)) end++;
  const [before, middle, after] = [text.slice(0, start), text.slice(start, text.length - end), text.slice(text.length - end)];
  return el("span", {}, fold(before), middle && el("mark", {}, fold(middle)), fold(after));
}

function turnElement(turn, beside, panel, item) {
  const changed = beside !== undefined && (beside === null || written(beside) !== written(turn));
  const content = runs(turn.parts).map((run) => {
    const place = turn.parts.indexOf(run[0]);
    const twin = changed && beside?.parts[place]?.kind === "text" ? beside.parts[place].text : null;
    if (run[0].kind === "token") return tokenGroup(run, panel, item);
    if (run[0].kind === "map") return depthMap(run[0]);
    if (run[0].kind === "view") return [el("code", { class: "placeholder" }, say(run[0].text)), viewFigure(item, run[0].view)];
    // The line break behind a placeholder is kept by its figure, which is a block.
    const text = turn.parts[place - 1]?.kind === "view" ? run[0].text.replace(/^\n/, "") : run[0].text;
    return textBeside(text, twin);
  });
  return el("li", { class: `turn ${turn.loss ? "loss" : "noloss"}${changed ? " changed" : ""}` },
    el("h4", {}, say(plain(turn.role, 40)), " ", el("span", { class: "lossword" }, turn.loss ? "carries loss" : "no loss"),
      changed && [" ", chip("differs", "differs")]),
    el("div", { class: "content" }, content));
}

/** The dialogue of an item; `other`: the same row of another corpus, whose turns it is compared with. */
function dialogue(item, panel, other = null) {
  if (!item.turns.length) return el("p", { class: "soft" }, "This record has no dialogue.");
  return el("ol", { class: "turns", "aria-label": "Dialogue" },
    item.turns.map((turn, place) => turnElement(turn, other ? other.turns[place] ?? null : undefined, panel, item)));
}
