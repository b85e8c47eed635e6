// What was told, and what of it is to be seen.

import { both } from "./words.js";

export const ROWS = 60; // of the table, until more are asked for
export const STATES = ["unreachable", "failed", "lossy", "ignored", "unknown", "reachable"]; // the worst first
export const SEVERITIES = ["error", "warning", "notice"];

export const told = { peers: new Map(), conditions: [] };
export const matrix = { of: 0, hosts: [], rows: new Map() };
export const view = { search: "", state: "", sort: "state", down: false, rows: ROWS };

export const key = (subnets) => JSON.stringify(subnets);

// As text that sorts as the subnets do.
export function order(subnet) {
  const [address, length] = (subnet ?? "").split("/");
  if (!address.includes(":")) return address.split(".").map((part) => part.padStart(3, "0")).join(".") + length;
  const [head, tail] = address.split("::");
  const left = head ? head.split(":") : [];
  const right = tail ? tail.split(":") : [];
  const middle = Array(Math.max(0, 8 - left.length - right.length)).fill("0");
  return `v6 ${[...left, ...middle, ...right].map((part) => part.padStart(4, "0")).join(":")}/${length}`;
}

export function learn(peer) {
  peer.key = key([peer.subnet ?? null, peer.ipv6_subnet ?? null]);
  peer.order = order(peer.subnet ?? peer.ipv6_subnet);
  peer.is = STATES.includes(peer.state) ? peer.state : "unknown";
  peer.name = both(peer.subnet, peer.ipv6_subnet);
  peer.host = both(peer.public_ip, peer.public_ipv6);
  peer.search = [peer.name, peer.host, peer.state, peer.reason, peer.backend].join(" ").toLowerCase();
  told.peers.set(peer.key, peer);
}

let isDue = false;
let drawAll = () => {};
export const drawWith = (all) => { drawAll = all; };

// Have everything drawn, once for all that happens until the next frame.
export function draw() {
  if (isDue) return;
  isDue = true;
  requestAnimationFrame(() => { isDue = false; drawAll(); });
}

export function choose(state, search) {
  Object.assign(view, { state, search, rows: ROWS });
  draw();
}

export function compared(one, other) {
  return one < other ? -1 : one > other ? 1 : 0;
}

export const worstFirst = (one, other) => STATES.indexOf(one.is) - STATES.indexOf(other.is);
export const inOrder = () => [...told.peers.values()].sort((one, other) => compared(one.order, other.order));
