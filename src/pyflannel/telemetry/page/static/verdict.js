// How it is: in a word, in the number of peers of each kind, and in the conditions.

import { $, attribute, el, icon, keyed, text } from "./build.js";
import { SEVERITIES, STATES, choose, told, view } from "./model.js";
import { isNumber, many, since } from "./words.js";

const LINES = 6; // of one kind of condition; further ones are counted

export function verdict() {
  const phase = told.agent?.phase;
  const count = (severity) => told.conditions.filter((each) => each.severity === severity).length;
  if (count("error")) return ["error", `${many(count("error") + count("warning"), "trouble")} to see to`];
  if (phase === "waiting") return ["notice", "Waiting for a network configuration or a lease"];
  if (phase !== "running") return ["notice", `The agent is ${phase}`];
  if (count("warning")) return ["warning", `It works, with ${many(count("warning"), "trouble")} to see to`];
  const isAnyKnown = [...told.peers.values()].some((peer) => peer.is !== "unknown");
  return isAnyKnown || !told.peers.size ? ["reachable", "All is well"] : ["notice", "Nothing is wrong that is known of"];
}

function counted() {
  const counts = new Map();
  for (const peer of told.peers.values()) counts.set(peer.is, (counts.get(peer.is) ?? 0) + 1);
  return STATES.toReversed().filter((name) => counts.has(name) || name === view.state).map((name) => [name, counts.get(name) ?? 0]);
}

export function drawVerdict() {
  const [severity, said] = verdict();
  const title = $("verdict");
  if (title.dataset.said !== said) {
    title.dataset.said = said;
    title.className = `is-${severity}`;
    title.replaceChildren(icon(severity), said);
  }
  keyed($("states"), counted(), ([name]) => name, ([name]) => {
    const button = el("button", { type: "button", class: `is-${name}` }, el("span", { class: "word" }, icon(name)), el("b"), ` ${name}`);
    button.addEventListener("click", () => choose(view.state === name ? "" : name, view.search));
    return button;
  }, (button, [name, count]) => {
    text(button.querySelector("b"), count.toLocaleString("en"));
    attribute(button, "aria-pressed", String(view.state === name));
  });
}

// One box for each kind, however many there are of it

export function drawConditions() {
  const kinds = new Map();
  for (const each of told.conditions) {
    if (!kinds.has(each.code)) kinds.set(each.code, []);
    kinds.get(each.code).push(each);
  }
  $("conditions").hidden = !kinds.size;
  keyed($("conditions"), [...kinds.values()], ([first]) => first.code, makeCondition, fillCondition);
}

function makeCondition([first]) {
  const severity = SEVERITIES.includes(first.severity) ? first.severity : "notice";
  return el("article", { class: `panel condition is-${severity}` },
    el("h3", {}, el("span", { class: "word" }, icon(severity), severity), el("span", { class: "mono" }, String(first.code)), el("time")),
    el("ul"),
    el("dl", {}, el("dt", {}, "What it means"), el("dd", {}, String(first.means)),
      el("dt", {}, "What to do"), el("dd", {}, String(first.remedy))));
}

function fillCondition(box, all) {
  const begun = Math.min(...all.map((each) => each.since).filter(isNumber));
  if (isNumber(begun)) since(box.querySelector("time"), begun, "for ");
  const lines = all.slice(0, LINES).map((each) => [String(each.subject), String(each.text)]);
  if (all.length > LINES) lines.push([" more", `and ${all.length - LINES} more of this kind`]);
  keyed(box.querySelector("ul"), lines, ([subject]) => subject, () => el("li", { class: "said" }), (line, [, said]) => text(line, said));
}

// Said by a screen reader: what has come and what is over, and not how long it has been there.
export function announce(before) {
  const name = (each) => `${each.code} ${each.subject}`;
  const [were, are] = [before, told.conditions].map((list) => new Map(list.map((each) => [name(each), each])));
  const come = told.conditions.filter((each) => !were.has(name(each))).map((each) => `New ${each.severity}: ${each.text}`);
  const went = before.filter((each) => !are.has(name(each))).map((each) => `Over: ${each.code} ${each.subject}`);
  const said = [...come, ...went];
  if (said.length) text($("announced"), said.slice(0, 3).join(". ") + (said.length > 3 ? `. And ${said.length - 3} more.` : ""));
}
