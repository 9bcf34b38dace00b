// A picture with boxes, masks and map; zoom, pan, comparison with the reference, boxes to draw.
import { COLOURS, el, picture, svg } from "./shell.js";
import { describeBox, findBox, findGrip, GRIPS, LEAST, moveBox, placeGrip, resizeBox, spanBox } from "./boxes.js";

const REACH = 14; // pixels of the screen around a grip; more for a finger
const REACH_OF_FINGER = 22;
const STEP = 3; // pixels of the screen that an arrow key moves a box; at least one of the picture
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const HELP = "Plus and minus zoom, 0 fits, arrow keys pan.";
const EDIT_HELP = `${HELP} Page down and page up choose a box; then arrow keys move it, with shift they resize it, Delete removes it, Escape lets it go. B and then Enter draws a box in the middle.`;

export function createViewer({ editable = false, onchange = () => {} } = {}) {
  const layer = (attributes) => el("img", { alt: "", draggable: "false", ...attributes });
  const photo = layer({}), map = layer({ hidden: true }), masks = layer({ hidden: true }), reference = layer({ hidden: true });
  const boxes = svg("svg", { "aria-hidden": "true" });
  const world = el("div", { class: "world" }, photo, map, masks, reference, boxes);
  const said = el("div", { class: "sr", role: "status", "aria-live": "polite" });
  const stage = el("div", { class: "stage", tabindex: "0", role: "application", "aria-roledescription": "picture", "aria-label": "Picture" }, world, said);
  const state = { width: 1, height: 1, scale: 1, x: 0, y: 0, regions: [], chosen: -1, drawing: false, undo: [], nudged: -1 };
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
    const drawn = state.regions.flatMap((region, index) => {
      const [left, top, right, bottom] = region.box_xyxy; const colour = COLOURS[index % COLOURS.length];
      const ends = left + right > state.width; // on the right half the label grows to the left
      return [
        svg("rect", { class: `box${index === state.chosen ? " chosen" : ""}`, x: left, y: top, width: right - left, height: bottom - top, stroke: colour }),
        svg("text", { x: ends ? right : left, "text-anchor": ends ? "end" : null, y: top > size * 1.4 ? top - size * 0.4 : bottom + size * 1.1, "font-size": size, fill: colour }, region.label || "defect"),
      ];
    });
    boxes.replaceChildren(...drawn, ...drawGrips());
  }
  function drawGrips() {
    const region = state.regions[state.chosen];
    if (!editable || !region || drag?.kind === "draw") return [];
    const side = 11 / state.scale;
    return GRIPS.map((grip) => {
      const [x, y] = placeGrip(region.box_xyxy, grip);
      return svg("rect", { class: "grip", "data-grip": grip, x: x - side / 2, y: y - side / 2, width: side, height: side });
    });
  }

  const say = (text) => { said.textContent = text; };
  const sayChosen = () => say(state.chosen < 0 ? "No box chosen" : describeBox(state.regions[state.chosen], state.chosen, state.regions.length));
  function remember() { state.undo.push(JSON.stringify(state.regions)); if (state.undo.length > 100) state.undo.shift(); }
  function changed() { draw(); onchange(state.regions); }
  function choose(index) { state.chosen = index; state.nudged = -1; draw(); onchange(state.regions); sayChosen(); }
  function add(box) { remember(); state.regions.push({ box_xyxy: box, label: "", description: "" }); state.chosen = state.regions.length - 1; state.nudged = -1; }
  const toPicture = (event) => { const rect = stage.getBoundingClientRect(); return [(event.clientX - rect.left - state.x) / state.scale, (event.clientY - rect.top - state.y) / state.scale]; };

  function begin(event, at) {
    if (!editable) return { kind: "pan" };
    if (state.drawing) { add([...at, ...at]); return { kind: "draw", at }; }
    const reach = (event.pointerType === "touch" ? REACH_OF_FINGER : REACH) / state.scale;
    const grip = state.chosen >= 0 ? findGrip(state.regions[state.chosen].box_xyxy, at, reach) : undefined;
    const hit = grip ? state.chosen : findBox(state.regions, at);
    if (hit !== state.chosen) choose(hit);
    if (hit < 0) return { kind: "pan" };
    remember(); state.nudged = -1;
    return { kind: grip ? "resize" : "move", grip, at, box: [...state.regions[hit].box_xyxy], moved: false };
  }
  function follow(at) {
    const region = state.regions[state.chosen], dx = at[0] - drag.at[0], dy = at[1] - drag.at[1];
    if (drag.kind === "draw") region.box_xyxy = spanBox(drag.at, at, state.width, state.height);
    else if (drag.kind === "move") region.box_xyxy = moveBox(drag.box, dx, dy, state.width, state.height);
    else region.box_xyxy = resizeBox(drag.box, drag.grip, dx, dy, state.width, state.height);
    drag.moved = true;
    draw();
  }
  function pinch(event, before) {
    const other = [...pointers.values()].find((item) => item.pointerId !== event.pointerId);
    const span = (item) => Math.hypot(item.clientX - other.clientX, item.clientY - other.clientY);
    const rect = stage.getBoundingClientRect();
    zoom(span(event) / Math.max(1, span(before)), (event.clientX + other.clientX) / 2 - rect.left, (event.clientY + other.clientY) / 2 - rect.top);
  }
  function end() {
    const ended = drag; drag = null;
    if (!ended || ended.kind === "pan") return;
    const [left, top, right, bottom] = state.regions[state.chosen].box_xyxy;
    if (ended.kind === "draw" && (right - left < LEAST || bottom - top < LEAST)) { state.regions.splice(state.chosen, 1); state.chosen = -1; state.undo.pop(); } else if (ended.kind === "draw") viewer.setDrawing(false);
    else if (!ended.moved) state.undo.pop(); // a click only chose
    changed(); sayChosen();
  }

  stage.addEventListener("wheel", (event) => { event.preventDefault(); const rect = stage.getBoundingClientRect(); zoom(Math.exp(-event.deltaY / 400), event.clientX - rect.left, event.clientY - rect.top); }, { passive: false });
  stage.addEventListener("pointerdown", (event) => {
    stage.setPointerCapture(event.pointerId); pointers.set(event.pointerId, event);
    if (pointers.size === 1) drag = begin(event, toPicture(event));
  });
  stage.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (!before) return;
    if (pointers.size === 2) pinch(event, before);
    else if (drag?.kind === "pan") { state.x += event.clientX - before.clientX; state.y += event.clientY - before.clientY; place(); } else if (drag) follow(toPicture(event));
    pointers.set(event.pointerId, event);
  });
  const lift = (event) => { if (pointers.delete(event.pointerId)) end(); };
  stage.addEventListener("pointerup", lift); stage.addEventListener("pointercancel", lift);

  // A box of a third of what is seen, in its middle.
  function addInMiddle() {
    const x = (stage.clientWidth / 2 - state.x) / state.scale, y = (stage.clientHeight / 2 - state.y) / state.scale;
    const half = [stage.clientWidth, stage.clientHeight].map((side, index) => Math.max(LEAST, Math.min(side / state.scale, [state.width, state.height][index]) / 6));
    add(spanBox([x - half[0], y - half[1]], [x + half[0], y + half[1]], state.width, state.height));
    viewer.setDrawing(false); changed(); sayChosen();
  }
  function nudge([dx, dy], isResize) {
    const region = state.regions[state.chosen], step = Math.max(1, STEP / state.scale);
    if (state.nudged !== state.chosen) remember(); // one undo for all key presses in a row
    state.nudged = state.chosen;
    region.box_xyxy = isResize ? resizeBox(region.box_xyxy, "se", dx * step, dy * step, state.width, state.height) : moveBox(region.box_xyxy, dx * step, dy * step, state.width, state.height);
    changed(); sayChosen();
  }
  function press(event) {
    const arrow = ARROWS[event.key], count = state.regions.length;
    if (arrow && editable && state.chosen >= 0) nudge(arrow, event.shiftKey);
    else if (arrow) { state.x -= 40 * arrow[0]; state.y -= 40 * arrow[1]; place(); } else if (event.key === "+" || event.key === "=") zoom(1.25);
    else if (event.key === "-") zoom(0.8);
    else if (event.key === "0") fit();
    else if (!editable) return false;
    else if (event.key === "PageDown" && count) choose((state.chosen + 1) % count);
    else if (event.key === "PageUp" && count) choose((Math.max(state.chosen, 0) + count - 1) % count);
    else if (event.key === "Escape" && (state.drawing || state.chosen >= 0)) { viewer.setDrawing(false); choose(-1); } else if (event.key === "Enter" && state.drawing) addInMiddle();
    else if (event.key === "Delete" || event.key === "Backspace") viewer.remove();
    else return false;
    return true;
  }
  stage.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !press(event)) return;
    event.preventDefault(); event.stopPropagation(); // Enter also confirms a review
  });
  new ResizeObserver(fit).observe(stage);

  const viewer = {
    stage, state, fit, zoom, draw, choose,
    show(item, regions = item.defects) {
      [state.width, state.height] = item.size_wh; state.regions = regions.map((region) => ({ ...region, box_xyxy: [...region.box_xyxy] })); state.chosen = -1; state.undo = []; state.nudged = -1;
      stage.setAttribute("aria-label", `Picture ${item.name}, ${item.decision ?? "waiting"}, ${regions.length} boxes. ${editable ? EDIT_HELP : HELP}`);
      photo.src = picture(item.picture); photo.alt = `${item.name}: ${item.decision ?? "waiting"}`;
      map.src = item.has_map ? `/api/inspections/${item.id}/map.png` : ""; masks.src = item.num_masks ? `/api/inspections/${item.id}/masks.png` : "";
      if (item.reference) reference.src = picture(item.reference);
      viewer.compare(0); fit();
    },
    showLayer(name, on) { ({ boxes, masks, map })[name].toggleAttribute("hidden", !on); if (name === "boxes") boxes.style.display = on ? "" : "none"; },
    compare(share) { reference.hidden = share === 0; reference.style.clipPath = `inset(0 ${100 - share}% 0 0)`; },
    setDrawing(on) { state.drawing = on; stage.classList.toggle("drawing", on); if (on) say("Drawing: drag over the picture, or press Enter for a box in the middle"); onchange(state.regions); },
    remove() { if (state.chosen < 0) return; remember(); state.regions.splice(state.chosen, 1); state.chosen = -1; state.nudged = -1; changed(); say("Box deleted"); },
    undo() { if (!state.undo.length) return false; state.regions = JSON.parse(state.undo.pop()); state.chosen = -1; state.nudged = -1; changed(); say("Undone"); return true; },
  };
  return viewer;
}

// The viewer with its switches: layers, comparison, zoom.
export function createPanel(item, options = {}) {
  const viewer = createViewer(options);
  const box = (name, title, on, there) => el("label", { class: "check" }, el("input", { type: "checkbox", checked: on, disabled: !there, onchange: (event) => viewer.showLayer(name, event.target.checked) }), title);
  const slider = item.reference && el("label", { class: "slider" }, "Reference", el("input", { type: "range", min: 0, max: 100, value: 0, oninput: (event) => viewer.compare(Number(event.target.value)) }));
  const button = (text, name, onclick) => el("button", { class: "small", type: "button", "aria-label": name, onclick }, text);
  const tools = el("div", { class: "tools" }, box("boxes", "Boxes", true, true), box("masks", "Masks", item.num_masks > 0, item.num_masks > 0), box("map", "Map", false, item.has_map), slider,
    el("span", { class: "end" }, button("−", "Zoom out", () => viewer.zoom(0.8)), button("+", "Zoom in", () => viewer.zoom(1.25)), button("Fit", "Fit the picture", viewer.fit)));
  const node = el("div", {}, viewer.stage, tools);
  queueMicrotask(() => { viewer.show(item, options.regions); viewer.showLayer("masks", item.num_masks > 0); });
  return { node, viewer };
}
