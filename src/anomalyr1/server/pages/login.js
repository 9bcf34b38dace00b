import { attempt, el, main, tell } from "./shell.js";

const token = el("input", { type: "password", id: "token", autocomplete: "current-password", required: true });
main.append(el("form", { class: "panel stack", onsubmit: attempt(async (event) => {
  event.preventDefault();
  const answer = await fetch("/api/session", { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ token: token.value }) });
  if (answer.ok) location.href = "/"; else tell("This is not the token.");
}) }, el("label", { class: "field" }, "Token that the station was started with", token), el("button", { class: "primary" }, "Log in")));
