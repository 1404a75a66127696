// The signal of one generation over the steps, as an SVG that is drawn anew for every step and width.

const SVG = "http://www.w3.org/2000/svg";
const CHART = { height: 270, left: 52, right: 92, top: 14, bottom: 40 };

function shape(name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

/** Pixels of a step and of a value, for a chart of some width. */
function scales(width) {
  const inner = width - CHART.left - CHART.right;
  const tall = CHART.height - CHART.top - CHART.bottom;
  return {
    x: (step) => CHART.left + (run.steps > 1 ? ((step - 1) / (run.steps - 1)) * inner : inner / 2),
    y: (value) => CHART.top + (1.04 - value) * (tall / 1.08), // room around 0 and 1
    stepAt: (pixel) => Math.round(1 + ((pixel - CHART.left) / inner) * (run.steps - 1)),
  };
}

function path(values, { x, y }, stepped) {
  let drawn = "";
  values.forEach((value, i) => {
    if (value === null) return;
    const point = `${x(i + 1).toFixed(1)} ${y(value).toFixed(1)}`;
    if (!drawn) drawn = `M${point}`;
    else drawn += stepped ? `H${x(i + 1).toFixed(1)}V${y(value).toFixed(1)}` : `L${point}`;
  });
  return drawn;
}

/** The lines of the chart: class, words at its end, values. */
function linesOf(generation) {
  const [harmless, harmful] = run.references ?? [];
  return [
    { kind: "text", words: ["text level"], values: generation.text },
    { kind: "harmless", words: ["harmless,", "answered"], values: harmless ?? [] },
    { kind: "harmful", words: ["harmful,", "refused"], values: harmful ?? [] },
    { kind: "sigma", words: ["this signal"], values: generation.signal },
  ].filter((line) => line.values.some((value) => value !== null));
}

/** Put the labels beside the ends of their lines, and apart where lines end together. */
function labelEnds(svg, lines, scale, width) {
  const labels = lines
    .map((line) => ({ ...line, half: line.words.length * 7.5, y: scale.y(line.values.at(-1) ?? 0) }))
    .sort((a, b) => a.y - b.y);
  let floor = 0;
  for (const label of labels) {
    label.y = Math.max(label.y, floor + label.half);
    floor = label.y + label.half;
  }
  let ceiling = CHART.height - CHART.bottom + 12;
  for (const label of labels.reverse()) {
    label.y = Math.min(label.y, ceiling - label.half);
    ceiling = label.y - label.half;
    label.words.forEach((word, i) => {
      const y = label.y - label.half + 15 * i + 11.5;
      svg.append(shape("text", { x: width - CHART.right + 12, y, class: `label ${label.kind}` }, word));
    });
  }
}

function drawAxes(svg, scale, width) {
  const end = width - CHART.right;
  for (const value of [0, 0.5, 1]) {
    svg.append(shape("line", { x1: CHART.left, x2: end, y1: scale.y(value), y2: scale.y(value), class: "rule" }));
    svg.append(shape("text", { x: CHART.left - 8, y: scale.y(value) + 4, class: "tick y" }, String(value)));
  }
  const ticks = new Set([1, ...[0.25, 0.5, 0.75, 1].map((part) => Math.max(1, Math.round(part * run.steps)))]);
  for (const step of ticks) {
    svg.append(shape("text", { x: scale.x(step), y: CHART.height - CHART.bottom + 18, class: "tick" }, String(step)));
  }
  svg.append(shape("text", { x: (CHART.left + end) / 2, y: CHART.height - 5, class: "tick" }, "step"));
  const middle = scale.y(0.5);
  const turned = { x: 13, y: middle, transform: `rotate(-90 13 ${middle})`, class: "tick" };
  svg.append(shape("text", turned, "1 = complies, 0 = refuses"));
}

/** Draw the chart into `holder`; `describe` is what it says to a reader who does not see it. */
function drawChart(holder, generation, step, describe) {
  const width = Math.max(holder.clientWidth, 240);
  const scale = scales(width);
  const svg = shape("svg", { viewBox: `0 0 ${width} ${CHART.height}`, role: "img", "aria-label": describe });
  drawAxes(svg, scale, width);
  const lines = linesOf(generation);
  for (const line of lines) {
    svg.append(shape("path", { d: path(line.values, scale, line.kind === "text"), class: `line ${line.kind}` }));
  }
  labelEnds(svg, lines, scale, width);
  if (step > 0) {
    const x = scale.x(step);
    svg.append(shape("line", { x1: x, x2: x, y1: scale.y(1), y2: scale.y(0), class: "now" }));
    const value = generation.signal[step - 1];
    if (value !== null) svg.append(shape("circle", { cx: x, cy: scale.y(value), r: 5.5, class: "now" }));
  }
  svg.addEventListener("click", (event) => {
    goTo(scale.stepAt(((event.clientX - svg.getBoundingClientRect().left) / svg.clientWidth) * width));
  });
  holder.replaceChildren(svg);
}

/** The guard's error as a bar from 0 to twice its limit, which is marked, and the same in words. */
function drawGuard(holder, error, limit) {
  const width = Math.max(holder.clientWidth, 240);
  const times = error === null || !(limit > 0) ? null : error / limit;
  holder.parentElement.hidden = times === null;
  if (times === null) return "";
  const said = `Error ${error.toPrecision(3)}, ${times < 10 ? times.toPrecision(2) : Math.round(times)} times the limit of ${limit.toPrecision(3)}.`;
  const svg = shape("svg", { viewBox: `0 0 ${width} 50`, role: "img", "aria-label": said });
  const middle = width / 2;
  const end = Math.min(times / 2, 1) * width;
  svg.append(shape("rect", { x: 0.5, y: 4.5, width: width - 1, height: 20, class: "track" }));
  svg.append(shape("rect", { x: 0, y: 4, width: end, height: 21, class: times > 1 ? "bar over" : "bar" }));
  svg.append(shape("line", { x1: middle, x2: middle, y1: 0, y2: 30, class: "limit" }));
  if (times > 2) svg.append(shape("path", { d: `M${width - 16} 8l8 6.5l-8 6.5`, class: "beyond" }));
  svg.append(shape("text", { x: 0, y: 46, class: "tick start" }, "0"));
  svg.append(shape("text", { x: middle, y: 46, class: "tick" }, "limit"));
  svg.append(shape("text", { x: width, y: 46, class: "tick y" }, "twice the limit"));
  holder.replaceChildren(svg);
  return said;
}
