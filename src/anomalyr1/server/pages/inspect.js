import { ask, attempt, chooseProduct, el, main, picture, tell, verdict } from "./shell.js";
import { createDrop, cutIntoParcels } from "./files.js";
import { show } from "./result.js";

const bar = el("progress", { max: 1, value: 0, "aria-label": "Progress" }), told = el("p", { class: "soft" });
const progress = el("div", { class: "panel stack", hidden: true }, bar, told);
const strip = el("div", { class: "strip", role: "group", "aria-label": "Results" }), result = el("div", { "aria-live": "polite" });
const select = await chooseProduct();
const drop = createDrop("Drop or paste pictures or a folder here", attempt(inspect));
main.append(el("div", { class: "stack" }, el("div", { class: "row" }, el("label", { class: "field" }, "Product", select), el("a", { class: "button", href: "/products" }, "Products and references")), drop, progress, strip, result));

async function send(files) {
  const form = new FormData(); form.append("wait", "false");
  if (select.value) form.append("product_id", select.value);
  for (const file of files) form.append("pictures", file, file.name);
  const key = crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`;
  for (;;) {
    try { return (await ask("/api/inspect", { method: "POST", form, headers: { "Idempotency-Key": key } })).job; } catch (error) {
      if (error.status !== 429) throw error;
      told.textContent = "The queue is full: waiting for a place …";
      await new Promise((resolve) => setTimeout(resolve, 1000 * error.retrySeconds));
    }
  }
}

async function inspect(files) {
  progress.hidden = false; bar.max = files.length; let before = 0; const problems = [];
  for (const some of cutIntoParcels(files)) {
    told.textContent = `Sending ${some.length} of ${files.length} pictures …`;
    try { await follow(await send(some), (job) => { bar.value = before + job.done; told.textContent = `Looked at ${before + job.done} of ${files.length} pictures`; }); } catch (error) { problems.push(error.message); }
    before += some.length;
  }
  progress.hidden = true;
  if (problems.length) tell(problems.join(" "));
}

function follow(job, onprogress) {
  const seen = new Set();
  return new Promise((resolve, reject) => {
    const events = new EventSource(`/api/jobs/${job.id}/events`);
    events.onerror = () => { if (events.readyState === EventSource.CLOSED) reject(new Error("The connection broke; the results will be in the history.")); };
    let chain = Promise.resolve(); // one message after the other: a later one must not overtake
    events.onmessage = (message) => {
      const now = JSON.parse(message.data);
      if (now.state === "done") events.close();
      chain = chain.then(() => take(now)).catch(reject);
    };
    async function take(now) {
      onprogress(now);
      for (const id of now.inspections) {
        if (seen.has(id)) continue;
        const item = await ask(`/api/inspections/${id}`);
        if (item.state === "queued") break;
        seen.add(id);
        add(item);
      }
      if (now.state === "done") resolve();
    }
  });
}

function add(item) {
  const button = el("button", { type: "button", "aria-pressed": "false", onclick: () => choose(button, item) }, el("img", { src: picture(item.picture, "thumb"), alt: item.name }), verdict(item.decision));
  strip.prepend(button);
  drop.classList.add("slim"); // the results need the room
  choose(button, item);
}
function choose(button, item) {
  for (const other of strip.children) other.setAttribute("aria-pressed", other === button);
  result.replaceChildren(show(item));
}
