// Curves by uPlot, fields as pixels of a canvas; both follow the theme and the width.

import { h, number } from "./elements.js";

const INKS = {
  light: ["#0b5f73", "#b3401c", "#5a3fa0", "#1c6b3a", "#8a5a00", "#9b2257", "#3b5bb5", "#586069"],
  dark: ["#6cc5d8", "#f2976f", "#b9a2f5", "#7bd39b", "#f0c36a", "#f090b8", "#8fa9f2", "#a5adb5"],
};

export function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

const drawn = new Set();
document.addEventListener("themechange", () => {
  for (const each of drawn) each.isConnected ? each.redraw() : each.end();
});

/**
 * Curves over a common axis.
 *
 * Each is {label, x, y, dash?, points?, ink?}, or {label, x, lower, upper} for a band.
 * `said` describes the plot to those who do not see it.
 */
export function curves(title, each, { x = {}, y = {}, height = 240, said = "" } = {}) {
  const place = h("div", { role: "img", "aria-label": `${title}. ${said || summary(each)}` });
  const figure = h("figure", { class: "plot", style: null }, h("h3", null, title), place);
  let plot = null;
  figure.change = (given) => {
    each = given;
    place.setAttribute("aria-label", `${title}. ${said || summary(each)}`);
    figure.redraw();
  };
  figure.redraw = () => {
    const width = Math.max(240, place.clientWidth || 480);
    if (plot) plot.destroy();
    plot = null;
    const [data, series, bands] = joined(each, x.log, y.log, x.label);
    if (data[0].length === 0) {
      place.replaceChildren(h("p", { class: "soft" }, "Nothing to draw yet."));
      return;
    }
    place.replaceChildren();
    figure.wasShown = figure.isConnected;
    plot = new window.uPlot({
      width, height, series, bands,
      cursor: { drag: { x: true, y: false } },
      legend: { show: series.length > 2 || bands.length > 0, live: true },
      scales: { x: { time: false, distr: x.log ? 3 : 1 }, y: { distr: y.log ? 3 : 1, ...(y.range ? { range: y.range } : {}) } },
      axes: [axis(x, width - 80, 50), axis(y, height, 62)],
    }, data, place);
  };
  const watched = new ResizeObserver(() => {
    if (figure.isConnected && (!plot || Math.abs(plot.width - place.clientWidth) > 4)) figure.redraw();
  });
  watched.observe(place);
  // uPlot keeps what was not destroyed, with its data, and looks at it at each scroll.
  figure.end = () => {
    if (plot) plot.destroy();
    plot = null;
    watched.disconnect();
    drawn.delete(figure);
  };
  for (const each of drawn) if (each.wasShown && !each.isConnected) each.end();
  drawn.add(figure);
  return figure;
}

/** An axis; a logarithmic one has lines and words at decades alone, as many as fit. */
function axis({ label, log }, length, size) {
  const ink = isDark() ? "#a5adb5" : "#565e66";
  const kept = (plot, splits) => {
    const used = splits.filter((value) => value > 0);
    const decades = log && used.length ? Math.log10(used.at(-1) / used[0]) : 0;
    if (decades < 2) return log ? splits.map((value) => ("125".includes(value.toExponential()[0]) ? value : null)) : splits;
    const every = Math.ceil((decades * 46) / length);
    return splits.map((value) => {
      const power = Math.log10(value);
      return Math.abs(power - Math.round(power)) < 1e-6 && Math.round(power) % every === 0 ? value : null;
    });
  };
  const grid = { stroke: isDark() ? "#2b3137" : "#ececeb", width: 1, filter: kept };
  return {
    stroke: ink, grid, ticks: grid, label, labelSize: label ? 18 : 0, size: label ? size : size - 14,
    labelFont: "12px system-ui", font: "12px system-ui", filter: kept,
    values: (plot, splits) => splits.map((value) => (value === null ? "" : tick(value))),
  };
}

function tick(value) {
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e5)) return Number(value.toPrecision(3)).toExponential().replace("e+", "e");
  return String(Number(value.toPrecision(6)));
}

/** One table for uPlot, which takes a common first column. */
export function joined(each, isLogX, isLogY, xLabel = "time") {
  const inks = INKS[isDark() ? "dark" : "light"];
  const usable = (x) => !isLogX || x > 0;
  const shown = (value) => (value === null || value === undefined || (isLogY && value <= 0) ? null : value);
  const tables = [], series = [{ label: xLabel, value: (plot, value) => number(value, 4) }], bands = [];
  each.forEach((one, at) => {
    const ink = one.ink || inks[(one.color ?? at) % inks.length];
    const kept = one.x.map((_, index) => index).filter((index) => usable(one.x[index]));
    const xs = distinct(kept.map((index) => one.x[index]));
    const column = (values) => kept.map((index) => shown(values[index]));
    if (one.lower) {
      tables.push([xs, column(one.upper), column(one.lower)]);
      bands.push({ series: [series.length, series.length + 1], fill: `${ink}33` });
      const edge = { stroke: `${ink}55`, width: 1, points: { show: false } };
      series.push({ label: `${one.label}, upper`, ...edge }, { label: `${one.label}, lower`, ...edge });
      return;
    }
    tables.push([xs, column(one.y)]);
    series.push({
      label: one.label, stroke: ink, width: one.points ? 0 : 2, dash: one.dash,
      paths: one.points ? () => null : undefined,
      points: { show: Boolean(one.points) || kept.length < 2, size: 7, fill: ink },
      value: (plot, value) => (value === null || value === undefined ? "–" : number(value, 4)),
    });
  });
  if (tables.every(([xs]) => xs.length === 0)) return [[[]], series, bands];
  return [window.uPlot.join(tables), series, bands];
}

/** Increasing numbers, where equal ones are set apart by less than is seen: a join keeps one of them. */
function distinct(xs) {
  let before = -Infinity;
  return xs.map((x) => (before = x > before ? x : before + Math.max(Math.abs(before) * 1e-12, Number.MIN_VALUE)));
}

function summary(each) {
  return each.filter((one) => one.y && one.y.length).slice(0, 6).map((one) => {
    const values = one.y.filter((value) => value !== null);
    if (!values.length) return `${one.label}: no values`;
    const [low, high] = [Math.min(...values), Math.max(...values)];
    return `${one.label} from ${number(values[0])} to ${number(values.at(-1))}, between ${number(low)} and ${number(high)}`;
  }).join("; ");
}

// Stops of a map that rises evenly in lightness, dark blue over teal to yellow.
const STOPS = [[28, 16, 68], [36, 66, 120], [24, 112, 124], [62, 158, 106], [158, 196, 72], [250, 231, 90]];

/** A field over time: a column for each time, a row for each state; null is grey. */
export function heatMap(title, times, columns, [low, high]) {
  const [width, height] = [columns.length, columns[0].length];
  const canvas = h("canvas", { class: "field", width, height, role: "img",
    "aria-label": `${title}: ${height} states over ${width} times, values from ${number(low)} to ${number(high)}` });
  canvas.style.height = `${Math.min(280, Math.max(120, 2 * height))}px`;
  const image = new ImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  const scale = (COLOURS.length - 1) / (high - low || 1);
  columns.forEach((column, x) => {
    for (let row = 0; row < height; row++) {
      const value = column[row];
      const at = Math.min(COLOURS.length - 1, Math.max(0, Math.round((value - low) * scale)));
      pixels[(height - 1 - row) * width + x] = value === null ? GREY : COLOURS[at];
    }
  });
  canvas.getContext("2d").putImageData(image, 0, 0);
  return h("figure", { class: "plot" }, h("h3", null, title), canvas,
    h("figcaption", { class: "soft" }, `time from ${number(times[0])} to ${number(times.at(-1))}, states upwards; dark ${number(low)}, bright ${number(high)}`));
}

const GREY = 0xff808080;
const COLOURS = Uint32Array.from({ length: 256 }, (_, index) => {
  const at = (index / 255) * (STOPS.length - 1);
  const below = Math.min(STOPS.length - 2, Math.floor(at));
  const [red, green, blue] = STOPS[below].map((value, channel) => Math.round(value + (at - below) * (STOPS[below + 1][channel] - value)));
  return (255 << 24) | (blue << 16) | (green << 8) | red;
});

/** Times for the columns of a field, evenly over the axis. */
export function evenTimes(first, last, count, isLog) {
  const part = (at) => at / (count - 1);
  return Array.from({ length: count }, (_, at) => (isLog ? first * (last / first) ** part(at) : first + part(at) * (last - first)));
}

/** Rows between their times on a straight line; null where one of two is missing. */
export function resampled(times, rows, wanted) {
  let at = 0;
  return wanted.map((time) => {
    while (at < times.length - 2 && times[at + 1] <= time) at++;
    const [left, right] = [rows[at], rows[Math.min(at + 1, rows.length - 1)]];
    const span = (times[at + 1] ?? times[at]) - times[at];
    const part = span > 0 ? Math.min(1, Math.max(0, (time - times[at]) / span)) : 0;
    if (part === 0 || part === 1) return part === 0 ? left : right;
    return left.map((value, state) => (value === null || right[state] === null ? null : value + part * (right[state] - value)));
  });
}

/** Smallest and largest of lists of numbers, null left out. */
export function range(columns) {
  let [low, high] = [Infinity, -Infinity];
  for (const column of columns) {
    for (const value of column) {
      if (value === null) continue;
      if (value < low) low = value;
      if (value > high) high = value;
    }
  }
  return low > high ? [0, 1] : [low, high];
}
