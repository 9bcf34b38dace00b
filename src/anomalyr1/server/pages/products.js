import { ask, attempt, count, el, main, picture, score, svg, tell } from "./shell.js";
import { createDrop, cutIntoParcels } from "./files.js";

const list = el("div", { class: "cards" }), detail = el("div", { class: "stack" });
const name = el("input", { id: "new-name", maxlength: 200, required: true, placeholder: "gear housing" });
main.append(el("div", { class: "stack" }, el("form", { class: "row", onsubmit: attempt(async (event) => {
  event.preventDefault(); const made = await ask("/api/products", { method: "POST", json: { name: name.value } }); name.value = ""; await refresh(); await open(made.id);
}) }, el("label", { class: "field" }, "New product", name), el("button", { class: "primary" }, "Add product")), list, detail));

let chosen = null;
async function refresh() {
  const products = await ask("/api/products");
  list.replaceChildren(...products.map((product) => el("button", { class: "card", type: "button", "data-id": product.id, "aria-current": product.id === chosen ? "true" : null, onclick: attempt(() => open(product.id)) }, el("span", { class: "body" }, el("span", { class: "name" }, product.name), el("span", { class: "soft" }, count(product.num_references, "reference"))))));
  if (!products.length) list.replaceChildren(el("p", { class: "soft" }, "No product yet. A product has normal reference pictures, and what is known of it."));
  return products;
}
async function open(id) {
  history.replaceState(null, "", `?product=${id}`);
  render(await ask(`/api/products/${id}`));
  mark(id);
}
function mark(id) { // the chosen product's card stands out
  chosen = Number(id);
  for (const card of list.children) {
    if (Number(card.dataset.id) === chosen) card.setAttribute("aria-current", "true"); else card.removeAttribute("aria-current");
  }
}

function render(product) {
  const change = attempt(async (json) => { render(await ask(`/api/products/${product.id}`, { method: "PATCH", json })); await refresh(); tell("Saved."); });
  const title = el("input", { value: product.name, maxlength: 200 }), knowledge = el("textarea", { value: product.knowledge, maxlength: 20000, placeholder: "What is normal, what is a defect, where to look" });
  detail.replaceChildren(el("h2", {}, product.name), el("div", { class: "two" },
    el("div", { class: "stack" },
      createDrop("Drop normal pictures of this product", attempt(async (files) => {
        tell("Adding …");
        for (const some of cutIntoParcels(files)) {
          const form = new FormData(); for (const file of some) form.append("pictures", file, file.name);
          await ask(`/api/products/${product.id}/references`, { method: "POST", form });
        }
        render(await ask(`/api/products/${product.id}/calibration`, { method: "POST" })); await refresh();
      })),
      el("ul", { class: "cards" }, product.references.map((item) => el("li", { class: "card" }, el("img", { src: picture(item.picture, "thumb"), alt: item.name }), el("div", { class: "body" }, el("span", { class: "name" }, item.name), el("span", { class: "soft" }, `against the others: ${score(item.score)}`), item.is_odd && el("span", { class: "notice" }, "Looks unlike the others: is it normal?"),
        el("button", { class: "small", onclick: attempt(async () => { render(await ask(`/api/products/${product.id}/references/${item.id}`, { method: "DELETE" })); await refresh(); }) }, "Remove")))))),
    el("div", { class: "stack" },
      el("form", { class: "panel stack", onsubmit: (event) => { event.preventDefault(); change({ name: title.value, knowledge: knowledge.value }); } }, el("label", { class: "field" }, "Name", title), el("label", { class: "field" }, "Domain knowledge", knowledge), el("div", { class: "row" }, el("button", { class: "primary" }, "Save"), el("a", { class: "button", href: `/?product=${product.id}` }, "Inspect"), el("button", { type: "button", onclick: attempt(async () => { if (!confirm(`Delete ${product.name}? Its inspections stay.`)) return; await ask(`/api/products/${product.id}`, { method: "DELETE" }); detail.replaceChildren(); history.replaceState(null, "", "/products"); await refresh(); }) }, "Delete"))),
      calibration(product, change))));
}

// Leave-one-out scores on a line from 0 to 1, and the threshold to drag.
function calibration(product, change) {
  const scored = product.references.filter((item) => item.score !== null);
  const value = product.threshold ?? 0.5, x = (share) => 10 + 300 * share;
  const mark = svg("line", { class: "mark", x1: x(value), x2: x(value), y1: 8, y2: 52, opacity: product.threshold === null ? 0.35 : 1 });
  const drawing = svg("svg", { class: "chart", viewBox: "0 0 320 78", role: "img", "aria-label": `Scores of ${count(scored.length, "reference")}; threshold ${product.threshold ?? "not set"}` }, svg("line", { x1: 10, x2: 310, y1: 52, y2: 52 }), [0, 0.25, 0.5, 0.75, 1].map((tick) => svg("text", { x: x(tick), y: 70, "text-anchor": "middle" }, String(tick))), scored.map((item) => svg("circle", { class: `dot${item.is_odd ? " odd" : ""}`, cx: x(item.score), cy: 38, r: 5, opacity: 0.8 }, svg("title", {}, `${item.name}: ${score(item.score)}`))), mark);
  const shown = el("output", { class: "num" }, product.threshold === null ? "not set: the model decides" : score(product.threshold));
  const slider = el("input", { type: "range", min: 0, max: 1, step: 0.01, value, "aria-label": "Threshold of the detector's score", oninput: () => { mark.setAttribute("x1", x(slider.value)); mark.setAttribute("x2", x(slider.value)); mark.setAttribute("opacity", 1); shown.textContent = score(Number(slider.value)); }, onchange: () => change({ threshold: Number(slider.value) }) });
  letDrag(drawing, slider, (at) => (at * 320 - 10) / 300);
  return el("section", { class: "panel stack" }, el("h2", {}, "Calibration"), el("p", { class: "soft" }, "Each reference's detector score against the others. Normal pictures should lie well below the line."), drawing, slider, el("div", { class: "row" }, el("span", { class: "soft" }, "Threshold: ", shown), product.threshold !== null && el("button", { class: "small", onclick: () => change({ threshold: null }) }, "Let the model decide"), el("button", { class: "small", disabled: product.references.length < 2, onclick: attempt(async () => { tell("Scoring the references …"); render(await ask(`/api/products/${product.id}/calibration`, { method: "POST" })); tell("Scored."); }) }, product.is_calibrated ? "Score again" : "Score references")));
}

// The line follows the pointer; the slider stays what keyboard and screen reader use.
function letDrag(drawing, slider, read) {
  const follow = (event) => {
    const rect = drawing.getBoundingClientRect();
    slider.value = read((event.clientX - rect.left) / rect.width);
    slider.dispatchEvent(new Event("input"));
  };
  drawing.classList.add("drag");
  drawing.addEventListener("pointerdown", (event) => { drawing.setPointerCapture(event.pointerId); follow(event); });
  drawing.addEventListener("pointermove", (event) => { if (drawing.hasPointerCapture(event.pointerId)) follow(event); });
  drawing.addEventListener("pointerup", () => slider.dispatchEvent(new Event("change")));
}

const products = await refresh();
const wanted = new URLSearchParams(location.search).get("product") ?? products[0]?.id;
if (wanted) await attempt(open)(wanted);
