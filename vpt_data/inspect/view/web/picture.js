// A picture with what is known about it drawn on top. Coordinates are pixels of the stored image: the viewBox has its size.

/** Pictures get their bytes when they come near the window, so that hundreds of rows open at once. */
const nearby = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) if (isIntersecting) reveal(target);
}, { rootMargin: "600px" });

function reveal(img) {
  nearby.unobserve(img);
  if (img.dataset.src) img.src = img.dataset.src;
  delete img.dataset.src;
}

function picture(src, alt, lazy) {
  const broken = () => img.replaceWith(el("p", { class: "missing" }, "This picture cannot be shown."));
  const img = el("img", { alt, "data-src": src, decoding: "async", error: broken });
  if (lazy) nearby.observe(img);
  else reveal(img);
  return img;
}

/** Pixels from `low` to `high` (cells, both included) along one side: the rule of vpt_data/geometry.py, crop. */
function span(k, side, low, high) {
  const start = Math.floor((low * side) / k);
  return [start, Math.max(Math.floor(((high + 1) * side) / k), start + 1)];
}

/** Pixels x0, y0, x1, y1 of cells in an image. */
function cellPixels([col0, row0, col1, row1], k, image) {
  const [x0, x1] = span(k, image.width, col0, col1);
  const [y0, y1] = span(k, image.height, row0, row1);
  return [x0, y0, x1, y1];
}

function cellWords([col0, row0, col1, row1]) {
  const range = (axis, low, high) => (low === high ? `${axis} ${low}` : `${axis} ${low}–${high}`);
  return `${range("x", col0, col1)}, ${range("y", row0, row1)}`;
}

/** A rectangle twice: a white casing, and the line on it, so that it shows on every picture. */
function rectangle(kind, [xa, ya, xb, yb]) {
  const edges = { x: Math.min(xa, xb), y: Math.min(ya, yb), width: Math.abs(xb - xa), height: Math.abs(yb - ya) };
  return [svg("rect", { class: `${kind} casing`, ...edges }), svg("rect", { class: `${kind} line`, ...edges })];
}

function gridLines(k, { width, height }) {
  const lines = [];
  for (let n = 1; n < k; n++) {
    const [x] = span(k, width, n, n);
    const [y] = span(k, height, n, n);
    lines.push(`M${x} 0V${height}`, `M0 ${y}H${width}`);
  }
  return ["casing", "line"].map((part) => svg("path", { class: `grid ${part}`, d: lines.join("") }));
}

/** The looks of an item at one image that name cells, each once. */
function looksAt(item, which) {
  const found = item.views.filter((view) => view.image === which && view.cells);
  return found.filter((view, place) => found.findIndex((other) => String(other.cells) === String(view.cells)) === place);
}

/** A short text that stands on the picture: above its corner where there is room, else inside. */
function tag(kind, text, [x, y], image, below = false) {
  const place = below ? "below" : y / image.height > 0.08 ? "above" : "inside";
  const side = x / image.width > 0.7 ? "left" : "right";
  const found = el("span", { class: `tag ${kind} ${place} ${side}`, "aria-hidden": "true" }, say(plain(text, 30)));
  found.style.left = `${(100 * x) / image.width}%`;
  found.style.top = `${(100 * y) / image.height}%`;
  return found;
}

function tags(image, k, looks) {
  const boxes = image.boxes.map(({ box: [xa, ya, xb, yb], label }) =>
    tag("box", label ? `box: ${label}` : "box", [Math.max(Math.min(xa, xb), 0), Math.max(Math.min(ya, yb), 0)], image));
  const chosen = looks.map((view) => {
    const [x0, , , y1] = cellPixels(view.cells, k, image);
    return tag("cells", "cells", [x0, Math.min(y1, image.height)], image, y1 / image.height < 0.92);
  });
  return [...boxes, ...chosen];
}

/** What the picture shows, in words: for those who do not see it. */
function describe(item, image, looks) {
  const boxes = image.boxes.map(({ box, label }) => `${label ? plain(label, 40) + ": " : ""}box ${box.map((edge) => Math.round(edge)).join(", ")}`);
  const cells = looks.map((view) => `cells ${cellWords(view.cells)}`);
  return [`Image ${plain(image.path ?? "without a name", 100)}`, ...boxes, ...cells].join("; ");
}

/** Image, boxes, grid, cells. `details`: with tags, grid and room to mark cells; else a thumbnail that loads late. */
function stage(item, which, details) {
  const image = item.images[which];
  const looks = item.k ? looksAt(item, which) : [];
  const known = image.width && image.height;
  const marked = looks.length || image.boxes.length;
  const source = pictureOf(image.src, details ? null : 320);
  const label = describe(item, image, looks);
  const holder = el("div", { class: "stage" });
  holder.style.setProperty("--ratio", known ? image.width / image.height : 4 / 3);
  if (source) holder.append(picture(source, label, !details));
  else holder.append(el("p", { class: "missing" }, say(plain(image.missing ?? "There is no picture.", 300))));
  if (known) {
    const overlay = svg("svg", { class: "overlay", viewBox: `0 0 ${image.width} ${image.height}`, preserveAspectRatio: "none", "aria-hidden": "true" });
    if (details && item.k && marked) overlay.append(...gridLines(item.k, image));
    for (const view of looks) {
      const pixels = cellPixels(view.cells, item.k, image);
      overlay.append(...rectangle("cells", pixels));
      if (details && view.box && String(view.box) !== String(pixels)) overlay.append(...rectangle("crop", view.box));
    }
    for (const { box } of image.boxes) overlay.append(...rectangle("box", box));
    if (details) overlay.append(svg("g", { class: "marks" }));
    holder.append(overlay, ...(details ? tags(image, item.k, looks) : []));
  }
  return holder;
}

/** A stage with the numbers of its columns and rows. */
function framed(item, which) {
  const axis = (name) => el("div", { class: `axis ${name}`, "aria-hidden": "true" },
    Array.from({ length: item.k }, (_, n) => el("span", {}, String(n))));
  const body = stage(item, which, true);
  const numbered = body.querySelector(".grid") && item.k <= 16;
  const frame = el("div", { class: numbered ? "frame numbered" : "frame", "data-image": which },
    numbered && [axis("x"), axis("y")], body);
  frame.style.setProperty("--ratio", body.style.getPropertyValue("--ratio"));
  return frame;
}

/** Mark what tokens name: a view with its cells, or a whole image. Null takes every mark away. */
function mark(panel, item, view, bands = []) {
  for (const group of panel.querySelectorAll(".marks")) group.replaceChildren();
  for (const figure of panel.querySelectorAll(".view")) figure.classList.toggle("marked", figure.dataset.view === String(item.views.indexOf(view)));
  if (!view) return;
  const image = item.images[view.image];
  const group = panel.querySelector(`.frame[data-image="${view.image}"] .marks`);
  if (!group || !image.width) return;
  const pixels = view.cells && item.k ? cellPixels(view.cells, item.k, image) : view.box ?? [0, 0, image.width, image.height];
  const edges = ([x0, y0, x1, y1]) => ({ x: x0, y: y0, width: x1 - x0, height: y1 - y0 });
  group.append(svg("rect", { class: "mark", ...edges(pixels) }));
  for (const { axis, index } of bands) {
    const [low, high] = span(item.k, axis === "x" ? image.width : image.height, index, index);
    const band = axis === "x" ? [low, 0, high, image.height] : [0, low, image.width, high];
    group.append(svg("rect", { class: "band", ...edges(band) }));
  }
}
