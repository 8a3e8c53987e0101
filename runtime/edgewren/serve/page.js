"use strict";

const MOST_SHOWN = 200;
const TEXTS_PER_REQUEST = 256;
const BINS = 20;
const COLOURS = 8;
const TEXT_COLUMNS = ["text", "full_text", "tweet", "content", "body", "message"];

const $ = (id) => document.getElementById(id);
let table = null; // {header: [name], rows: [[cell]]} of a dropped file
let labels = [];
let downloadUrl = null;

/* RFC 4180: quoted fields hold commas, quotes and line ends. */
function parseCsv(source) {
  const rows = [];
  let row = [], cell = "", quoted = false;
  for (let at = source.charCodeAt(0) === 0xfeff ? 1 : 0; at < source.length; at++) {
    const c = source[at];
    if (quoted) {
      if (c !== '"') cell += c;
      else if (source[at + 1] === '"') { cell += '"'; at++; }
      else quoted = false;
    } else if (c === '"' && cell === "") quoted = true;
    else if (c === ",") { row.push(cell); cell = ""; }
    else if (c === "\n" || c === "\r") {
      if (c === "\r" && source[at + 1] === "\n") at++;
      row.push(cell); rows.push(row); row = []; cell = "";
    } else cell += c;
  }
  if (quoted) throw new Error("The file ends inside quotation marks: a closing quote is missing.");
  if (cell !== "" || row.length) { row.push(cell); rows.push(row); }
  return rows;
}

function csvCell(value) {
  const text = String(value);
  return /[",\r\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
}

function say(message, bad = false) {
  $("status").textContent = message;
  $("status").classList.toggle("bad", bad);
}

async function predict(texts) {
  for (;;) {
    const response = await fetch("/predict", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ inputs: texts }),
    });
    const answer = await response.json();
    if (response.ok) return answer;
    if (response.status !== 429 && response.status !== 503) throw new Error(answer.error);
    say("The server is busy; waiting…");
    await new Promise((resume) => setTimeout(resume, 1000 * Number(response.headers.get("retry-after") || 1)));
  }
}

async function label(texts) {
  const results = [];
  for (let start = 0; start < texts.length; start += TEXTS_PER_REQUEST) {
    results.push(...await predict(texts.slice(start, start + TEXTS_PER_REQUEST)));
    if (texts.length > TEXTS_PER_REQUEST) say(`${results.length} of ${texts.length} texts`);
  }
  return results;
}

const SVG = "http://www.w3.org/2000/svg";
function shape(name, attributes, parent, text) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  parent.append(node);
  return node;
}

const colour = (name) => "c" + (Math.max(0, labels.indexOf(name)) % COLOURS);

function drawShares(results) {
  $("shares").replaceChildren();
  for (const name of labels) {
    const count = results.filter((r) => r[0]?.label === name).length;
    const share = results.length ? count / results.length : 0;
    const line = document.createElement("div");
    line.className = "share";
    const title = document.createElement("span");
    title.textContent = name;
    const picture = document.createElementNS(SVG, "svg");
    picture.setAttribute("height", "16");
    picture.setAttribute("role", "img");
    picture.setAttribute("aria-label", `${name}: ${count}`);
    shape("rect", { width: `${100 * share}%`, height: 16, rx: 3, class: colour(name) }, picture);
    const figure = document.createElement("span");
    figure.textContent = `${count} (${(100 * share).toFixed(1)} %)`;
    line.append(title, picture, figure);
    $("shares").append(line);
  }
}

function drawHistogram(results) {
  const counts = labels.map(() => new Array(BINS).fill(0));
  for (const r of results) {
    if (!r[0]) continue;
    counts[labels.indexOf(r[0].label)][Math.min(BINS - 1, Math.floor(r[0].score * BINS))]++;
  }
  const first = Math.floor(BINS / Math.max(2, labels.length)); // the chosen label has at least 1/n
  const shown = BINS - first, width = 640, height = 120;
  const most = Math.max(1, ...Array.from({ length: BINS }, (_, b) => counts.reduce((sum, c) => sum + c[b], 0)));
  const picture = document.createElementNS(SVG, "svg");
  picture.setAttribute("viewBox", `0 0 ${width} ${height + 22}`);
  picture.setAttribute("role", "img");
  picture.setAttribute("aria-label", "Histogram of scores");
  for (let bin = first; bin < BINS; bin++) {
    let top = height;
    counts.forEach((c, index) => {
      const tall = (c[bin] / most) * (height - 8);
      top -= tall;
      const x = ((bin - first) / shown) * width;
      shape("rect", { x: x + 1, y: top, width: width / shown - 2, height: tall, class: "c" + (index % COLOURS) }, picture);
    });
  }
  shape("line", { x1: 0, x2: width, y1: height, y2: height, class: "axis" }, picture);
  for (const at of [first / BINS, (first / BINS + 1) / 2, 1]) {
    const x = ((at * BINS - first) / shown) * width;
    const anchor = at === 1 ? "end" : x === 0 ? "start" : "middle";
    shape("text", { x, y: height + 16, "text-anchor": anchor }, picture, at.toFixed(2));
  }
  $("histogram").replaceChildren(picture);
}

function fillTable(texts, results) {
  $("rows").replaceChildren();
  results.slice(0, MOST_SHOWN).forEach((result, index) => {
    const row = document.createElement("tr");
    const name = document.createElement("td");
    const score = document.createElement("td");
    const text = document.createElement("td");
    text.textContent = texts[index];
    if (result[0]) {
      const dot = document.createElementNS(SVG, "svg");
      dot.setAttribute("class", "dot");
      dot.setAttribute("viewBox", "0 0 10 10");
      shape("circle", { cx: 5, cy: 5, r: 5, class: colour(result[0].label) }, dot);
      name.append(dot, result[0].label);
      score.textContent = result[0].score.toFixed(3);
    } else name.textContent = result.error;
    row.append(name, score, text);
    $("rows").append(row);
  });
  $("more").textContent = results.length > MOST_SHOWN
    ? `The first ${MOST_SHOWN} of ${results.length} texts are shown; the download has all.` : "";
}

function offerDownload(texts, results) {
  const header = [...(table ? table.header : ["text"]), "label", "score", ...labels.map((name) => "score_" + name)];
  const lines = results.map((result, index) => {
    const own = table ? table.rows[index] : [texts[index]];
    const scores = labels.map((name) => result[0] ? result.find((r) => r.label === name).score : "");
    return [...own, result[0]?.label ?? "", result[0]?.score ?? "", ...scores].map(csvCell).join(",");
  });
  if (downloadUrl) URL.revokeObjectURL(downloadUrl);
  downloadUrl = URL.createObjectURL(new Blob([header.map(csvCell).join(",") + "\r\n" + lines.join("\r\n") + "\r\n"], { type: "text/csv" }));
  $("download").href = downloadUrl;
}

async function run(event) {
  event?.preventDefault();
  const texts = table
    ? table.rows.map((row) => row[$("column").selectedIndex] ?? "")
    : $("texts").value.split("\n").filter((line) => line.trim() !== "");
  if (!texts.length) { say("There is no text yet.", true); return; }
  $("go").disabled = true;
  say("Labelling…");
  const start = performance.now();
  try {
    const results = await label(texts);
    $("heading").textContent = `${results.length} text${results.length === 1 ? "" : "s"}`;
    drawShares(results);
    drawHistogram(results);
    fillTable(texts, results);
    offerDownload(texts, results);
    $("results").hidden = false;
    say(`Done in ${((performance.now() - start) / 1000).toFixed(2)} s`);
  } catch (error) {
    say(String(error.message || error), true);
  } finally {
    $("go").disabled = false;
  }
}

async function open(file) {
  try {
    const source = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
    const [header, ...rows] = parseCsv(source);
    if (!rows.length) throw new Error("The file has no rows below its header.");
    table = { header, rows };
    $("column").replaceChildren(...header.map((name) => new Option(name)));
    const known = header.findIndex((name) => TEXT_COLUMNS.includes(name.trim().toLowerCase()));
    $("column").selectedIndex = Math.max(0, known);
    $("column-choice").hidden = false;
    $("texts").value = "";
    $("texts").placeholder = `${file.name}: ${rows.length} rows. Type here to leave the file.`;
    if (known >= 0) await run();
    else say("Choose the column with the texts, then Label.");
  } catch (error) {
    say(error instanceof TypeError ? "The file is not UTF-8. Save it as UTF-8 CSV." : error.message, true);
  }
}

$("form").addEventListener("submit", run);
$("file").addEventListener("change", (event) => event.target.files[0] && open(event.target.files[0]));
$("texts").addEventListener("input", () => { table = null; $("column-choice").hidden = true; });
$("texts").addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) run(event); });
addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dropping"); });
addEventListener("dragleave", () => document.body.classList.remove("dropping"));
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  if (event.dataTransfer.files[0]) open(event.dataTransfer.files[0]);
});

fetch("/info").then((response) => response.json()).then((info) => {
  labels = Object.values(info.model_type.classifier.id2label);
  $("about").textContent = `Model ${info.model_id} (${info.kind}): ${labels.join(", ")}. Texts are scored by this server and not stored.`;
}).catch(() => say("The server does not answer.", true));
