// One inspection in words: verdict, scores, defects, reasoning.
import { COLOURS, el, score, time, verdict } from "./shell.js";
import { createPanel } from "./viewer.js";

const meter = (name, value) => [el("span", { class: "soft" }, name), el("meter", { min: 0, max: 1, value: value ?? 0, "aria-label": name }), el("span", { class: "num" }, score(value))];

export function describe(item) {
  const differs = item.threshold !== null && item.verdict !== item.decision;
  return el("div", { class: "stack told" },
    el("div", { class: "panel stack" },
      verdict(item.decision, true),
      el("p", { class: "soft" }, item.name, item.product ? ` · ${item.product}` : "", ` · ${time(item.created_at)}`),
      item.error && el("p", { class: "notice" }, item.error),
      item.decision === "unread" && !item.error && el("p", { class: "notice" }, "The model's answer could not be read. It is not “normal”: look at the part."),
      differs && el("p", { class: "notice" }, `The product's threshold of ${score(item.threshold)} decides; the model says ${item.verdict}.`),
      el("div", { class: "scores" }, meter("Model", item.anomaly_score), meter("Detector", item.detector_score)),
      item.review && el("p", {}, "Reviewed: ", verdict(item.review.verdict), ` by ${item.review.reviewer}, ${time(item.review.created_at)}`, item.review.comment && `: ${item.review.comment}`)),
    item.defects.length > 0 && el("section", { class: "panel stack" }, el("h2", {}, "Defects"), el("ul", { class: "defects" }, item.defects.map((defect, index) => {
      const swatch = el("span", { class: "swatch" }); swatch.style.background = COLOURS[index % COLOURS.length];
      return el("li", {}, swatch, el("span", {}, el("b", {}, defect.label || "defect"), defect.description && ` – ${defect.description}`), el("span", { class: `tag ${defect.severity}`, title: "by the size of its box" }, defect.severity));
    }))),
    el("section", { class: "panel stack" }, el("h2", {}, "Reasoning"), el("p", { class: "said" }, item.reasoning || "None was given."), item.verdict === "unread" && item.raw_text && el("details", {}, el("summary", {}, "What the model wrote"), el("p", { class: "said" }, item.raw_text)), el("p", { class: "soft" }, `${item.model ?? ""}${item.weights_sha256 ? ` (${item.weights_sha256.slice(0, 12)})` : ""} · ${item.template_id ?? ""} · ${(item.seconds ?? 0).toFixed(2)} s`)));
}

export function show(item) {
  return el("div", { class: "two" }, createPanel(item).node, describe(item));
}
