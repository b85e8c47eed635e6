// This host, its lease, its kernel, and what passes through its devices.

import { $, el, keyed, svg, text } from "./build.js";
import { told } from "./model.js";
import { age, ago, bits, both, bytes, isNumber, many } from "./words.js";

const SAMPLES = 60; // seconds of traffic that are drawn
const traffic = [];

const amiss = (said) => el("span", { class: "amiss" }, said);
const sum = (counts) => Object.values(counts ?? {}).reduce((total, count) => total + count, 0);
// FdbEntry is an fdb entry to people.
const plain = (kind) => kind.replace(/([a-z])([A-Z])/g, "$1 $2").toLowerCase();
const listed = (counts) => Object.entries(counts ?? {}).sort().map(([name, count]) => `${plain(name)} ${count.toLocaleString("en")}`).join(", ");

function ours() {
  const { host = {}, network = {}, firewall = {}, outputs = {} } = told;
  return [
    ["Interface", host.interface || "none"],
    ["Address", both(host.ipv4, host.ipv6) || "none"],
    ["Its MTU", host.mtu],
    ["Device", network.device || "none"],
    ["MTU of containers", network.mtu],
    ["Firewall", firewall.wanted ? (firewall.ok ? "in order" : amiss("not in order")) : "left alone"],
    ["Subnet file", outputs.subnet_file],
    ["Written", outputs.written ? "yes" : amiss("no")],
  ];
}

function leaseAndStore() {
  const { lease = {}, store = {} } = told;
  const answers = store.answers == null ? "not asked yet" : store.answers ? "yes" : amiss("no");
  return [
    ["Subnet", both(lease.subnet, lease.ipv6_subnet) || "none yet"],
    lease.reserved ? ["Reserved", "yes"] : ["Ends unless renewed", isNumber(lease.expires) && ago(lease.expires, "in ", "")],
    ["Renewed", isNumber(lease.renewed) && ago(lease.renewed)],
    ["Store", store.kind],
    ...(store.endpoints ?? []).map((each) => ["at", String(each)]),
    ["Answers", answers, isNumber(store.since) && ago(store.since, ", for ", "")],
    ["Failed requests", String(store.errors ?? 0)],
    ["Watch last heard", isNumber(store.heard) && ago(store.heard)],
  ];
}

function kernel() {
  const { wanted, failed, repairs, audits, complete } = told.kernel ?? {};
  return [
    ["Items", sum(wanted).toLocaleString("en")],
    ["of which", listed(wanted)],
    ["Refused", sum(failed) ? amiss(listed(failed)) : "none"],
    ["Put right so far", listed(repairs) || "nothing"],
    ["Audits", sum(audits).toLocaleString("en")],
    ["for", listed(audits)],
    ["All peers known", complete ? "yes" : "not yet"],
  ];
}

function passed(device) {
  const [tx, rx] = rates(device.name).at(-1) ?? [0, 0];
  const far = (octets, packets) => isNumber(octets) && `${bytes(octets)}, ${many(packets ?? 0, "packet")}`;
  return [
    ["Out now", bits(tx)], ["In now", bits(rx)],
    ["Out so far", far(device.tx_bytes, device.tx_packets)], ["In so far", far(device.rx_bytes, device.rx_packets)],
  ];
}

export function drawFacts() {
  const cards = [["This host", ours()], ["Lease and store", leaseAndStore()], ["Kernel", kernel()]];
  keyed($("facts"), cards, ([title]) => title, makeCard, fillCard);
  const devices = (told.devices ?? []).map((device) => [`Traffic of ${device.name}`, passed(device), device.name]);
  keyed($("traffic"), devices, ([title]) => title, makeCard, (card, device) => {
    fillCard(card, device);
    drawChart(card, rates(device[2]));
  });
}

function makeCard([title]) {
  return el("section", { class: "panel" }, el("h2", {}, title), el("dl"));
}

const said = (value) => (value instanceof Element ? value.dataset.at ?? value.textContent : String(value));

function fillCard(card, [, lines]) {
  const known = lines.map(([name, ...values]) => [name, ...values.filter((each) => each || each === 0)]).filter((line) => line.length > 1);
  const list = card.querySelector("dl");
  const whole = JSON.stringify(known.map((line) => line.map(said)));
  if (list.dataset.said === whole) return;
  list.dataset.said = whole;
  list.replaceChildren(...known.map(([name, ...values]) => el("div", {}, el("dt", {}, name), el("dd", {}, ...values))));
  list.querySelectorAll("time").forEach(age);
}

// What has passed, second by second, for as long as this page has been open.
export function sample() {
  traffic.push({ at: performance.now() / 1000, devices: new Map((told.devices ?? []).map((each) => [each.name, each])) });
  if (traffic.length > SAMPLES) traffic.shift();
}

function rates(name) {
  return traffic.slice(1).map((after, number) => {
    const before = traffic[number];
    const [old, young] = [before.devices.get(name), after.devices.get(name)];
    const rate = (field) => Math.max(0, (young?.[field] ?? 0) - (old?.[field] ?? 0)) / (after.at - before.at);
    return old && young ? [rate("tx_bytes"), rate("rx_bytes")] : [0, 0];
  });
}

function drawChart(card, seen) {
  let chart = card.querySelector(".chart");
  if (!chart) {
    chart = svg("svg", { class: "chart", viewBox: `0 0 ${SAMPLES} 40`, preserveAspectRatio: "none", "aria-hidden": "true" },
      svg("path", { class: "under" }), svg("path", { class: "got" }), svg("path", { class: "sent" }));
    card.append(chart, el("p", { class: "note", "aria-hidden": "true" }));
  }
  const most = Math.max(0, ...seen.flat());
  const line = (which) => seen.map((pair, number) => `${SAMPLES - seen.length + number} ${(39 - (pair[which] / (most || 1)) * 37).toFixed(1)}`).join("L");
  const [sent, got] = [line(0), line(1)].map((points) => (points ? `M${points}` : ""));
  chart.querySelector(".under").setAttribute("d", sent && `${sent}V40H${SAMPLES - seen.length}Z`);
  chart.querySelector(".sent").setAttribute("d", sent);
  chart.querySelector(".got").setAttribute("d", got);
  text(card.querySelector(".note"), `The last minute, as seen by this page: out (line) and in (dashes), ${bits(most)} at most`);
}
