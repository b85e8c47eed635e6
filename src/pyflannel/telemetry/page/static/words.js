// How values are said.

import { el, text } from "./build.js";

export const clock = { skew: 0 }; // seconds by which the agent's clock is ahead of ours
export const now = () => Date.now() / 1000 + clock.skew;

function span(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  for (const [unit, smaller, size, part] of [["d", "h", 86400, 3600], ["h", "m", 3600, 60], ["m", "s", 60, 1]]) {
    if (whole >= size) return `${Math.floor(whole / size)}${unit} ${Math.floor((whole % size) / part)}${smaller}`;
  }
  return `${whole}s`;
}

export const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
export const both = (one, other) => [one, other].filter(Boolean).join(" ");
export const ms = (seconds) => `${(seconds * 1000).toFixed(seconds < 0.01 ? 2 : seconds < 0.1 ? 1 : 0)} ms`;
export const percent = (share) => (share > 0 && share < 0.01 ? "< 1 %" : `${Math.round(share * 100)} %`);
export const many = (count, one, more = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : more}`;

function scaled(value, units) {
  let step = 0;
  while (value >= 1000 && step < units.length - 1) { value /= 1000; step += 1; }
  return `${value.toFixed(step && value < 100 ? 1 : 0)} ${units[step]}`;
}
export const bytes = (count) => scaled(count, ["B", "kB", "MB", "GB", "TB", "PB"]);
export const bits = (rate) => scaled(rate * 8, ["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"]);

// A point in time, said as a stretch that grows.
export const ago = (at, before = "", after = " ago") => el("time", { "data-at": at, "data-before": before, "data-after": after });
export function since(node, at, before) {
  Object.assign(node.dataset, { at, before, after: "" });
  age(node);
}
export function age(node) {
  const { at, before, after } = node.dataset;
  text(node, `${before}${span(Math.abs(now() - Number(at)))}${after}`);
}
export const ageAll = () => document.querySelectorAll("time[data-at]").forEach(age);
