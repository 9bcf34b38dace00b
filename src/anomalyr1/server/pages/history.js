import { ask, attempt, chooseProduct, count, el, main, picture, time, verdict } from "./shell.js";
import { show } from "./result.js";

const SIZE = 48;
let page = 1, asked = 0;
const cards = el("div", { class: "cards" }), total = el("p", { class: "soft", "aria-live": "polite" }), pager = el("div", { class: "row" }), exports_ = el("div", { class: "row" });
const option = (value, title) => el("option", { value }, title);
const fields = {
  q: el("input", { type: "search", maxlength: 200, placeholder: "name, label, comment" }), product_id: await chooseProduct(null, "All products"),
  decision: el("select", {}, option("", "Any"), option("anomalous", "Anomalous"), option("normal", "Normal"), option("unread", "Unread")),
  reviewed: el("select", {}, option("", "Any"), option("true", "Reviewed"), option("false", "Not reviewed")), reviewer: el("input", { maxlength: 200 }),
  disagreement: el("select", {}, option("", "Any"), option("true", "Disagreement"), option("false", "Agreement")), since: el("input", { type: "date" }), until: el("input", { type: "date" }),
  sort: el("select", {}, option("newest", "Newest"), option("oldest", "Oldest"), option("uncertain", "Most uncertain"), option("score", "Highest score")),
};
const titles = { q: "Search", product_id: "Product", decision: "Verdict", reviewed: "Review", reviewer: "Reviewer", disagreement: "Model and reviewer", since: "From", until: "To", sort: "Order" };
main.append(el("div", { class: "stack" }, el("form", { class: "panel filters", role: "search", onsubmit: (event) => event.preventDefault(), onchange: () => { page = 1; refresh(); } }, Object.entries(fields).map(([name, field]) => el("label", { class: "field" }, titles[name], field))), el("div", { class: "row" }, total, exports_), cards, pager));

// A day here is one of this browser's time zone, as the times on the cards are; the station keeps UTC.
const ENDS = { since: "00:00:00", until: "23:59:59.999" };
const read = (name, { value }) => (value && name in ENDS ? new Date(`${value}T${ENDS[name]}`).toISOString() : value);
const query = () => new URLSearchParams(Object.entries(fields).map(([name, field]) => [name, read(name, field)]).filter(([, value]) => value));
const refresh = attempt(async () => {
  const wanted = query(), turn = ++asked;
  exports_.replaceChildren(...[["csv", "CSV"], ["coco", "COCO"], ["records", "Records"]].map(([kind, title]) => el("a", { class: "button", href: `/api/exports/${kind}?${wanted}`, download: "" }, title)));
  const found = await ask(`/api/inspections?${wanted}&page=${page}&page_size=${SIZE}`);
  if (turn !== asked) return; // overtaken by a later question
  total.textContent = count(found.total, "inspection");
  cards.replaceChildren(...found.inspections.map((item) => el("button", { class: "card", type: "button", onclick: attempt(() => open(item.id)) }, el("img", { src: picture(item.picture, "thumb"), alt: "", loading: "lazy" }), el("span", { class: "body" }, verdict(item.decision), el("span", { class: "name" }, item.name), item.product && el("span", { class: "soft cut", title: item.product }, item.product), el("span", { class: "soft" }, time(item.created_at)), item.review && el("span", { class: "soft" }, `${item.review.verdict} by ${item.review.reviewer}`)))));
  if (!found.total) cards.replaceChildren(el("p", { class: "empty" }, "Nothing here yet."));
  const pages = Math.max(1, Math.ceil(found.total / SIZE));
  pager.replaceChildren(...(pages > 1 ? [el("button", { disabled: page === 1, onclick: () => { page -= 1; refresh(); } }, "Back"), el("span", {}, `${page} of ${pages}`), el("button", { disabled: page === pages, onclick: () => { page += 1; refresh(); } }, "Next")] : []));
});
async function open(id) {
  const item = await ask(`/api/inspections/${id}`);
  const dialog = el("dialog", { "aria-label": item.name }, el("div", { class: "stack" }, el("div", { class: "row" }, el("a", { class: "button", href: `/review?id=${id}` }, "Review"), el("button", { onclick: () => dialog.close() }, "Close")), show(item)));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog); dialog.showModal();
}
await refresh();
