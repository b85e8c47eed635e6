// The map: this host, its peers, and how the links between them are.

import { $, el, icon, keyed, shown, svg, text } from "./build.js";
import { STATES, choose, inOrder, told, worstFirst } from "./model.js";
import { both, isNumber, many, ms, percent } from "./words.js";

const CARDS = 24; // where there are more peers, only those in trouble have one each
const MARKS = { unreachable: "×", failed: "!", lossy: "~", ignored: "–", unknown: "?", reachable: "" };
const STEPS = [0.0005, 0.002, 0.01, 0.05]; // seconds of a round trip, where the colour of a cell changes
const STEP_NAMES = ["≤ 0.5 ms", "≤ 2 ms", "≤ 10 ms", "≤ 50 ms", "longer"];

const SPINE = 14; // where the line is that leads down to the cards, if they are below the host

export const step = (rtt) => STEPS.filter((limit) => rtt > limit).length + 1;

function cards() {
  const all = inOrder();
  if (all.length <= CARDS) return all;
  const alone = all.filter((peer) => !["reachable", "unknown"].includes(peer.is))
    .sort(worstFirst).slice(0, CARDS / 2);
  const groups = new Map();
  for (const peer of all) {
    if (alone.includes(peer)) continue;
    if (!groups.has(peer.is)) groups.set(peer.is, { key: peer.is, is: peer.is, group: [], isRest: alone.some(({ is }) => is === peer.is) });
    groups.get(peer.is).group.push(peer);
  }
  return [...alone, ...[...groups.values()].sort(worstFirst)];
}

function makeCard(item) {
  const button = el("button", { type: "button" },
    el("span", { class: "shape" }), el("span", { class: "mono" }), el("span", { class: "rtt" }),
    el("span", { class: "sub" }, el("span"), el("span", { class: "how" })));
  button.addEventListener("click", () => {
    const { group, is, name } = shown.get(button);
    choose(group ? is : "", group ? "" : name);
    $("peers-title").scrollIntoView();
  });
  return el("li", {}, button);
}

function fillCard(place, item) {
  const button = place.firstChild;
  const before = shown.get(button);
  if (before === item) return;
  shown.set(button, item);
  const [shape, title, rtt, sub] = button.children;
  const [left, how] = sub.children;
  button.className = `card is-${item.is}`;
  if (before?.is !== item.is) shape.replaceChildren(icon(item.is));
  const times = (item.group ?? [item]).map((peer) => peer.rtt).filter(isNumber).sort((one, other) => one - other);
  if (item.group) {
    text(title, many(item.group.length, item.isRest ? "more peer" : "peer"));
    text(rtt, times.length ? `median ${ms(times[times.length >> 1])}` : "");
    text(left, times.length ? `${ms(times[0])} to ${ms(times[times.length - 1])}` : "");
    text(how, item.is);
  } else {
    text(title, item.name);
    text(rtt, times.length ? ms(times[0]) : "");
    text(left, item.host);
    text(how, item.is === "lossy" && isNumber(item.loss) ? `lossy, ${percent(item.loss)}` : item.is);
  }
}

export function drawMap() {
  const all = cards();
  const half = Math.ceil(all.length / 2);
  keyed($("left"), all.slice(0, half), (item) => item.key, makeCard, fillCard);
  keyed($("right"), all.slice(half), (item) => item.key, makeCard, fillCard);
  keyed($("hub"), ["name", "subnet", "address"], (line) => line,
    (line) => el(line === "name" ? "b" : "span", { class: line === "subnet" ? "mono" : "" }),
    (node, line) => text(node, {
      name: told.host?.name ?? "this host",
      subnet: both(told.lease?.subnet, told.lease?.ipv6_subnet) || "no lease yet",
      address: both(told.host?.ipv4, told.host?.ipv6) || "no address yet",
    }[line]));
  drawLinks();
  drawCells();
}

export function drawLinks() {
  const [map, hub] = [$("map").getBoundingClientRect(), $("hub").getBoundingClientRect()];
  const lines = [...document.querySelectorAll(".card")].map((card) => {
    const box = card.getBoundingClientRect();
    return { is: shown.get(card).is, ...link(map, hub, box) };
  });
  const below = lines.filter((each) => each.isBelow);
  const spine = below.length ? [svg("path", { class: "spine", d: `M${SPINE} ${hub.bottom - map.top}V${below.at(-1).y - 8}` })] : [];
  $("links").replaceChildren(...spine, ...lines.flatMap(({ is, d, x, y }) => {
    const path = svg("path", { class: `is-${is}`, d });
    if (is !== "unreachable" && is !== "failed") return [path];
    const cross = svg("g", { class: `cut is-${is}`, transform: `translate(${x} ${y})` },
      svg("circle", { r: 8 }), svg("path", { d: "M-3.4-3.4 3.4 3.4M3.4-3.4-3.4 3.4" }));
    return [path, cross];
  }));
}

// From the hub to a card: where the path goes, and the middle of it.
function link(map, hub, box) {
  const y = Math.round(box.top + box.height / 2 - map.top);
  if (box.left < hub.right && box.right > hub.left) { // below it, as on a phone
    const end = Math.round(box.left - map.left);
    return { d: `M${SPINE} ${y - 8}Q${SPINE} ${y} ${SPINE + 8} ${y}H${end}`, x: SPINE + 8, y, isBelow: true };
  }
  const start = (box.left < hub.left ? hub.left : hub.right) - map.left;
  const end = (box.left < hub.left ? box.right : box.left) - map.left;
  const [from, middle] = [Math.round(hub.top + hub.height / 2 - map.top), (start + end) / 2];
  return { d: `M${start} ${from}C${middle} ${from} ${middle} ${y} ${end} ${y}`, x: middle, y: (from + y) / 2 };
}

// A cell for each peer, where there are too many for a card each.
function drawCells() {
  const isBig = told.peers.size > CARDS;
  $("row").hidden = !isBig;
  if (!isBig) return;
  keyed($("cells"), inOrder(), (peer) => peer.key, () => el("span"), (cell, peer) => {
    if (shown.get(cell) === peer) return;
    shown.set(cell, peer);
    cell.className = `cell is-${peer.is}`;
    cell.dataset.rtt = peer.is === "reachable" && isNumber(peer.rtt) ? step(peer.rtt) : "";
    cell.title = [peer.name, peer.is, isNumber(peer.rtt) ? ms(peer.rtt) : ""].filter(Boolean).join(", ");
    text(cell, MARKS[peer.is]);
  });
}

export function legend(marks, names) {
  const line = (of, name, shape, mark = "") => el("span", { "data-of": `td${of}` }, el("i", shape, mark), name);
  return [...STEP_NAMES.map((name, number) => line(`[data-rtt="${number + 1}"]`, name, { class: "cell", "data-rtt": number + 1 })),
    ...Object.keys(names).map((is) => line(`.is-${is}`, names[is], { class: `cell is-${is}` }, marks[is]))];
}

export function drawLegend() {
  $("legend").append(...legend(MARKS, Object.fromEntries(STATES.slice(0, -1).map((name) => [name, name]))));
}
