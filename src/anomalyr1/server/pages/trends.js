import { ask, attempt, chooseProduct, el, main, percent, svg } from "./shell.js";
import { showModel } from "./model.js";

const place = el("div", { class: "stack" });
const select = await chooseProduct(() => refresh(), "All products");
main.append(el("div", { class: "stack" }, el("label", { class: "field" }, "Product", select), place, showModel()));
let asked = 0;
const KINDS = ["normal", "anomalous", "unread"];

const refresh = attempt(async () => {
  const turn = ++asked;
  const wanted = new URLSearchParams({ zone: Intl.DateTimeFormat().resolvedOptions().timeZone });
  if (select.value) wanted.set("product_id", select.value);
  const trends = await ask(`/api/trends?${wanted}`);
  if (turn !== asked) return; // overtaken by a later question
  const tile = (title, share, says) => el("div", { class: "panel" }, el("dt", {}, title), el("dd", {}, percent(share.value), el("small", {}, share.n ? `${percent(share.low)} to ${percent(share.high)} · n = ${share.n}` : says)));
  place.replaceChildren(
    el("dl", { class: "tiles" }, el("div", { class: "panel" }, el("dt", {}, "Inspected"), el("dd", {}, String(trends.total), el("small", {}, "finished pictures"))), tile("Agreement", trends.agreement, "nothing reviewed yet"), tile("Overkill", trends.overkill, "no normal part reviewed yet"), tile("Miss", trends.miss, "no anomalous part reviewed yet")),
    el("section", { class: "panel stack" }, el("h2", {}, "Verdicts by day"), el("div", { class: "legend" }, KINDS.map((kind) => el("span", { class: kind }, kind))), el("div", { class: "scroll by-day" }, days(trends.days))),
    el("div", { class: "tiles" }, [["anomaly_score", "Scores of the model"], ["detector_score", "Scores of the detector"]].map(([name, title]) => el("section", { class: "panel stack" }, el("h2", {}, title), histogram(trends.scores[name])))));
  const shown = place.querySelector(".by-day"); shown.scrollLeft = shown.scrollWidth; // the latest days
});
function days(found) {
  if (!found.length) return el("p", { class: "soft" }, "Nothing inspected yet.");
  const most = Math.max(...found.map((day) => KINDS.reduce((sum, kind) => sum + (day[kind] ?? 0), 0)));
  const width = 900 / Math.max(found.length, 12), used = Math.min(60, width * 0.7), height = (count) => 150 * count / most;
  return svg("svg", { class: "chart days", viewBox: "0 0 960 210", role: "img", "aria-label": `Verdicts on ${found.length} days, at most ${most} a day` }, svg("line", { x1: 40, x2: 950, y1: 170, y2: 170 }), svg("text", { x: 34, y: 26, "text-anchor": "end" }, String(most)), svg("text", { x: 34, y: 174, "text-anchor": "end" }, "0"),
    found.flatMap((day, index) => {
      let top = 170; const x = 945 - width * (found.length - index) + (width - used) / 2; // the latest day at the right
      const bars = KINDS.filter((kind) => day[kind]).map((kind) => { const tall = height(day[kind]); top -= tall; return svg("rect", { class: kind, x, y: top, width: used, height: tall }, svg("title", {}, `${day.day}: ${day[kind]} ${kind}`)); });
      return index % Math.ceil(found.length / 12) ? bars : [...bars, svg("text", { x: x + used / 2, y: 192, "text-anchor": "middle" }, day.day.slice(5))];
    }));
}
function histogram(counts) {
  const most = Math.max(1, ...counts), width = 300 / counts.length;
  return svg("svg", { class: "chart", viewBox: "-18 -4 362 154", role: "img", "aria-label": `Histogram of ${counts.reduce((sum, count) => sum + count, 0)} scores from 0 to 1` }, counts.map((count, index) => svg("rect", { class: "accent", x: 20 + index * width, y: 120 - 110 * count / most, width: width - 1, height: 110 * count / most }, svg("title", {}, `${(index / counts.length).toFixed(2)}: ${count}`))), svg("line", { x1: 20, x2: 320, y1: 120, y2: 120 }), svg("text", { x: 14, y: 15, "text-anchor": "end" }, String(most)), svg("text", { x: 14, y: 124, "text-anchor": "end" }, "0"), [0, 0.5, 1].map((tick) => svg("text", { x: 20 + 300 * tick, y: 140, "text-anchor": "middle" }, String(tick))));
}
await refresh();
