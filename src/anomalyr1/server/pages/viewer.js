// A picture with boxes, masks and map; zoom, pan, comparison with the reference, boxes to draw.
import { COLOURS, el, picture, svg } from "./shell.js";

const LEAST = 4; // pixels of a drawn box

export function createViewer({ editable = false, onchange = () => {} } = {}) {
  const photo = el("img", { alt: "", draggable: "false" });
  const map = el("img", { alt: "", hidden: true, draggable: "false" });
  const masks = el("img", { alt: "", hidden: true, draggable: "false" });
  const reference = el("img", { alt: "", hidden: true, draggable: "false" });
  const boxes = svg("svg", { "aria-hidden": "true" });
  const world = el("div", { class: "world" }, photo, map, masks, reference, boxes);
  const stage = el("div", { class: "stage", tabindex: "0", role: "application", "aria-label": "Picture. Plus and minus zoom, arrow keys pan, 0 fits." }, world);
  const state = { width: 1, height: 1, scale: 1, x: 0, y: 0, regions: [], chosen: -1, drawing: false, undo: [] };
  const pointers = new Map();
  let drag = null;

  function place() {
    world.style.width = `${state.width}px`; world.style.height = `${state.height}px`;
    world.style.transform = `translate(${state.x}px, ${state.y}px) scale(${state.scale})`;
    boxes.setAttribute("viewBox", `0 0 ${state.width} ${state.height}`);
  }
  function fit() {
    const { clientWidth, clientHeight } = stage;
    state.scale = Math.min(clientWidth / state.width, clientHeight / state.height) || 1;
    state.x = (clientWidth - state.width * state.scale) / 2; state.y = (clientHeight - state.height * state.scale) / 2;
    place(); draw();
  }
  function zoom(factor, cx = stage.clientWidth / 2, cy = stage.clientHeight / 2) {
    const next = Math.min(40, Math.max(0.02, state.scale * factor));
    state.x = cx - (cx - state.x) * next / state.scale; state.y = cy - (cy - state.y) * next / state.scale;
    state.scale = next; place(); draw();
  }
  function draw() {
    const size = 14 / state.scale;
    boxes.replaceChildren(...state.regions.flatMap((region, index) => {
      const [left, top, right, bottom] = region.box_xyxy; const colour = COLOURS[index % COLOURS.length];
      return [svg("rect", { class: `box${index === state.chosen ? " chosen" : ""}`, x: left, y: top, width: right - left, height: bottom - top, stroke: colour }),
        svg("text", { x: left, y: top > size * 1.4 ? top - size * 0.4 : bottom + size * 1.1, "font-size": size, fill: colour }, region.label || "defect")];
    }));
  }
  function remember() { state.undo.push(JSON.stringify(state.regions)); if (state.undo.length > 100) state.undo.shift(); }
  function changed() { draw(); onchange(state.regions); }
  const toPicture = (event) => { const rect = stage.getBoundingClientRect(); return [(event.clientX - rect.left - state.x) / state.scale, (event.clientY - rect.top - state.y) / state.scale]; };
  const clip = ([left, top, right, bottom]) => [Math.max(0, Math.min(left, right)), Math.max(0, Math.min(top, bottom)), Math.min(state.width, Math.max(left, right)), Math.min(state.height, Math.max(top, bottom))].map((side) => Math.round(side * 10) / 10);
  const find = ([x, y]) => state.regions.findLastIndex(({ box_xyxy: box }) => x >= box[0] && x <= box[2] && y >= box[1] && y <= box[3]);

  stage.addEventListener("wheel", (event) => { event.preventDefault(); const rect = stage.getBoundingClientRect(); zoom(Math.exp(-event.deltaY / 400), event.clientX - rect.left, event.clientY - rect.top); }, { passive: false });
  stage.addEventListener("pointerdown", (event) => {
    stage.setPointerCapture(event.pointerId); pointers.set(event.pointerId, event);
    const at = toPicture(event);
    if (editable && state.drawing) { remember(); state.regions.push({ box_xyxy: [...at, ...at], label: "", description: "" }); state.chosen = state.regions.length - 1; drag = { kind: "draw", at }; return; }
    const hit = editable ? find(at) : -1;
    if (editable && hit !== state.chosen) { state.chosen = hit; draw(); onchange(state.regions); }
    if (hit >= 0) { remember(); drag = { kind: "move", at, box: [...state.regions[hit].box_xyxy] }; } else drag = { kind: "pan" };
  });
  stage.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId); if (!before) return;
    if (pointers.size === 2) {
      const other = [...pointers.values()].find((item) => item.pointerId !== event.pointerId);
      const span = (item) => Math.hypot(item.clientX - other.clientX, item.clientY - other.clientY);
      const rect = stage.getBoundingClientRect();
      zoom(span(event) / Math.max(1, span(before)), (event.clientX + other.clientX) / 2 - rect.left, (event.clientY + other.clientY) / 2 - rect.top);
    } else if (drag?.kind === "pan") { state.x += event.clientX - before.clientX; state.y += event.clientY - before.clientY; place(); } else if (drag) {
      const at = toPicture(event); const region = state.regions[state.chosen];
      if (drag.kind === "draw") region.box_xyxy = clip([...drag.at, ...at]);
      else {
        const width = drag.box[2] - drag.box[0], height = drag.box[3] - drag.box[1];
        const left = Math.min(Math.max(0, drag.box[0] + at[0] - drag.at[0]), state.width - width), top = Math.min(Math.max(0, drag.box[1] + at[1] - drag.at[1]), state.height - height);
        region.box_xyxy = clip([left, top, left + width, top + height]);
      }
      draw();
    }
    pointers.set(event.pointerId, event);
  });
  const lift = (event) => {
    if (!pointers.delete(event.pointerId)) return;
    if (drag?.kind === "draw") {
      const box = state.regions[state.chosen].box_xyxy;
      if (box[2] - box[0] < LEAST || box[3] - box[1] < LEAST) { state.regions.splice(state.chosen, 1); state.chosen = -1; state.undo.pop(); } else viewer.setDrawing(false);
    }
    if (drag && drag.kind !== "pan") changed();
    drag = null;
  };
  stage.addEventListener("pointerup", lift); stage.addEventListener("pointercancel", lift);
  stage.addEventListener("keydown", (event) => {
    const pan = { ArrowLeft: [40, 0], ArrowRight: [-40, 0], ArrowUp: [0, 40], ArrowDown: [0, -40] }[event.key];
    if (pan) { state.x += pan[0]; state.y += pan[1]; place(); } else if (event.key === "+" || event.key === "=") zoom(1.25); else if (event.key === "-") zoom(0.8); else if (event.key === "0") fit();
    else if (editable && (event.key === "Delete" || event.key === "Backspace")) viewer.remove(); else return;
    event.preventDefault();
  });
  new ResizeObserver(fit).observe(stage);

  const viewer = {
    stage, state, fit, zoom,
    show(item, regions = item.defects) {
      [state.width, state.height] = item.size_wh; state.regions = regions.map((region) => ({ ...region, box_xyxy: [...region.box_xyxy] })); state.chosen = -1; state.undo = [];
      photo.src = picture(item.picture); photo.alt = `${item.name}: ${item.decision ?? "waiting"}`;
      map.src = item.has_map ? `/api/inspections/${item.id}/map.png` : ""; masks.src = item.num_masks ? `/api/inspections/${item.id}/masks.png` : "";
      if (item.reference) reference.src = picture(item.reference);
      viewer.compare(0); fit();
    },
    showLayer(name, on) { ({ boxes, masks, map })[name].toggleAttribute("hidden", !on); if (name === "boxes") boxes.style.display = on ? "" : "none"; },
    compare(share) { reference.hidden = share === 0; reference.style.clipPath = `inset(0 ${100 - share}% 0 0)`; },
    setDrawing(on) { state.drawing = on; stage.classList.toggle("drawing", on); onchange(state.regions); },
    remove() { if (state.chosen < 0) return; remember(); state.regions.splice(state.chosen, 1); state.chosen = -1; changed(); },
    undo() { if (!state.undo.length) return false; state.regions = JSON.parse(state.undo.pop()); state.chosen = -1; changed(); return true; },
    draw,
  };
  return viewer;
}

// The viewer with its switches: layers, comparison, zoom.
export function createPanel(item, options = {}) {
  const viewer = createViewer(options);
  const box = (name, title, on, there) => el("label", { class: "check" }, el("input", { type: "checkbox", checked: on, disabled: !there, onchange: (event) => viewer.showLayer(name, event.target.checked) }), title);
  const slider = item.reference && el("label", { class: "slider" }, "Reference", el("input", { type: "range", min: 0, max: 100, value: 0, oninput: (event) => viewer.compare(Number(event.target.value)) }));
  const tools = el("div", { class: "tools" }, box("boxes", "Boxes", true, true), box("masks", "Masks", item.num_masks > 0, item.num_masks > 0), box("map", "Map", false, item.has_map), slider,
    el("span", { class: "end" }, el("button", { class: "small", type: "button", "aria-label": "Zoom out", onclick: () => viewer.zoom(0.8) }, "−"), el("button", { class: "small", type: "button", "aria-label": "Zoom in", onclick: () => viewer.zoom(1.25) }, "+"), el("button", { class: "small", type: "button", onclick: viewer.fit }, "Fit")));
  const node = el("div", {}, viewer.stage, tools);
  queueMicrotask(() => { viewer.show(item, options.regions); viewer.showLayer("masks", item.num_masks > 0); });
  return { node, viewer };
}
