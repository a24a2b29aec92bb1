// The web page works without this: everything is a link or a form. This keeps open pages up to date, shows times in the
// reader's zone, follows logs and draws charts. It asks no other server, and puts nothing on the page that our server did
// not escape.

const TICK = 10_000;
const MOST_LINES = 5000;

// -- times ----------------------------------------------------------------------------------------------------------

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "long" });

function took(seconds) {
  const units = [["d", 86400], ["h", 3600], ["m", 60], ["s", 1]];
  const at = units.findIndex(([, length]) => seconds >= length);
  if (at < 0 || at === 3) return `${Math.max(0, Math.floor(seconds))}s`;
  const [[big, long], [small, short]] = [units[at], units[at + 1]];
  return `${Math.floor(seconds / long)}${big} ${Math.floor((seconds % long) / short)}${small}`;
}

function ago(seconds) {
  if (seconds < 10) return "just now";
  const [unit, length] = [["d", 86400], ["h", 3600], ["m", 60], ["s", 1]].find(([, length]) => seconds >= length);
  return `${Math.floor(seconds / length)}${unit} ago`;
}

function showTimes(root = document) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const moment = new Date(time.dateTime);
    const passed = (Date.now() - moment) / 1000;
    time.title = full.format(moment);
    if (time.classList.contains("since")) time.textContent = took(passed);
    else if (time.classList.contains("exact")) time.textContent = passed < 43200 ? clock.format(moment) : full.format(moment);
    else if (time.classList.contains("clock")) time.textContent = clock.format(moment);
    else time.textContent = passed < 7 * 86400 ? ago(passed) : moment.toLocaleDateString();
  }
}

// -- parts that the server sends again --------------------------------------------------------------------------------

const trusted = window.trustedTypes?.createPolicy("server", { createHTML: (html) => html });

function fragment(html) {
  const template = document.createElement("template");
  template.innerHTML = trusted ? trusted.createHTML(html) : html;
  return template.content;
}

function replacePart({ id, html }) {
  const part = document.getElementById(id);
  if (!part) return;
  const focused = part.contains(document.activeElement) ? document.activeElement : null;
  const ticked = new Set([...part.querySelectorAll("input:checked")].map((box) => box.value));
  part.replaceChildren(fragment(html));
  for (const box of part.querySelectorAll("input[type=checkbox]")) box.checked = ticked.has(box.value);
  showTimes(part);
  if (focused) same(part, focused)?.focus({ preventScroll: true });
}

function same(part, element) {
  const key = (each) => [each.tagName, each.getAttribute("href"), each.getAttribute("name"), each.value].join(" ");
  return [...part.querySelectorAll("a, button, input")].find((each) => key(each) === key(element));
}

// -- the log ----------------------------------------------------------------------------------------------------------

const log = document.querySelector("[data-log]");
let following = log?.hasAttribute("data-follow") && !location.hash;

const atEnd = () => log.scrollHeight - log.scrollTop - log.clientHeight < 40;
const toEnd = () => { log.scrollTop = log.scrollHeight; };

function addLines({ at, skipped, html }) {
  if (!log) return;
  document.querySelector("[data-nolog]")?.remove();
  for (let line = log.lastElementChild; line && Number(line.dataset.at) >= at; line = log.lastElementChild) line.remove();
  if (skipped && log.lastElementChild) {
    const gap = document.createElement("div");
    gap.className = "ln cut";
    gap.dataset.at = at;
    gap.textContent = "…";
    log.append(gap);
  }
  const lines = fragment(html);
  showTimes(lines);
  log.append(lines);
  while (log.childElementCount > MOST_LINES) log.firstElementChild.remove();
  if (following) toEnd();
}

if (log) {
  log.addEventListener("scroll", () => { following = log.hasAttribute("data-follow") && atEnd(); }, { passive: true });
  if (following) toEnd();
}

// -- the stream: one a tab, and none while the tab is hidden: a browser opens six connections to a server -----------------

const body = document.body;
const offline = document.getElementById("offline");
let stream = null;
let seen = body.dataset.version;

function listen() {
  if (stream || document.hidden || !body.hasAttribute("data-live")) return;
  const url = new URL(location.href);
  url.hash = "";
  url.searchParams.set("seen", seen);
  stream = new EventSource(url);
  const on = (name, act) => stream.addEventListener(name, (event) => {
    seen = event.lastEventId || seen;
    act(JSON.parse(event.data));
  });
  on("part", replacePart);
  on("log", addLines);
  on("reload", () => { hush(); location.reload(); });
  stream.onopen = () => { offline.hidden = true; };
  stream.onerror = () => {
    offline.textContent = "The server does not answer; this page may be out of date. If it was your own server, open it again: dstack ui";
    offline.hidden = false;
    if (stream?.readyState === EventSource.CLOSED) { hush(); setTimeout(listen, TICK); }
  };
}

function hush() {
  stream?.close();
  stream = null;
}

document.addEventListener("visibilitychange", () => (document.hidden ? hush() : listen()));
window.addEventListener("pagehide", hush);
window.addEventListener("pageshow", listen);

// -- charts -----------------------------------------------------------------------------------------------------------

const MEASURES = {
  cpu: ["CPUs", (value) => value.toFixed(2)],
  memory: ["Memory", bytes],
  gpu: ["GPU, %", (value) => value.toFixed(0)],
  gpu_memory: ["GPU memory", bytes],
};

const BINARY = Array.from({ length: 50 }, (_, power) => 2 ** power);
const minutes = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });

function bytes(value) {
  const units = ["B", "KB", "MB", "GB", "TB"];
  let at = 0;
  while (value >= 1024 && at < 4) { value /= 1024; at += 1; }
  return `${value.toFixed(value < 10 && at ? 1 : 0)} ${units[at]}`;
}

function script(source) {
  return new Promise((resolve, reject) => {
    if (window.uPlot) return resolve();
    const element = document.createElement("script");
    Object.assign(element, { src: source, onload: resolve, onerror: reject });
    document.head.append(element);
  });
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

const LINES = ["--c4", "--c1", "--c2", "--c3", "--c5", "--c6"];
const short = (value) => Math.abs(value) >= 1e5 || (value && Math.abs(value) < 1e-3) ? value.toExponential(1) : String(+value.toPrecision(4));

function axes() {
  return { stroke: colour("--dim"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line") } };
}

function measureChart(figure, name, columns) {
  const [label, format] = MEASURES[name];
  return new uPlot({
    width: figure.clientWidth, height: 160, cursor: { points: { size: 6 } }, legend: { markers: { show: false } },
    scales: { y: { range: (_, low, high) => [0, Math.max(high, 1e-9) * 1.08] } },
    axes: [
      { ...axes(), values: (_, moments) => moments.map((moment) => minutes.format(moment * 1000)) },
      { ...axes(), size: 62, values: (_, values) => values.map(format), ...(name.includes("memory") && { incrs: BINARY }) },
    ],
    series: [{ label: "", value: (_, moment) => (moment == null ? "" : clock.format(moment * 1000)) }, {
      label, stroke: colour("--running"), width: 1.4, points: { show: false }, value: (_, value) => (value == null ? "" : format(value)),
    }],
  }, [columns.time, columns[name]], figure);
}

function curveChart(figure, { lines }) {
  return new uPlot({
    width: figure.clientWidth, height: 180, cursor: { points: { size: 6 } }, legend: { markers: { show: lines.length > 1 } },
    scales: { x: { time: false } },
    axes: [axes(), { ...axes(), size: 62, values: (_, values) => values.map(short) }],
    series: [{ label: "step" }, ...lines.map(({ label }, at) => ({
      label, stroke: colour(LINES[at % LINES.length]), width: 1.4, spanGaps: true, points: { show: false },
      dash: [[], [6, 3], [2, 3], [8, 3, 2, 3]][Math.floor(at / LINES.length)], value: (_, value) => (value == null ? "" : short(value)),
    }))],
  }, uPlot.join(lines.map(({ x, y }) => [x, y])), figure);
}

function framed(place, title, draw) {
  const figure = document.createElement("figure");
  const caption = document.createElement("figcaption");
  const save = document.createElement("button");
  caption.textContent = title;
  Object.assign(save, { type: "button", textContent: "Save as PNG", className: "quiet" });
  caption.append(save);
  figure.append(caption);
  place.append(figure);
  const plot = draw(figure);
  save.addEventListener("click", () => plot.ctx.canvas.toBlob((blob) => {
    const link = document.createElement("a");
    Object.assign(link, { href: URL.createObjectURL(blob), download: `${document.title.split(/[ ,]/)[0]}-${title.replace(/\W+/g, "-")}.png` });
    link.click();
    URL.revokeObjectURL(link.href);
  }));
}

async function drawCharts(place) {
  const answer = await fetch(place.dataset.usage ?? place.dataset.curves);
  if (!answer.ok) return;
  const found = await answer.json();
  const charts = place.dataset.curves
    ? found.filter(({ lines }) => lines.some(({ x }) => x.length > 1)).map((each) => [each.name, (figure) => curveChart(figure, each)])
    : found.time?.length > 1
      ? Object.keys(MEASURES).filter((name) => found[name]).map((name) => [MEASURES[name][0], (figure) => measureChart(figure, name, found)])
      : [];
  if (!charts.length) return;
  await script(place.dataset.script);
  if (place.contains(document.activeElement)) return;
  place.replaceChildren();
  if (place.closest("[hidden]")) place.closest("[hidden]").hidden = false;
  for (const [title, draw] of charts) framed(place, title, draw);
}

// -- the rest -----------------------------------------------------------------------------------------------------------

for (const button of document.querySelectorAll("[data-copy]")) {
  button.hidden = !navigator.clipboard;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
}

document.addEventListener("keydown", (event) => {
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement?.tagName);
  if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const field = document.querySelector("[data-slash]");
  if (field) { event.preventDefault(); field.focus(); }
});

const chosen = document.querySelector("[data-chosen]");
function countChosen() {
  const ticked = document.querySelectorAll(".tick input:checked").length;
  chosen.textContent = ticked ? `With ${ticked} ticked run${ticked === 1 ? "" : "s"}:` : "With the ticked runs:";
}
if (chosen) document.addEventListener("change", countChosen);

showTimes();
setInterval(showTimes, TICK);
listen();
for (const place of document.querySelectorAll("[data-usage], [data-curves]")) {
  drawCharts(place);
  if (place.hasAttribute("data-growing")) setInterval(() => { if (!document.hidden) drawCharts(place); }, 2 * TICK);
}
