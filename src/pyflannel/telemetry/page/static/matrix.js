// The matrix: who reaches whom, each row as its host tells it.

import { $, attribute, el, keyed, shown, text } from "./build.js";
import { legend, step } from "./map.js";
import { key, matrix, told } from "./model.js";
import { ago, age, both, isNumber, many, ms, now, percent } from "./words.js";

const OLD = 60; // seconds after which a row is faded
const FEW = 8; // hosts, up to which the names of columns are written across
const MARKS = { lossy: "%", unreachable: "✕", arrives: "→", unknown: "?", stranger: "–", reachable: "✓" };
const NAMES = { lossy: "loses packets", unreachable: "unreachable", arrives: "arrives, but no answer comes back", unknown: "not known", stranger: "not one of its peers" };
const TURNS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

const table = $("matrix");
const [head, body] = [table.tHead.rows[0], table.tBodies[0]];
let pointed = null; // the cell with the pointer over it, or with the focus

const row = (host) => matrix.rows.get(key(host)) ?? { to: [] };
const isHere = ([ipv4, ipv6]) => ipv4 === (told.lease?.subnet ?? null) && ipv6 === (told.lease?.ipv6_subnet ?? null);
const address = (host) => (isHere(host) ? both(told.host?.ipv4, told.host?.ipv6) : told.peers.get(key(host))?.host) || "no address";
const called = (host) => `${both(...host)} (${address(host)})`;
const untold = ({ why }) => (why ? `does not tell: ${why}` : "not asked yet");
const kind = ([is]) => (Object.hasOwn(MARKS, is) ? is : "unknown"); // a word of a later release is not known here
const isTimed = (seen) => ["reachable", "lossy"].includes(kind(seen)) && isNumber(seen[1]);

// A round trip in few characters, without its unit.
function brief(rtt) {
  const time = rtt * 1000;
  if (time >= 1000) return rtt < 100 ? `${rtt.toFixed(1)} s` : "> 99 s";
  return time.toFixed(time < 1 ? 2 : time < 10 ? 1 : 0);
}

function sentence(seen) {
  const [is, rtt, loss] = seen;
  if (!isTimed(seen)) return NAMES[kind(seen)] ?? is;
  return [ms(rtt), loss > 0 ? `${percent(loss)} lost` : loss === 0 && "no loss"].filter(Boolean).join(", ");
}

function fillCell(cell, seen) {
  const [is, rtt, loss] = seen;
  const said = isTimed(seen) ? [brief(rtt), loss > 0 ? el("small", {}, percent(loss)) : ""]
    : [el("span", { "aria-hidden": "true" }, MARKS[kind(seen)]), el("span", { class: "unseen" }, sentence(seen))];
  if (cell.textContent !== said.map((each) => each.textContent ?? each).join("")) cell.replaceChildren(...said);
  cell.className = `pair is-${kind(seen)}`;
  attribute(cell, "data-rtt", is === "reachable" && isTimed(seen) ? String(step(rtt)) : "");
}

function makeCell(name, host) {
  return name ? el("td", { class: name === "why" ? name : "self" }) : el("th", { scope: "row" }, host[0] ?? host[1], el("small"));
}

function fillRow(line, host) {
  const said = row(host); // another one if the hosts are others
  if (shown.get(line) === said) return;
  shown.set(line, said);
  const { to } = said;
  const columns = to.length ? matrix.hosts.map(key) : ["why"];
  keyed(line, ["", ...columns], (name) => name, (name) => makeCell(name, host), (cell, name) => {
    if (!name) {
      cell.classList.toggle("here", isHere(host));
      text(cell.lastChild, address(host));
    } else if (name === "why") {
      attribute(cell, "colspan", matrix.hosts.length);
      text(cell, untold(said));
    } else if (name !== key(host)) fillCell(cell, to[columns.indexOf(name)] ?? []);
  });
}

export function drawMatrix() {
  const { hosts, of } = matrix;
  $("whom").hidden = hosts.length < 2;
  if (hosts.length < 2) return;
  table.classList.toggle("few", hosts.length <= FEW);
  text($("shown"), of > hosts.length ? `${hosts.length} of ${many(of, "host")}: those in trouble first` : many(of, "host"));
  keyed(head, [[], ...hosts], key,
    (host) => (host.length ? el("th", { scope: "col" }, el("span", {}, host[0] ?? host[1])) : el("td", { "aria-hidden": "true" }, "ms, from ↓ to →")),
    (cell, host) => cell.classList.toggle("here", isHere(host)));
  keyed(body, hosts, key, () => el("tr"), fillRow);
  if (!body.querySelector("[tabindex]")) body.querySelector(".pair, .why")?.setAttribute("tabindex", 0);
  for (const mark of $("marks").children) mark.hidden = !body.querySelector(mark.dataset.of);
  ageRows();
  point(pointed);
}

export const drawMarks = () => $("marks").append(...legend(MARKS, NAMES));

export function ageRows() {
  matrix.hosts.forEach((host, number) => {
    const { at } = row(host);
    body.rows[number]?.classList.toggle("old", isNumber(at) && now() - at > OLD);
  });
}

// Have the row and the column of a cell stand out, and say below what it says.
function point(cell) {
  pointed = cell?.isConnected ? cell : null;
  for (const lit of table.querySelectorAll(".lit")) lit.classList.remove("lit", "at");
  const from = matrix.hosts[pointed?.parentElement.sectionRowIndex];
  if (!from) return text($("way"), "Point at a cell, or walk there with the arrow keys.");
  const { at, to } = row(from);
  const column = to.length ? pointed.cellIndex : 0;
  const across = column ? table.querySelectorAll(`tr > :nth-child(${column + 1}):not(.why)`) : [];
  for (const each of [...pointed.parentElement.cells, ...across]) each.classList.add("lit");
  pointed.classList.add("at");
  $("way").replaceChildren(called(from), ...(column
    ? [" → ", called(matrix.hosts[column - 1]), ": ", sentence(to[column - 1] ?? []), isNumber(at) ? ago(at, ", ") : ""]
    : [" ", untold(row(from))]));
  $("way").querySelectorAll("time").forEach(age);
}

const over = ({ target }) => point(target.closest(".pair, .why") ?? pointed);
const focused = () => point(document.activeElement.closest("#matrix td"));

table.addEventListener("pointerover", over);
table.addEventListener("focusin", over);
table.addEventListener("pointerleave", focused);
table.addEventListener("focusout", () => setTimeout(focused));
table.addEventListener("keydown", (event) => {
  const [down, right] = TURNS[event.key] ?? [];
  if (down === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  const at = ([y, x]) => body.rows[y]?.cells[down ? Math.min(x, body.rows[y].cells.length - 1) : x];
  let place = [event.target.parentElement.sectionRowIndex, event.target.cellIndex];
  do place = [place[0] + down, place[1] + right]; while (at(place)?.classList.contains("self")); // past the diagonal
  const next = at(place);
  if (next?.tagName !== "TD") return;
  event.target.removeAttribute("tabindex");
  next.setAttribute("tabindex", 0);
  next.focus();
});
