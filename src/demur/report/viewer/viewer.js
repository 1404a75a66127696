// The player: which generation and step are shown, and every way to move between them.

let generation = null;
let step = 0;
let timer = 0;
let words = null; // read from the file when they are first asked for
let wordsShown = false;
let cells = [];

const playing = () => timer !== 0;

/** A token as it stands in a cell: one line, nothing invisible. */
function shown(cell) {
  if (cell.end) return "∎";
  if (!wordsShown || cell.code < 0) return "";
  const text = words.tokens[cell.code].replaceAll("\n", "↵").replaceAll("\t", "⇥");
  return text.trim() ? text : text.replaceAll(" ", "␣");
}

const quoted = (cell) => (wordsShown && cell.code >= 0 ? ` “${words.tokens[cell.code].slice(0, 80)}”` : "");

/** The widest token that ever stands at a position, in characters: cells keep their places while steps pass. */
function widthAt(position) {
  let widest = 1;
  for (let at = 1; at <= run.steps; at++) {
    widest = Math.max(widest, [...shown(cellAt(generation, at, position)).slice(0, 40)].length);
  }
  return Math.min(widest, 14);
}

function layGrid() {
  const grid = byId("grid");
  cells = Array.from({ length: run.response }, (_, i) => {
    const cell = document.createElement("li");
    cell.addEventListener("click", () => inspect(i));
    if (wordsShown) cell.style.inlineSize = `calc(${widthAt(i)}ch + 1rem)`;
    return cell;
  });
  grid.classList.toggle("with-words", wordsShown);
  grid.replaceChildren(...cells);
}

function drawGrid() {
  const chosen = byId("position").valueAsNumber - 1;
  const thought = new Set(run.thoughts[generation.place] ?? []);
  const seen = { committed: 0, predicted: 0, blank: 0, changed: 0, fresh: 0, edited: 0 };
  cells.forEach((element, i) => {
    const cell = cellAt(generation, step, i);
    const marks = ["end", "changed", "fresh", "edited"].filter((mark) => cell[mark]);
    seen[cell.state] += 1;
    for (const mark of marks) if (mark !== "end") seen[mark] += 1;
    if (cell.state !== "blank" && thought.has(i)) marks.push("thought");
    element.className = ["cell", cell.state, ...marks, i === chosen ? "chosen" : ""].join(" ").trim();
    element.textContent = shown(cell);
    const state = cell.state === "blank" ? run.blank : cell.state;
    const said = marks.map((mark) => ({ end: "end of sequence", changed: "changed", fresh: "at this step", edited: "edited", thought: "thought" })[mark]);
    element.setAttribute("aria-label", `${i + 1}: ${[state, ...said].join(", ")}${quoted(cell)}`);
  });
  return seen;
}

function summary(seen) {
  if (step === 0) return `Before the first step: ${seen.blank} ${run.blank}.`;
  const parts = [`${seen.committed} committed (${seen.fresh} now)`];
  if (run.revises) parts.push(`${seen.predicted} predicted`, `${seen.changed} changed`);
  if (seen.edited) parts.push(`${seen.edited} edited`);
  if (seen.blank) parts.push(`${seen.blank} ${run.blank}`);
  return `${parts.join(", ")}.`;
}

function reading() {
  const value = step > 0 ? generation.signal[step - 1] : null;
  return value === null ? "" : `Signal ${value.toFixed(2)} at step ${step}.`;
}

/** What became of one position up to the last step, in words. */
function historyOf(position) {
  const events = [];
  for (let at = 1; at <= run.steps; at++) {
    const cell = cellAt(generation, at, position);
    const end = cell.end ? " (end of sequence)" : "";
    const seen = [];
    if (cell.state === "predicted" && at === 1) seen.push("predicted");
    if (cell.changed && cell.state !== "blank") seen.push(cell.edited ? "edited" : "changed");
    if (cell.fresh) seen.push("committed");
    if (seen.length) events.push(`${seen.join(" and ")} at step ${at}${quoted(cell)}${end}`);
  }
  const last = generation.committedAt[position] ? "" : "never committed";
  return `${[...events, last].filter(Boolean).join(", ")}.`;
}

function inspect(position) {
  byId("position").value = String(position + 1);
  draw();
}

/** Show the current step of the current generation. */
function draw() {
  const seen = drawGrid();
  byId("slider").value = String(step);
  byId("slider").setAttribute("aria-valuetext", step ? `step ${step} of ${run.steps}` : "before the first step");
  byId("where").textContent = `${step} of ${run.steps}`;
  byId("summary").textContent = summary(seen);
  byId("reading").textContent = reading();
  const at = byId("position").valueAsNumber - 1;
  byId("history").textContent = cells[at] ? historyOf(at) : "Choose a position to read what became of it.";
  markWhole(byId("whole"), step);
  if (!playing()) keepPlace();
  drawChart(byId("chart"), generation, step, `Signal over ${run.steps} steps. ${reading()}`);
  byId("guard-words").textContent = drawGuard(byId("guard"), run.errors[generation.place], run.limit);
}

function drawVerdict(i) {
  const badges = verdictOf(i).map((word) => {
    const badge = document.createElement("span");
    badge.className = `badge ${word.replaceAll(" ", "-")}`;
    badge.textContent = word;
    return badge;
  });
  const where = [nameIn("groups", i), nameIn("sets", i)].map((name) => name.slice(0, 80)).filter(Boolean).join(", ");
  byId("verdict").replaceChildren(...badges, document.createTextNode(where));
}

/** Turn to another generation, at its last step unless another one is asked for. */
function show(place, at = run.steps) {
  generation = generationAt(place);
  step = Math.max(0, Math.min(run.steps, at));
  byId("name").textContent = run.ids[place];
  drawVerdict(place);
  layGrid();
  showWords();
  drawWhole(byId("whole"), generation);
  draw();
  drawList(place, true);
}

function goTo(wanted) {
  step = Math.max(0, Math.min(run.steps, wanted));
  if (step === run.steps) pause();
  draw();
}

/** Turn to the generation `by` places further among those that match. */
function move(by) {
  const at = matches.indexOf(generation.place);
  const next = matches[at < 0 ? 0 : at + by];
  if (next !== undefined) show(next);
}

function pause() {
  clearInterval(timer);
  timer = 0;
  tellPlaying();
}

function play() {
  if (step === run.steps) step = 0;
  clearInterval(timer);
  timer = setInterval(() => goTo(step + 1), 1000 / Number(byId("speed").value));
  tellPlaying();
  draw();
}

function tellPlaying() {
  document.body.classList.toggle("playing", playing());
  byId("play-word").textContent = playing() ? "Pause" : "Play";
  byId("summary").setAttribute("aria-live", playing() ? "off" : "polite"); // not sixteen times a second
}

function showWords() {
  if (!words) return;
  byId("words-shown").hidden = !wordsShown;
  byId("prompt").textContent = wordsShown ? words.prompts[generation.place] : "";
  byId("answer").textContent = wordsShown ? words.answers[generation.place] : "";
}

function reveal() {
  words ??= readWords();
  wordsShown = !wordsShown;
  byId("reveal").setAttribute("aria-pressed", String(wordsShown));
  byId("words-hidden").hidden = wordsShown;
  byId("reveal").textContent = wordsShown ? "Hide text" : "Show text";
  layGrid();
  showWords();
  textChanged();
  draw();
  drawList(generation.place, true);
}

const KEYS = {
  ArrowLeft: () => goTo(step - 1),
  ArrowRight: () => goTo(step + 1),
  Home: () => goTo(0),
  End: () => goTo(run.steps),
  ArrowUp: () => move(-1),
  ArrowDown: () => move(1),
  k: () => move(-1),
  j: () => move(1),
  " ": () => (playing() ? pause() : play()),
};

function onKey(event) {
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const target = event.target;
  if (!KEYS[key] || event.ctrlKey || event.metaKey || event.altKey) return;
  if (target.matches("select, pre, input:not([type=range])")) return; // these have their own use for the keys
  if (key === " " && target.matches("button, summary")) return;
  event.preventDefault();
  KEYS[key]();
}

function start() {
  fillFilters();
  filterList();
  if (matchMedia("(max-width: 60rem)").matches) byId("choose").open = false;
  const asked = placeAsked() ?? { place: run.telling, at: run.steps, text: false };
  show(asked.place, asked.at);
  if (asked.text && byId("reveal")) reveal();

  byId("play").addEventListener("click", KEYS[" "]);
  byId("before").addEventListener("click", KEYS.ArrowLeft);
  byId("after").addEventListener("click", KEYS.ArrowRight);
  byId("previous").addEventListener("click", KEYS.k);
  byId("next").addEventListener("click", KEYS.j);
  byId("reveal")?.addEventListener("click", reveal);
  byId("slider").addEventListener("input", () => goTo(Number(byId("slider").value)));
  byId("speed").addEventListener("change", () => playing() && play());
  byId("position").addEventListener("input", draw);
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("filters").addEventListener("input", () => {
    filterList();
    drawList(generation.place, false);
  });
  byId("list").addEventListener("scroll", () => drawList(generation.place, false));
  byId("choose").addEventListener("toggle", () => drawList(generation.place, true));
  document.addEventListener("keydown", onKey);
  addEventListener("hashchange", () => {
    const now = placeAsked();
    if (now) show(now.place, now.at);
  });
  new ResizeObserver(draw).observe(byId("chart"));
}

start();
