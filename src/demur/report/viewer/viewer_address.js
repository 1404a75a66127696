// The address of the page: which generation and step it names, and whether text is shown.

let keeping = 0;

/** Keep generation, step and whether text is shown in the address, once nothing has moved for a moment. */
function keepPlace() {
  clearTimeout(keeping);
  keeping = setTimeout(() => {
    const parts = [encodeURIComponent(run.ids[generation.place]), `step=${step}`];
    if (wordsShown) parts.push("text");
    history.replaceState(null, "", `#${parts.join("&")}`);
  }, 250);
}

/** The generation, step and text that the address asks for; null where it names no generation. */
function placeAsked() {
  const hash = location.hash.slice(1);
  const exact = run.ids.findIndex((id) => [id, encodeURI(id), encodeURIComponent(id)].includes(hash));
  if (exact >= 0) return { place: exact, at: run.steps, text: false };
  const [name, ...more] = hash.split("&");
  const place = run.ids.findIndex((id) => encodeURIComponent(id) === name);
  if (place < 0) return null;
  const at = more.map((one) => /^step=(\d+)$/.exec(one)?.[1]).find((one) => one !== undefined);
  return { place, at: at === undefined ? run.steps : Number(at), text: more.includes("text") };
}
