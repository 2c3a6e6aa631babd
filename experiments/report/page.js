"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#a6761d", "#56b4e9", "#e6ab02", "#7570b3", "#e7298a", "#444444", "#8bc34a", "#5d4037"];
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "x"];
const KINDS = { measured: "measured here", published: "published", run: "your runs" };
const narrow = () => window.innerWidth < 640;
const unique = (values) => [...new Set(values)];
const shown = (value) => value === null || value === undefined ? "–"
  : typeof value !== "number" ? String(value)
  : value.toLocaleString("en", Number.isInteger(value) ? {} : { maximumSignificantDigits: 5 });

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function options(select, values, chosen) {
  select.replaceChildren(...values.map(([value, text]) => element("option", { value, textContent: text })));
  if (values.some(([value]) => value === chosen)) select.value = chosen;
}

// ---- quality over rate

const nameOf = ({ kind, codec }) => `${kind} ${codec}`;
const atFirst = (point) => point.kind === "run" || data.chosen[point.kind].includes(point.codec);
const lossy = data.points.filter((point) => !point.lossless && atFirst(point)).map(nameOf);
const chosen = new Set([...lossy, ...data.points.filter((point) => point.lossless).map(nameOf)]);
// Those that are shown at first have the first colours, each another one.
const looks = new Map(unique([...chosen, ...data.points.map(nameOf)]).map((name, n) => [name, {
  color: COLOURS[n % COLOURS.length],
  symbol: SYMBOLS[Math.floor(n / COLOURS.length) % SYMBOLS.length],
  dash: name.startsWith("published") ? "dot" : "solid",
}]));

function curveTraces(points, metric) {
  return unique(points.map(nameOf)).filter((name) => chosen.has(name)).map((name) => {
    const of = points.filter((point) => nameOf(point) === name && metric in point && !point.lossless);
    const { color, symbol, dash } = looks.get(name);
    return {
      name: of.length ? of[0].codec : name, x: of.map((point) => point.bpp), y: of.map((point) => point[metric]),
      mode: "lines+markers", line: { color, dash, width: 2 }, marker: { color, symbol, size: 7 },
      text: of.map((point) => [point.setting, ...["encode_ms", "decode_ms"].filter((key) => key in point)
        .map((key) => `${key.replace("_ms", "")} ${shown(point[key])} ms`)].filter(Boolean).join("<br>")),
      hovertemplate: `<b>%{fullData.name}</b><br>%{x:.3f} bpp<br>${data.labels[metric]}: %{y:.4g}<br>%{text}<extra></extra>`,
    };
  }).filter((trace) => trace.x.length);
}

function losslessTraces(points) {
  const of = points.filter((point) => point.lossless && chosen.has(nameOf(point)))
    .sort((a, b) => b.bpsp - a.bpsp);
  return of.length ? [{
    type: "bar", orientation: "h", x: of.map((point) => point.bpsp),
    y: of.map((point) => [point.codec, point.setting].filter(Boolean).join(", ")),
    marker: { color: of.map((point) => looks.get(nameOf(point)).color) },
    text: of.map((point) => point.bpsp.toFixed(3)), hovertemplate: "<b>%{y}</b><br>%{x:.4f} bits a sample<extra></extra>",
  }] : [];
}

function swatch({ color, dash }) {
  const svg = `<svg width="22" height="10"><line x1="0" y1="5" x2="22" y2="5" stroke="${color}" stroke-width="3"` +
    `${dash === "dot" ? ' stroke-dasharray="3 3"' : ""}/></svg>`;
  const holder = element("span");
  holder.innerHTML = svg;
  return holder.firstChild;
}

function codecBox(kind, codec) {
  const name = nameOf({ kind, codec });
  const box = element("input", { type: "checkbox", checked: chosen.has(name) });
  box.onchange = () => { box.checked ? chosen.add(name) : chosen.delete(name); drawChart(); };
  return element("label", {}, box, swatch(looks.get(name)), codec);
}

function drawCodecs(points) {
  const parts = [];
  for (const [kind, title] of Object.entries(KINDS)) {
    const of = unique(points.filter((point) => point.kind === kind).map((point) => point.codec));
    if (!of.length) continue;
    const boxes = element("div", { className: "boxes" }, ...of.map((codec) => codecBox(kind, codec)));
    parts.push(element("details", { open: kind === "measured" }, element("summary", { textContent: `${title}: ${of.length}` }), boxes));
  }
  $("codecs").replaceChildren(...parts);
}

function pointsHere() {
  const lossless = $("metric").value === "lossless";
  return data.points.filter((point) => point.dataset === $("dataset").value && point.lossless === lossless);
}

function drawChart() {
  const metric = $("metric").value, limit = Number($("limit").value) || Infinity;
  const lossless = metric === "lossless";
  const points = pointsHere().filter((point) => lossless || point.bpp <= limit);
  const traces = lossless ? losslessTraces(points) : curveTraces(points, metric);
  $("nothing").hidden = traces.length > 0;
  $("chart").hidden = traces.length === 0;
  $("limit").parentElement.hidden = lossless;
  if (!traces.length) return;
  const axis = { gridcolor: "#e6e9ec", zeroline: false, automargin: true };
  Plotly.react("chart", traces, {
    margin: { l: 60, r: 10, t: 10, b: 50 }, showlegend: false, hovermode: "closest", dragmode: narrow() ? false : "zoom",
    font: { family: "system-ui, sans-serif", size: 13 },
    xaxis: { ...axis, title: { text: lossless ? "bits a sample" : "bits per pixel" }, rangemode: "tozero" },
    yaxis: { ...axis, title: { text: lossless ? "" : data.labels[metric] } },
  }, { responsive: true, displaylogo: false, displayModeBar: narrow() ? false : "hover" });
}

function drawCurves() {
  drawCodecs(pointsHere());
  drawChart();
}

function startCurves() {
  const sets = unique(data.points.map((point) => point.dataset));
  $("curves").hidden = !sets.length;
  if (!sets.length) return;
  options($("dataset"), sets.map((name) => [name, name]), "kodak");
  const metrics = () => {
    const here = data.points.filter((point) => point.dataset === $("dataset").value);
    const there = Object.entries(data.labels).filter(([key]) => here.some((point) => !point.lossless && key in point));
    if (here.some((point) => point.lossless)) there.push(["lossless", "lossless: bits a sample"]);
    options($("metric"), there, $("metric").value);
  };
  metrics();
  $("dataset").onchange = () => { metrics(); drawCurves(); };
  $("metric").onchange = drawCurves;
  $("limit").oninput = drawChart;
  const all = (keep) => () => {
    for (const name of pointsHere().map(nameOf)) keep ? chosen.add(name) : chosen.delete(name);
    drawCurves();
  };
  $("all").onclick = all(true);
  $("none").onclick = all(false);
  drawCurves();
}

// ---- a picture at equal size

function drawPictures() {
  const { rates, original } = data.pictures;
  const files = [{ codec: "original", source: original }, ...rates[Number($("rate").value)].files];
  for (const [side, image] of [["left", "over"], ["right", "under"]]) {
    const file = files.find((each) => each.codec === $(side).value);
    $(image).src = file.source;
    $(image).alt = `${data.pictures.name}, ${file.codec}`;
    $(`${side}-caption`).textContent = file.bytes === undefined ? "original"
      : `${file.codec}: ${shown(file.bytes)} bytes, ${file.bpp.toFixed(3)} bpp, ${file.psnr.toFixed(2)} dB`
        + ("ms_ssim" in file ? `, MS-SSIM ${file.ms_ssim.toFixed(4)}` : "");
  }
}

function moveLine() {
  const at = $("position").value;
  $("over").style.clipPath = `inset(0 ${100 - at}% 0 0)`;
  $("line").style.left = `${at}%`;
}

function startPictures() {
  $("pictures").hidden = !data.pictures;
  if (!data.pictures) return;
  const { rates, width, height } = data.pictures;
  const codecs = ["original", ...rates[0].files.map((file) => file.codec)].map((name) => [name, name]);
  options($("rate"), rates.map((rate, n) => [String(n), `${rate.quality}, ${rate.files[0].bpp.toFixed(2)} bpp`]), "0");
  options($("left"), codecs, codecs[1][0]);
  options($("right"), codecs, "JPEG");
  for (const part of [$("slider"), document.querySelector(".captions")]) part.style.maxWidth = `${width * (width < 600 ? 1.5 : 1)}px`;
  $("slider").style.aspectRatio = `${width} / ${height}`;
  for (const id of ["rate", "left", "right"]) $(id).onchange = drawPictures;
  $("position").oninput = moveLine;
  drawPictures();
  moveLine();
}

// ---- tables

function fill(table, columns, rows, foot) {
  let order = { column: -1, rising: true };
  const body = element("tbody");
  const draw = () => {
    const sorted = [...rows];
    if (order.column >= 0) sorted.sort((a, b) => {
      const [x, y] = [a[order.column], b[order.column]];
      const less = typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y));
      return order.rising ? less : -less;
    });
    body.replaceChildren(...sorted.map((row) => element("tr", {}, ...row.map((cell) => element("td", { textContent: shown(cell) })))));
  };
  const heads = columns.map((name, column) => {
    const button = element("button", { textContent: name });
    button.onclick = () => { order = { column, rising: order.column === column ? !order.rising : true }; draw(); };
    return element("th", {}, button);
  });
  table.replaceChildren(element("thead", {}, element("tr", {}, ...heads)), body);
  if (foot) table.append(element("tfoot", {}, element("tr", {}, ...foot.map((cell) => element("td", { textContent: shown(cell) })))));
  draw();
}

function drawTable() {
  const { columns, rows } = data.tables[Number($("run").value)];
  const called = $("called").value.toLowerCase();
  const here = rows.filter((row) => String(row[0]).toLowerCase().includes(called));
  const mean = (column) => {
    const values = here.map((row) => row[column]).filter((value) => typeof value === "number");
    return values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : "";
  };
  fill($("per-image"), columns, here, columns.map((_, column) => column ? mean(column) : `mean of ${here.length}`));
}

function startTables() {
  $("tables").hidden = !data.tables.length;
  if (!data.tables.length) return;
  options($("run"), data.tables.map((table, n) => [String(n), table.name]), "0");
  $("run").onchange = drawTable;
  $("called").oninput = drawTable;
  drawTable();
}

// ---- sweeps

function dimension({ label, values }) {
  if (values.every((value) => typeof value === "number")) return { label, values };
  if (values.every((value) => value === null || typeof value === "number")) {  // not there yet: below all others
    const numbers = values.filter((value) => value !== null);
    const below = Math.min(...numbers) - 0.1 * ((Math.max(...numbers) - Math.min(...numbers)) || 1);
    return { label, values: values.map((value) => value === null ? below : value) };
  }
  const texts = unique(values.map(String)).sort();
  return { label, values: values.map((value) => texts.indexOf(String(value))), tickvals: texts.map((_, n) => n),
    ticktext: texts.map((text) => text.length > 18 ? `…${text.slice(-17)}` : text || "–"), range: [-0.2, texts.length - 0.8] };
}

function drawSweep() {
  const sweep = data.sweeps[Number($("sweep").value)];
  const colour = sweep.axes.find((axis) => axis.label === $("colour").value);
  const { values } = dimension(colour);
  const dimensions = sweep.axes.map(dimension);
  const widest = Math.max(4, ...(dimensions[0].ticktext || []).map((text) => text.length));  // of what stands left of the first axis
  $("parallel").style.minWidth = `${140 * dimensions.length}px`;
  Plotly.react("parallel", [{
    type: "parcoords", dimensions, labelangle: -12, labelside: "top",
    line: { color: values, colorscale: "Viridis", showscale: true, colorbar: { title: { text: colour.label }, thickness: 12 } },
  }], { margin: { l: Math.min(240, 20 + 8 * widest), r: 40, t: 90, b: 20 }, font: { family: "system-ui, sans-serif", size: 13 } },
  { responsive: true, displaylogo: false, displayModeBar: false });
  fill($("jobs"), ["run", ...sweep.axes.map((axis) => axis.label)],
    sweep.jobs.map((job, n) => [job, ...sweep.axes.map((axis) => axis.values[n])]));
}

function startSweeps() {
  $("sweeps").hidden = !data.sweeps.length;
  if (!data.sweeps.length) return;
  const colours = () => {
    const { axes } = data.sweeps[Number($("sweep").value)];
    options($("colour"), axes.map(({ label }) => [label, label]), axes.some(({ label }) => label === "psnr") ? "psnr" : axes.at(-1).label);
  };
  options($("sweep"), data.sweeps.map((sweep, n) => [String(n), sweep.name]), "0");
  $("sweep").onchange = () => { colours(); drawSweep(); };
  $("colour").onchange = drawSweep;
  colours();
  drawSweep();
}

$("about").textContent = data.about;
startCurves();
startPictures();
startTables();
startSweeps();
