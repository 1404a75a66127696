// The list of generations: which of them match the filters, and the rows of those that are in sight.

const ROW = 52; // pixels, as in viewer.css
const SPARE = 4; // rows drawn above and below those in sight

const VERDICTS = {
  any: () => true,
  refused: (i) => run.refused[i] === true,
  "not refused": (i) => run.refused[i] === false,
  flagged: (i) => run.flagged[i] === true,
  "not flagged": (i) => run.flagged[i] === false,
  "flagged, not refused": (i) => run.flagged[i] === true && run.refused[i] === false,
};
const SORTS = {
  "as recorded": null,
  "highest guard error first": (a, b) => (run.errors[b] ?? -1) - (run.errors[a] ?? -1),
  "largest fall of the signal first": (a, b) => run.falls[b] - run.falls[a],
  id: (a, b) => (run.ids[a] < run.ids[b] ? -1 : Number(run.ids[a] > run.ids[b])),
};
const COLUMNS = ["sets", "groups", "attacks"];

let matches = [];

const nameIn = (column, i) => run[column].names[run[column].of[i]] ?? "";

/** What is known of a generation's outcome, in words. */
function verdictOf(i) {
  const words = [];
  if (run.refused[i] !== null) words.push(run.refused[i] ? "refused" : "not refused");
  if (run.flagged[i] !== null) words.push(run.flagged[i] ? "flagged" : "not flagged");
  return words;
}

function addOption(select, value, words) {
  const option = document.createElement("option");
  option.value = value;
  option.textContent = words.length > 40 ? `${words.slice(0, 39)}…` : words;
  select.append(option);
}

let haystacks = null; // what is searched, in lower case; made anew when text is shown or hidden

function searched(i) {
  haystacks ??= run.ids.map((id, at) =>
    (wordsShown ? `${id}\n${words.prompts[at]}\n${words.answers[at]}` : id).toLowerCase(),
  );
  return haystacks[i];
}

/** Search and list what may be shown now. */
function textChanged() {
  haystacks = null;
  byId("search-by").textContent = wordsShown ? "Search by id, prompt or answer" : "Search by id";
  filterList();
}

/** Fill the filters; one that leaves no choice is not shown. */
function fillFilters() {
  for (const column of COLUMNS) {
    const { names, of } = run[column];
    addOption(byId(column), "any", "any");
    if (of.includes(-1)) addOption(byId(column), "-1", "none");
    names.forEach((name, number) => addOption(byId(column), String(number), name));
    byId(column).parentElement.hidden = byId(column).options.length < 3;
  }
  for (const words of Object.keys(VERDICTS)) addOption(byId("verdicts"), words, words);
  for (const words of Object.keys(SORTS)) addOption(byId("sorts"), words, words);
  byId("verdicts").parentElement.hidden = [...run.refused, ...run.flagged].every((one) => one === null);
}

/** Find the generations that match the filters, and show how many they are. */
function filterList() {
  const wanted = byId("search").value.trim().toLowerCase();
  const verdict = VERDICTS[byId("verdicts").value];
  const chosen = COLUMNS.map((column) => [run[column].of, byId(column).value]).filter(([, value]) => value !== "any");
  matches = run.ids
    .map((_, i) => i)
    .filter((i) => verdict(i) && chosen.every(([of, value]) => of[i] === Number(value)))
    .filter((i) => !wanted || searched(i).includes(wanted));
  const order = SORTS[byId("sorts").value];
  if (order) matches.sort(order);
  byId("count").textContent = `${matches.length} of ${count}`;
  byId("rows").style.height = `${matches.length * ROW}px`;
  byId("list").scrollTop = 0;
}

function rowOf(at, current) {
  const i = matches[at];
  const row = document.createElement("div");
  row.id = `row-${i}`;
  row.className = "row";
  row.style.top = `${at * ROW}px`;
  row.setAttribute("role", "option");
  row.setAttribute("aria-selected", String(i === current));
  row.setAttribute("aria-posinset", String(at + 1));
  row.setAttribute("aria-setsize", String(matches.length));
  const id = document.createElement("bdi");
  const said = wordsShown ? words.prompts[i].slice(0, 80).replaceAll("\n", " ").trim() : "";
  id.textContent = said || run.ids[i].slice(0, 80);
  const about = document.createElement("span");
  about.className = "about";
  about.textContent = [...(said ? [run.ids[i].slice(0, 40)] : []), ...verdictOf(i), nameIn("groups", i).slice(0, 40)]
    .filter((word) => word && word !== "not flagged")
    .join(" · ");
  row.append(id, about);
  row.addEventListener("click", () => show(i));
  return row;
}

/** Draw the rows in sight; `reveal` scrolls the current one into it. */
function drawList(current, reveal) {
  const list = byId("list");
  const at = matches.indexOf(current);
  if (reveal && at >= 0) {
    const top = at * ROW;
    if (top < list.scrollTop) list.scrollTop = top;
    if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
  }
  const first = Math.max(0, Math.floor(list.scrollTop / ROW) - SPARE);
  const last = Math.min(matches.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + SPARE);
  const rows = Array.from({ length: Math.max(0, last - first) }, (_, i) => rowOf(first + i, current));
  byId("rows").replaceChildren(...rows);
  if (byId(`row-${current}`)) list.setAttribute("aria-activedescendant", `row-${current}`);
  else list.removeAttribute("aria-activedescendant");
}
