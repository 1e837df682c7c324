"use strict";

// What is shown is a function of the state alone, and the state stands in the address: #sort=r_precision&filter=fox

const DEFAULTS = { sort: "prompt", columns: "given", mode: "color", filter: "", turn: "", figures: "" };
const USUAL = ["r_precision", "r_precision_shape", "score", "janus", "saturation", "seconds_total"];

function readState(hash) {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  const state = { ...DEFAULTS };
  for (const key of Object.keys(state)) if (given.has(key)) state[key] = given.get(key);
  return state;
}

function writeState(state) {
  const given = new URLSearchParams();
  for (const [key, value] of Object.entries(state)) if (value !== DEFAULTS[key]) given.set(key, value);
  return given.toString();
}

function matches(run, filter) {
  const text = [run.prompt, run.label, run.status, `seed=${run.seed}`].join(" ").toLowerCase();
  return filter.toLowerCase().split(/\s+/).every((word) => text.includes(word));
}

function mean(runs, figure) {
  const values = runs.map((run) => run.figures[figure]).filter((value) => typeof value === "number");
  return values.length ? values.reduce((a, b) => a + b, 0) / values.length : null;
}

// Best first: larger values, or smaller ones where less is better; what has no value comes last.
function sorted(groups, figure, figures) {
  const sign = figures[figure].better < 0 ? 1 : -1;
  return [...groups].sort((a, b) => {
    const x = mean(a.runs, figure), y = mean(b.runs, figure);
    if (x === null || y === null) return (x === null) - (y === null);
    return sign * (x - y);
  });
}

function grouped(runs, key) {
  const groups = new Map();
  for (const run of runs) {
    if (!groups.has(run[key])) groups.set(run[key], []);
    groups.get(run[key]).push(run);
  }
  return [...groups].map(([name, own]) => ({ name, runs: own }));
}

function layout(data, state) {
  const runs = data.runs.filter((run) => matches(run, state.filter));
  let rows = grouped(runs, "prompt"), columns = grouped(runs, "label");
  if (data.figures[state.sort]) rows = sorted(rows, state.sort, data.figures);
  else rows.sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
  if (data.figures[state.columns]) columns = sorted(columns, state.columns, data.figures);
  return { runs, rows, columns };
}

function shownFigures(data, state) {
  const names = Object.keys(data.figures);
  if (state.figures) return names.filter((name) => state.figures.split(",").includes(name));
  const usual = names.filter((name) => USUAL.includes(name));
  return usual.length ? usual : names;
}

function number(value) {
  if (typeof value !== "number") return "–";
  if (Number.isInteger(value)) return String(value);
  return Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(3);
}

if (typeof module !== "undefined") {
  module.exports = { readState, writeState, matches, mean, sorted, grouped, layout, shownFigures, number };
} else {
  start();
}

function start() {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const views = [];
  let state = readState(location.hash);
  let frame = 0;

  function element(name, attributes, ...children) {
    const made = document.createElement(name);
    Object.assign(made, attributes);
    made.append(...children);
    return made;
  }

  function options(select, first) {
    select.append(element("option", { value: first, textContent: first }));
    for (const [name, figure] of Object.entries(data.figures)) {
      select.append(element("option", { value: name, textContent: figure.label }));
    }
  }

  function turnTo(view, index) {
    const count = Number(view.dataset.views);
    const place = ((index % count) + count) % count;
    view.dataset.index = place;
    view.style.backgroundPosition = count > 1 ? `${(100 * place) / (count - 1)}% 0` : "0 0";
  }

  function picture(run) {
    const strip = run.pictures[state.mode];
    if (!strip) return element("div", { className: "view soft", textContent: "no picture" });
    const view = element("div", { className: "view", title: "drag to turn" });
    view.dataset.views = strip.views;
    view.style.backgroundImage = `url(${strip.uri})`;
    view.style.backgroundSize = `${100 * strip.views}% 100%`;
    turnTo(view, 0);
    view.addEventListener("pointermove", (event) => {
      if (event.buttons) turnTo(view, Math.floor((event.offsetX / view.clientWidth) * strip.views));
    });
    views.push(view);
    return view;
  }

  function card(run, names) {
    const list = element("dl", {});
    for (const name of names) {
      list.append(
        element("dt", { textContent: data.figures[name].label, title: data.figures[name].meaning }),
        element("dd", { textContent: number(run.figures[name]) }),
      );
    }
    const made = element("div", { className: "run" }, picture(run), element("div", { className: "soft", textContent: `seed ${run.seed}` }), list);
    made.dataset.run = run.id;
    if (run.status !== "done") made.append(element("div", { className: "mark", textContent: run.status }));
    return made;
  }

  function drawGrid() {
    const { runs, rows, columns } = layout(data, state), names = shownFigures(data, state);
    views.length = 0;
    const head = element("tr", {}, element("th", { textContent: "prompt" }));
    for (const column of columns) head.append(element("th", { textContent: column.name }));
    const body = element("tbody", {});
    for (const row of rows) {
      const line = element("tr", {}, element("th", { textContent: row.name }));
      for (const column of columns) {
        const own = row.runs.filter((run) => run.label === column.name).sort((a, b) => a.seed - b.seed);
        line.append(element("td", {}, ...own.map((run) => card(run, names))));
      }
      body.append(line);
    }
    $("grid").replaceChildren(element("thead", {}, head), body);
    const judge = data.judges.length ? `judged by: ${data.judges.join("; ")}` : "no judge: its figures are left out";
    $("summary").textContent = `${data.name}: ${runs.length} of ${data.runs.length} runs, ${data.settings.views} views each, ${judge}`;
  }

  function words(before, after) {
    const names = [...new Set([...Object.keys(before), ...Object.keys(after)])];
    const same = names.filter((name) => before[name] === after[name]).map((name) => `${name.split(".").pop()}=${before[name]}`);
    const changed = names.filter((name) => before[name] !== after[name])
      .map((name) => `${name.split(".").pop()}: ${before[name] ?? "–"} → ${after[name] ?? "–"}`);
    return changed.join(", ") + (same.length ? ` (${same.join(", ")})` : "");
  }

  function drawComparisons() {
    if (!data.comparisons.length) return;
    const body = element("tbody", {});
    for (const c of data.comparisons) {
      const known = c.low !== null;
      const value = c.mean !== null ? number(c.mean) : "too few to average";
      const range = known ? `[${number(c.low)}, ${number(c.high)}]` : `each: ${c.differences.map(number).join(", ")}`;
      const row = element("tr", { className: c.clear ? "clear" : "" });
      for (const text of [words(c.before, c.after), data.figures[c.figure].label, value, range, `${c.prompts} / ${c.pairs}`]) {
        row.append(element("td", { textContent: text }));
      }
      body.append(row);
    }
    const head = element("tr", {});
    for (const text of ["change", "figure", "difference", "95 % interval", "prompts / pairs"]) head.append(element("th", { textContent: text }));
    $("comparisons").append(
      element("h2", { textContent: "Paired differences" }),
      element("p", { className: "soft", textContent: "The same prompts and seeds; bootstrap over prompts, then over seeds. Green: zero lies outside the interval." }),
      element("table", {}, element("thead", {}, head), body),
    );
  }

  function drawFailures() {
    const failed = data.runs.filter((run) => run.error);
    if (!failed.length) return;
    $("failures").append(element("h2", { textContent: "Not evaluated" }));
    for (const run of failed) {
      $("failures").append(element("p", { textContent: `${run.prompt} · ${run.label} · seed ${run.seed} · ${run.status}` }), element("pre", { textContent: run.error }));
    }
  }

  function drawControls() {
    $("sort").value = state.sort;
    $("sort-columns").value = state.columns;
    $("mode").value = state.mode;
    if ($("filter").value !== state.filter) $("filter").value = state.filter;
    $("turn").checked = state.turn === "1";
    const shown = shownFigures(data, state);
    for (const box of $("figures").querySelectorAll("input")) box.checked = shown.includes(box.value);
  }

  function change(part) {
    state = { ...state, ...part };
    history.replaceState(null, "", `#${writeState(state)}`);
    drawControls();
    drawGrid();
  }

  options($("sort"), "prompt");
  options($("sort-columns"), "given");
  for (const [name, figure] of Object.entries(data.figures)) {
    $("figures").append(element("label", { title: figure.meaning }, element("input", { type: "checkbox", value: name }), ` ${figure.label}`));
  }
  $("figures").addEventListener("change", () => {
    change({ figures: [...$("figures").querySelectorAll("input:checked")].map((box) => box.value).join(",") });
  });
  $("sort").addEventListener("change", (event) => change({ sort: event.target.value }));
  $("sort-columns").addEventListener("change", (event) => change({ columns: event.target.value }));
  $("mode").addEventListener("change", (event) => change({ mode: event.target.value }));
  $("filter").addEventListener("input", (event) => change({ filter: event.target.value }));
  $("turn").addEventListener("change", (event) => change({ turn: event.target.checked ? "1" : "" }));
  $("controls").addEventListener("submit", (event) => event.preventDefault());
  window.addEventListener("hashchange", () => {
    state = readState(location.hash);
    drawControls();
    drawGrid();
  });
  setInterval(() => {
    if (state.turn !== "1") return;
    frame += 1;
    for (const view of views) turnTo(view, frame);
  }, 160);
  drawControls();
  drawGrid();
  drawComparisons();
  drawFailures();
}
