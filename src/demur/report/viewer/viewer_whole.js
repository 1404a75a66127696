// All steps of one generation in one picture: a column a step, a row a position, a pixel each.

const TALL = { most: 280, least: 90, row: 8 }; // pixels of the picture, and of a row where there is room

/** Red, green and blue of a colour of the style sheet, as numbers. */
function coloursOf(names) {
  const style = getComputedStyle(document.documentElement);
  const pen = document.createElement("canvas").getContext("2d");
  return names.map((name) => {
    pen.fillStyle = style.getPropertyValue(`--${name}`).trim();
    return [1, 3, 5].map((at) => parseInt(pen.fillStyle.slice(at, at + 2), 16));
  });
}

/** Draw every cell of a generation; a click goes to its step and position. */
function drawWhole(holder, generation) {
  const canvas = document.createElement("canvas");
  canvas.width = run.steps;
  canvas.height = run.response;
  const pen = canvas.getContext("2d");
  const image = pen.createImageData(run.steps, run.response);
  const [blank, predicted, committed, changed, end] = coloursOf(["soft", "guess", "done", "turn", "edge"]);
  for (let step = 1; step <= run.steps; step++) {
    for (let position = 0; position < run.response; position++) {
      const cell = cellAt(generation, step, position);
      let colour = { blank, predicted, committed }[cell.state];
      if (cell.state !== "blank" && cell.end) colour = end;
      if (cell.edited || (cell.state === "predicted" && cell.changed)) colour = changed;
      image.data.set([...colour, 255], 4 * (position * run.steps + step - 1));
    }
  }
  pen.putImageData(image, 0, 0);
  canvas.style.height = `${Math.max(TALL.least, Math.min(TALL.most, TALL.row * run.response))}px`;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `Every position at each of ${run.steps} steps: masked, predicted or committed.`);
  canvas.addEventListener("click", (event) => {
    const box = canvas.getBoundingClientRect();
    const within = (share, last) => Math.max(0, Math.min(last - 1, Math.floor(share * last)));
    byId("position").value = String(within((event.clientY - box.top) / box.height, run.response) + 1);
    goTo(within((event.clientX - box.left) / box.width, run.steps) + 1);
  });
  const marker = document.createElement("div");
  marker.className = "at-step";
  holder.replaceChildren(canvas, marker);
}

/** Mark the current step in the picture. */
function markWhole(holder, step) {
  const marker = holder.querySelector(".at-step");
  marker.hidden = step === 0;
  marker.style.left = `${((step - 1) / run.steps) * 100}%`;
  marker.style.width = `${100 / run.steps}%`;
}
