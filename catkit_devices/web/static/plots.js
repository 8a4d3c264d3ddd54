// Draws curves with uPlot, in place of the small drawings that the service has made; telemetry goes on live.
"use strict";

const SHOWN = 600; // seconds of telemetry that a plot shows
const GAP = 90; // seconds without a reading, from which on nothing is drawn between two readings
const LIVE = new Map(); // plots of telemetry by quantity

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// Numbers beside an axis: as many digits as their distance needs.
function numbersOf(_, splits) {
  const most = Math.max(...splits.map(Math.abs));
  const digits = most > 0 ? Math.max(1, Math.ceil(Math.log10(most / Math.abs(splits[1] - splits[0] || most))) + 1) : 1;
  const far = most >= 1e6 || (most > 0 && most < 1e-3);
  return splits.map((one) => (far ? one.toExponential(digits - 1) : String(Number(one.toPrecision(digits + 1)))));
}

function timesOf(_, splits) {
  const short = splits.length > 1 && splits[1] - splits[0] < 1;
  const how = { hour12: false, hour: "2-digit", minute: "2-digit", second: "2-digit", ...(short ? { fractionalSecondDigits: 2 } : {}) };
  return splits.map((one) => new Date(one * 1000).toLocaleTimeString([], how));
}

function optionsOf(told, width) {
  const axis = { stroke: colour("--dim"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line") } };
  const strokes = ["--accent", "--good", "--bad", "--warn", "--unknown"].map(colour);
  return {
    width,
    height: 220,
    scales: { x: { time: told.time } },
    cursor: { drag: { x: true, y: false } },
    legend: { show: true, live: true },
    axes: [{ ...axis, space: 90, values: told.time ? timesOf : numbersOf, label: told.x_label || undefined, labelSize: 18 },
      { ...axis, size: 74, values: numbersOf, label: told.unit || undefined, labelSize: 18 }],
    series: [
      { label: told.time ? "time" : told.x_label || "x", ...(told.time ? { value: (_, at) => (at === null ? "–" : timesOf(_, [at])[0]) } : {}) },
      ...told.series.map((one, number) => ({
        label: one.label, stroke: strokes[number % strokes.length], width: 1.5, spanGaps: false,
        value: (_, value) => (value === null || value === undefined ? "–" : `${Number(value.toPrecision(6))} ${told.unit}`),
      })),
    ],
  };
}

function dataOf(told) {
  const tables = told.series.map((one) => {
    const order = one.x.map((_, number) => number).filter((number) => one.x[number] !== null);
    order.sort((a, b) => one.x[a] - one.x[b]);
    return [order.map((number) => one.x[number]), order.map((number) => one.y[number])];
  });
  return tables.length === 1 ? tables[0] : uPlot.join(tables);
}

function draw(place, told) {
  place.plot?.destroy();
  place.told = told;
  const data = dataOf(told);
  if (data[0].length < 2) {
    return;
  }
  place.textContent = "";
  place.plot = new uPlot(optionsOf(told, Math.max(200, place.clientWidth)), data, place);
  const canvas = place.querySelector("canvas");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `Plot of ${told.series.map((one) => one.label).join(", ")}`);
}

async function load(place) {
  const quantity = place.dataset.quantity;
  try {
    if (quantity === undefined) {
      const answer = await fetch(place.dataset.plot);
      if (answer.ok) {
        draw(place, await answer.json());
      }
      return;
    }
    LIVE.set(quantity, place);
    const since = Date.now() / 1000 - SHOWN;
    const answer = await fetch(`/api/v1/history/${encodeURIComponent(quantity)}?since=${since}`);
    const told = answer.ok ? await answer.json() : { unit: "", points: [] };
    const series = { label: quantity, x: [], y: [] };
    told.points.forEach((one) => append(series, one.time, number(one.value)));
    draw(place, { time: true, x_label: "", unit: told.unit ?? "", series: [series] });
  } catch {
    // The drawing of the service stays; that it does not answer is told elsewhere.
  }
}

function append({ x, y }, moment, value) {
  const last = x[x.length - 1];
  if (moment - last > GAP) {
    x.push((moment + last) / 2);
    y.push(null);
  }
  x.push(moment);
  y.push(value);
}

function number(value) {
  return typeof value === "number" ? value : null;
}

// A reading that came with the news.
function add(quantity, reading) {
  const place = LIVE.get(quantity);
  if (!place?.told || typeof reading.time !== "number") {
    return;
  }
  const { x, y } = place.told.series[0];
  if (x.length && reading.time <= x[x.length - 1]) {
    return;
  }
  append(place.told.series[0], reading.time, reading.problem ? null : number(reading.value));
  while (x.length && x[0] < reading.time - SHOWN) {
    x.shift();
    y.shift();
  }
  if (place.plot) {
    place.plot.setData([x, y]);
  } else {
    draw(place, place.told);
  }
  place.dataset.points = x.length;
}

window.plots = {
  news(status) {
    for (const [quantity, reading] of Object.entries(status.telemetry ?? {})) {
      add(quantity, reading);
    }
  },
  again() { // after a lost connection: what was missed is in the history
    document.querySelectorAll("[data-quantity]").forEach(load);
  },
};

document.querySelectorAll("[data-plot]").forEach(load);
const redraw = () => document.querySelectorAll("[data-plot]").forEach((place) => place.told && draw(place, place.told));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
window.addEventListener("resize", redraw);
