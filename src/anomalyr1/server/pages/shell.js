// What all pages share: building elements, asking the API, the header. Text is only ever set as
// text: there is no HTML from strings anywhere on these pages.
export const COLOURS = ["#ffb000", "#56b4e9", "#f0e442", "#e586bd", "#1ebe96", "#ff764a"];
const PAGES = [["/", "inspect", "Inspect"], ["/products", "products", "Products"], ["/history", "history", "History"], ["/review", "review", "Review"], ["/trends", "trends", "Trends"]];
const SVG = "http://www.w3.org/2000/svg";

// A file that is dropped beside a page's field for pictures must not take the page's place.
for (const kind of ["dragover", "drop"]) document.addEventListener(kind, (event) => event.preventDefault());

function fill(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "value" || key === "checked" || key === "disabled") node[key] = value;
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat(2).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}
export const el = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
export const svg = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

export async function ask(path, { method = "GET", json, form, headers = {} } = {}) {
  const options = { method, headers: { ...headers } };
  if (json !== undefined) { options.body = JSON.stringify(json); options.headers["content-type"] = "application/json"; }
  if (form) options.body = form;
  const answer = await fetch(path, options);
  if (answer.status === 401) { location.href = "/login"; throw new Error("log in first"); }
  const body = answer.status === 204 ? null : await answer.json().catch(() => ({ detail: answer.statusText }));
  if (!answer.ok) {
    const error = new Error(typeof body.detail === "string" ? body.detail : `error ${answer.status}`);
    error.status = answer.status;
    error.retrySeconds = Number(answer.headers.get("retry-after")) || 2;
    throw error;
  }
  return body;
}

let fading;
export function tell(text) {
  document.getElementById("status").textContent = text;
  clearTimeout(fading);
  fading = setTimeout(() => { document.getElementById("status").textContent = ""; }, 5000);
}
export const attempt = (action) => async (...given) => { try { return await action(...given); } catch (error) { tell(error.message); } };

export const verdict = (name, large = false) => el("span", { class: `verdict ${name ?? "unread"}${large ? " large" : ""}` }, name ?? "waiting");
export const percent = (value) => (value === null || value === undefined ? "–" : `${Math.round(100 * value)} %`);
export const score = (value) => (value === null || value === undefined ? "–" : value.toFixed(2));
export const time = (text) => (text ? new Date(text).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" }) : "");
export const count = (number, one) => `${number} ${one}${number === 1 ? "" : "s"}`;
export const picture = (hash, size = "view") => `/api/pictures/${hash}?size=${size}`;
export const main = document.getElementById("main");

export function person() {
  const field = document.getElementById("person");
  if (!field.value.trim()) { field.focus(); throw new Error("Write your name at the top first: reviews keep who and when."); }
  return field.value.trim();
}

export async function chooseProduct(onchange, any = "No product") {
  const select = el("select", { id: "product", onchange: () => onchange?.(select.value) }, el("option", { value: "" }, any));
  for (const product of await ask("/api/products")) select.append(el("option", { value: product.id }, `${product.name} (${count(product.num_references, "reference")})`));
  const wanted = new URLSearchParams(location.search).get("product");
  if (wanted) select.value = wanted;
  return select;
}

const page = document.body.dataset.page;
const field = el("input", { id: "person", autocomplete: "name", maxlength: 200, placeholder: "your name", value: localStorage.getItem("person") ?? "", oninput: () => localStorage.setItem("person", field.value) });
document.querySelector(".top").append(
  el("a", { class: "brand", href: "/" }, el("img", { src: "/static/icon.svg", alt: "" }), "AnomalyR1"),
  page === "login" ? "" : el("nav", { "aria-label": "Pages" }, el("ul", {}, PAGES.map(([href, name, title]) => el("li", {}, el("a", { href, "aria-current": name === page ? "page" : null }, title))))),
  page === "login" ? "" : el("div", { class: "who" }, el("label", { for: "person" }, "Reviewer"), field),
);
