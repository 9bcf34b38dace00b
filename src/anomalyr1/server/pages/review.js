import { ask, attempt, COLOURS, el, main, person, tell, verdict } from "./shell.js";
import { createPanel } from "./viewer.js";
import { describe } from "./result.js";

const place = el("div"), left = el("p", { class: "soft", "aria-live": "polite" });
main.append(el("div", { class: "stack" }, left, place));
let queue = [], current = null, panel = null, byKey = false;
const given = []; // the reviews of this visit, latest last: undo goes back through them
const comment = el("textarea", { maxlength: 20000 });
const labels = el("ul", { class: "stack labels", "aria-label": "Boxes" }), drawButton = el("button", { type: "button", "aria-pressed": "false", onclick: () => draw() }, "Draw box ", el("kbd", {}, "B"));

async function load() {
  const wanted = new URLSearchParams(location.search).get("id");
  const found = await ask("/api/inspections?reviewed=false&state=done&sort=uncertain&page_size=50");
  queue = found.inspections.map((item) => item.id);
  left.textContent = `${found.total} to review, most uncertain first`;
  if (wanted) { queue = [Number(wanted), ...queue.filter((id) => id !== Number(wanted))]; history.replaceState(null, "", "/review"); }
  await open(queue[0]);
}

async function open(id) {
  if (!id) { current = null; place.replaceChildren(el("div", { class: "panel empty" }, el("p", {}, "All is reviewed."), given.length > 0 && el("button", { onclick: undo }, "Undo the last review"))); return; }
  current = await ask(`/api/inspections/${id}`); comment.value = current.review?.comment ?? "";
  const regions = current.review ? current.review.regions : current.defects.map(({ box_xyxy, label, description }) => ({ box_xyxy, label, description }));
  panel = createPanel(current, { editable: true, regions, onchange: list });
  place.replaceChildren(el("div", { class: "two" }, el("div", { class: "stack" }, panel.node, el("div", { class: "row" }, drawButton,
    el("button", { type: "button", onclick: () => panel.viewer.remove() }, "Delete box ", el("kbd", {}, "Del")), el("button", { type: "button", onclick: undo }, "Undo ", el("kbd", {}, "Z")))),
    el("div", { class: "stack" }, el("div", { class: "panel stack" }, el("p", { class: "row" }, el("span", { class: "soft" }, "Your verdict; the station’s:"), verdict(current.decision)),
      el("div", { class: "row" }, el("button", { class: "primary", type: "button", disabled: current.decision === "unread", onclick: () => confirm() }, "Confirm ", el("kbd", {}, "Enter")), el("button", { type: "button", onclick: () => save("normal") }, "Normal ", el("kbd", {}, "N")), el("button", { type: "button", onclick: () => save("anomalous") }, "Anomalous ", el("kbd", {}, "A")), el("button", { type: "button", onclick: skip }, "Skip ", el("kbd", {}, "S"))),
      labels, el("label", { class: "field" }, "Comment", comment)), describe(current))));
  rows = [];
  list();
  if (byKey) panel.viewer.stage.focus({ preventScroll: true });
}
// A row a box. Rows stay while their boxes do, so that a label keeps the focus while one types.
let rows = [];
function list() {
  const { regions, drawing, chosen } = panel.viewer.state;
  drawButton.setAttribute("aria-pressed", String(drawing));
  if (rows.length !== regions.length || rows.some((row, index) => row.region !== regions[index])) {
    rows = regions.map((region, index) => ({ region, node: createRow(region, index) }));
    labels.replaceChildren(...rows.map((row) => row.node));
  }
  rows.forEach((row, index) => row.node.classList.toggle("chosen", index === chosen));
}
function createRow(region, index) {
  const swatch = el("span", { class: "swatch" }); swatch.style.background = COLOURS[index % COLOURS.length];
  const { viewer } = panel;
  return el("li", { class: "row" }, swatch,
    el("input", { value: region.label, maxlength: 200, placeholder: "kind of defect", "aria-label": `Label of box ${index + 1}`, onfocus: () => viewer.choose(index), oninput: (event) => { region.label = event.target.value; viewer.draw(); } }),
    el("button", { class: "small", type: "button", "aria-label": `Delete box ${index + 1}`, onclick: () => { viewer.choose(index); viewer.remove(); } }, "×"));
}
function draw() {
  const { viewer } = panel;
  viewer.setDrawing(!viewer.state.drawing);
  if (viewer.state.drawing) viewer.stage.focus({ preventScroll: true });
}
const confirm = attempt(async () => { if (!current) return; if (current.decision === "unread") throw new Error("The answer was not read: choose normal or anomalous."); await save(current.decision); });
const save = attempt(async (chosen) => {
  if (!current) return;
  const item = current, reviewer = person();
  current = null; // a second key press must not judge the same picture again
  const regions = chosen === "normal" ? [] : panel.viewer.state.regions.map(({ box_xyxy, label, description }) => ({ box_xyxy, label: label ?? "", description: description ?? "" }));
  let done;
  try { done = await ask(`/api/inspections/${item.id}/reviews`, { method: "POST", json: { reviewer, verdict: chosen, regions, comment: comment.value } }); } catch (error) { current = item; throw error; }
  given.push({ review: done.review.id, inspection: item.id }); queue = queue.filter((id) => id !== item.id);
  tell(`Saved: ${chosen}. Z undoes.`);
  await (queue.length ? open(queue[0]) : load());
  if (queue.length) tellLeft();
});
const tellLeft = () => { left.textContent = `${queue.length} more in this round`; };
const skip = attempt(async () => { queue.push(queue.shift()); await open(queue[0]); });
const undo = attempt(async () => {
  if (current && panel.viewer.undo()) return;
  if (!given.length) throw new Error("Nothing to undo.");
  const json = { person: person() }, { review, inspection } = given.pop();
  try { await ask(`/api/reviews/${review}/retract`, { method: "POST", json }); } catch (error) {
    if (error.status !== 404) given.push({ review, inspection }); // 404: someone else took it back
    throw error;
  }
  queue = [inspection, ...queue.filter((id) => id !== inspection)];
  await open(inspection); tellLeft(); tell("The review is taken back.");
});
document.addEventListener("keydown", (event) => {
  const typing = panel && event.target.closest("main :is(input:not([type]), textarea)");
  if (typing && event.key === "Escape") { panel.viewer.stage.focus({ preventScroll: true }); return; } // back to where keys judge
  if (event.target.closest("input, textarea, select, a") || event.ctrlKey || event.metaKey || event.altKey || (event.key === "Enter" && event.target.closest("button"))) return;
  const action = { Enter: confirm, n: () => save("normal"), a: () => save("anomalous"), s: skip, z: undo, b: () => panel && draw(), Delete: () => panel?.viewer.remove() }[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (action) { event.preventDefault(); byKey = true; action(); }
});
await attempt(load)();
