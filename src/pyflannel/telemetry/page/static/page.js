// The page: takes in what the agent's events say, and has it drawn.

import { $, attribute, text } from "./build.js";
import { drawFacts, sample } from "./facts.js";
import { drawLegend, drawLinks, drawMap } from "./map.js";
import { ageRows, drawMarks, drawMatrix } from "./matrix.js";
import { ROWS, choose, draw, drawWith, key, learn, matrix, told, view } from "./model.js";
import { drawHead, drawPeers } from "./peers.js";
import { announce, drawConditions, drawVerdict, verdict } from "./verdict.js";
import { ageAll, both, clock, isNumber, since } from "./words.js";

const RETRY = 10; // seconds until we try again where we were refused
const SILENCE = 15; // seconds without a word after which the agent counts as lost; it tells the time every five

const main = document.querySelector("main");
let source = null;
let isWhole = false; // everything was told once
let heardAt = 0;

function drawHeader() {
  const { agent = {}, host: ours = {}, network = {} } = told;
  const [severity, said] = verdict();
  text($("name"), ours.name || "flannel");
  const parts = [both(network.ipv4, network.ipv6), network.backend && `${network.backend}${network.device ? ` on ${network.device}` : ""}`,
    network.vni != null && `VNI ${network.vni}`, network.port != null && `UDP ${network.port}`, network.mtu != null && `MTU ${network.mtu}`];
  text($("network"), network.backend ? parts.filter(Boolean).join(" · ") : `no network yet, looking at ${network.prefix ?? ""}/config`);
  text($("agent"), `flanneld ${agent.version ?? ""}, process ${agent.pid ?? ""}`);
  if (isNumber(agent.started)) since($("up"), agent.started, ", up ");
  const title = `${{ error: "✕ ", warning: "! " }[severity] ?? ""}${ours.name || "flannel"}: ${said}`;
  if (document.title !== title) document.title = title;
}

drawWith(() => {
  main.hidden = false;
  for (const each of [drawHeader, drawVerdict, drawConditions, drawMap, drawMatrix, drawPeers, drawFacts]) each();
});

function on(event, handle) {
  source.addEventListener(event, ({ data }) => {
    heardAt = performance.now();
    handle(JSON.parse(data));
    if (isWhole) live("live", "live");
  });
}

function take({ peers = [], ...parts }) {
  const before = told.conditions;
  Object.assign(told, parts);
  peers.forEach(learn);
  if (isWhole) announce(before);
  isWhole = true;
  draw();
}

function live(is, said) {
  attribute($("live"), "data-is", is);
  text($("live"), said);
  main.classList.toggle("stale", is === "lost");
}

function lost() {
  const last = new Date(Date.now() - (performance.now() - heardAt)).toLocaleTimeString();
  live("lost", isWhole ? `lost, as of ${last}` : "not connected");
}

function listen() {
  source?.close();
  source = new EventSource("events");
  on("time", (at) => { clock.skew = at - Date.now() / 1000; });
  on("all", (status) => { told.peers.clear(); matrix.hosts = []; take(status); });
  on("some", take);
  on("gone", (names) => { names.forEach((subnets) => told.peers.delete(key(subnets))); draw(); });
  on("hosts", (shown) => { Object.assign(matrix, shown, { rows: new Map() }); draw(); });
  on("row", (row) => { matrix.rows.set(key(row.from), row); draw(); });
  source.onerror = () => {
    lost();
    // Refused, as by an agent at which too many listen already: the browser leaves it at that, and we do not.
    if (source.readyState === EventSource.CLOSED) setTimeout(() => { if (!document.hidden) listen(); }, RETRY * 1000);
  };
}

// A page that nobody sees listens to nothing.
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) listen();
  else source?.close();
});

setInterval(() => {
  if (document.hidden) return;
  ageAll();
  ageRows();
  if (!isWhole) return;
  sample();
  drawFacts();
  if (performance.now() - heardAt > SILENCE * 1000) {
    lost();
    if (source.readyState === EventSource.OPEN) listen();
  }
}, 1000);

$("search").addEventListener("input", ({ target }) => choose(view.state, target.value));
$("more").addEventListener("click", () => { view.rows += 5 * ROWS; draw(); });
new ResizeObserver(drawLinks).observe($("map"));
drawHead();
drawLegend();
drawMarks();
if (!document.hidden) listen();
