// The model at work, candidates measured beside it, and who promoted what.
import { ask, attempt, count, el, person, tell, time } from "./shell.js";

const TITLES = {
  verdict_balanced_accuracy: "Balanced accuracy", normal_accuracy: "Normal parts called normal", anomalous_accuracy: "Anomalous parts called anomalous",
  unread_rate: "Unread", image_auroc_model: "AUROC of the model", image_auroc_detector: "AUROC of the detector",
  box_accuracy_iou10: "Reviewers' boxes found", box_precision_iou10: "Boxes that meet a reviewer's",
};
const place = el("div");

export function showModel() {
  attempt(refresh)();
  return place;
}

async function refresh() {
  const now = await ask("/api/model");
  place.replaceChildren(el("section", { class: "panel stack" },
    el("h2", {}, "Model"),
    el("p", {}, "At work: ", el("b", {}, now.model || "loading …"), now.weights_sha256 && ` (weights ${now.weights_sha256.slice(0, 12)})`, now.is_pinned && " – fixed with --model"),
    now.problem && el("p", { class: "notice" }, now.problem),
    corrections(now),
    now.evaluations.map((evaluation) => candidate(evaluation, now.is_pinned)),
    now.promotions.length > 0 && decisions(now)));
}

function corrections(now) {
  return el("div", {},
    el("p", {}, el("b", {}, count(now.num_new_corrections, "new correction")), ` in ${count(now.num_new_reviews, "review")} since the last promotion; ${count(now.num_reviewed, "reviewed picture")} in all.`),
    el("p", { class: "soft" }, "“anomalyr1 adapt --from-store FOLDER” learns from them and measures a candidate on reviewed pictures that it did not see."));
}

const figure = ({ value, low, high }) => (value === null ? "–" : `${value.toFixed(2)}${low === null ? "" : ` (${low.toFixed(2)} to ${high.toFixed(2)})`}`);
const head = (titles) => el("thead", {}, el("tr", {}, titles.map((title) => el("th", { scope: "col" }, title))));
const row = (texts) => el("tr", {}, texts.map((text) => el("td", {}, text)));

function candidate({ id, created_at, is_current, is_against_current, comparison }, isPinned) {
  const { paired } = comparison;
  const rows = comparison.metrics.filter((metric) => metric.subset === "all");
  const promote = attempt(async () => {
    const name = person();
    if (!confirm(`Make ${comparison.candidate.model} the station's model?`)) return;
    await ask("/api/model/promote", { method: "POST", json: { evaluation: id, person: name } });
    tell("Promoted: it is loaded within seconds.");
    await refresh();
  });
  return el("details", { class: "candidate", open: is_against_current && !is_current },
    el("summary", {}, el("b", {}, "Candidate "), comparison.candidate.model, el("span", { class: "soft" }, ` · ${time(created_at)}${is_current ? " · at work" : is_against_current ? "" : " · measured beside an earlier model"}`)),
    el("div", { class: "stack" },
      el("div", { class: "scroll" }, el("table", {}, head(["On pictures held out", "n", "Present model", "Candidate"]), el("tbody", {}, rows.map((metric) => row([TITLES[metric.name] ?? metric.name, String(metric.candidate.n), figure(metric.current), figure(metric.candidate)]))))),
      el("p", { class: "soft" }, `Of ${count(comparison.num_pictures, "reviewed picture")} (${comparison.num_normal} normal, ${comparison.num_anomalous} anomalous), the candidate alone was right on ${paired.only_candidate}, the present model alone on ${paired.only_current}; p = ${paired.p_value.toFixed(3)}. In brackets: 95 % intervals.`),
      is_against_current && !is_current && !isPinned && el("div", {}, el("button", { class: "primary", type: "button", onclick: promote }, "Promote"))));
}

function decisions(now) {
  const back = attempt(async () => {
    const name = person();
    if (!confirm("Return to the model before?")) return;
    await ask("/api/model/rollback", { method: "POST", json: { person: name } });
    tell("Rolled back.");
    await refresh();
  });
  return [
    el("h3", {}, "Decisions"),
    el("div", { class: "scroll" }, el("table", {}, head(["When", "What", "Model", "Who", "Evaluation"]), el("tbody", {}, now.promotions.toReversed().map((made) => row([time(made.created_at), made.action, made.model, made.person, made.evaluation_id ? String(made.evaluation_id) : made.comment || "–"]))))),
    !now.is_pinned && el("div", {}, el("button", { type: "button", onclick: back }, "Roll back")),
  ];
}
