// The table of peers.

import { $, el, icon, keyed, shown, text } from "./build.js";
import { ROWS, STATES, compared, draw, inOrder, order, told, view } from "./model.js";
import { age, ago, bytes, isNumber, many, ms, percent } from "./words.js";

// `by` is what a column is sorted by; `down`, that the largest comes first unless asked otherwise.  Unknown comes last.
const COLUMNS = [
  { name: "state", title: "State", by: (peer) => STATES.indexOf(peer.is) },
  { name: "subnet", title: "Subnet", by: (peer) => peer.order },
  { name: "host", title: "Host", by: (peer) => order(peer.public_ip ?? peer.public_ipv6) },
  { name: "rtt", title: "Round trip", by: (peer) => peer.rtt, down: true, number: true },
  { name: "loss", title: "Loss", by: (peer) => peer.loss, down: true, number: true },
  { name: "mtu", title: "MTU", by: (peer) => peer.mtu, number: true },
  { name: "heard", title: "Answered", by: (peer) => peer.heard },
  { name: "changed", title: "Changed", by: (peer) => peer.changed, down: true },
  { name: "passed", title: "Out, in", by: (peer) => peer.tx_bytes, down: true, number: true },
  { name: "reason", title: "Reason", by: (peer) => peer.reason || null },
];

function chosen() {
  const words = view.search.toLowerCase().split(/\s+/).filter(Boolean);
  const { by } = COLUMNS.find((column) => column.name === view.sort);
  const turn = view.down ? -1 : 1;
  return inOrder()
    .filter((peer) => (!view.state || peer.is === view.state) && words.every((word) => peer.search.includes(word)))
    .sort((one, other) => (by(one) == null) - (by(other) == null) || turn * compared(by(one), by(other)));
}

function word(peer) {
  // A word of a later release is shown as it is.
  return el("span", { class: `word is-${peer.is}` }, icon(peer.is), String(peer.state ?? peer.is));
}

function gauge(rtt) {
  const filled = el("i");
  // From a tenth of a millisecond to a second, each ten times as long taking as much room.
  filled.style.width = `${Math.min(100, Math.max(4, (Math.log10(rtt) + 4) * 25))}%`;
  return el("span", { class: "gauge", "aria-hidden": "true" }, filled);
}

// The page of that host, if this one is not only there for this host: then those of others are at their addresses, too.
function host(peer) {
  const isHere = ["localhost", "[::1]"].includes(location.hostname) || location.hostname.startsWith("127.");
  if (isHere || !/^[0-9.]+$/.test(peer.public_ip ?? "")) return [peer.host];
  const href = `http://${peer.public_ip}${location.port ? `:${location.port}` : ""}/`;
  const link = el("a", { href, rel: "noreferrer", title: "The page of that host, if it serves one" }, peer.public_ip);
  return [link, peer.public_ipv6 ? ` ${peer.public_ipv6}` : ""];
}

const CELLS = {
  state: (peer) => [word(peer)],
  subnet: (peer) => [peer.name],
  host,
  rtt: (peer) => (isNumber(peer.rtt) ? [gauge(peer.rtt), ms(peer.rtt)] : []),
  loss: (peer) => (isNumber(peer.loss) ? [percent(peer.loss)] : []),
  mtu: (peer) => (isNumber(peer.mtu) ? [String(peer.mtu)] : []),
  heard: (peer) => (isNumber(peer.heard) ? [ago(peer.heard)] : []),
  changed: (peer) => (isNumber(peer.changed) ? [ago(peer.changed)] : []),
  passed: (peer) => (isNumber(peer.tx_bytes) ? [`${bytes(peer.tx_bytes)}, ${bytes(peer.rx_bytes ?? 0)}`] : []),
  reason: (peer) => (peer.reason ? [el("span", { class: "said" }, String(peer.reason))] : []),
};

function fillRow(row, peer) {
  if (shown.get(row) === peer) return;
  const before = shown.get(row);
  shown.set(row, peer);
  row.toggleAttribute("data-lossy", peer.loss > 0);
  for (const cell of row.children) {
    const made = CELLS[cell.dataset.of](peer).filter((each) => each !== "");
    const same = before && cell.textContent === made.map((each) => each.textContent ?? each).join("");
    if (same && cell.dataset.of !== "rtt" && cell.dataset.of !== "state") continue;
    cell.replaceChildren(...made);
    cell.querySelectorAll("time").forEach(age);
  }
}

// A table that is laid out otherwise, as on a phone, is one to a screen reader only if that is said.
function makeRow() {
  return el("tr", { role: "row" }, ...COLUMNS.map((column) =>
    el("td", { role: "cell", "data-of": column.name, "data-label": column.title, class: column.number ? "number" : "" })));
}

export function drawPeers() {
  if ($("search").value !== view.search) $("search").value = view.search;
  const found = chosen();
  const body = document.querySelector("#peers tbody");
  const passed = [...told.peers.values()].some((peer) => isNumber(peer.tx_bytes));
  keyed(body, found.slice(0, view.rows), (peer) => peer.key, makeRow, fillRow);
  for (const cell of document.querySelectorAll('#peers [data-of="passed"]')) cell.hidden = !passed;
  const all = told.peers.size;
  text($("count"), found.length === all ? many(all, "peer") : `${found.length.toLocaleString("en")} of ${many(all, "peer")}`);
  const rest = found.length - view.rows;
  $("more").hidden = rest <= 0;
  text($("more"), `Show ${many(Math.min(rest, 5 * ROWS), "more peer", "more peers")}`);
}

export function drawHead() {
  const row = el("tr", { role: "row" });
  for (const column of COLUMNS) {
    const button = el("button", { type: "button" }, column.title);
    button.addEventListener("click", () => {
      view.down = view.sort === column.name ? !view.down : Boolean(column.down);
      view.sort = column.name;
      sortedBy();
      draw();
    });
    row.append(el("th", { scope: "col", role: "columnheader", "data-of": column.name, class: column.number ? "number" : "" }, button));
  }
  document.querySelector("#peers thead").append(row);
  for (const part of document.querySelectorAll("#peers thead, #peers tbody")) part.setAttribute("role", "rowgroup");
  $("peers").setAttribute("role", "table");
  sortedBy();
}

function sortedBy() {
  for (const cell of document.querySelectorAll("#peers th")) {
    if (cell.dataset.of === view.sort) cell.setAttribute("aria-sort", view.down ? "descending" : "ascending");
    else cell.removeAttribute("aria-sort");
  }
}
