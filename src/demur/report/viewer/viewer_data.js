"use strict";
// What the file holds: the facts of the run, and the steps of one generation at a time, decoded when it is asked for.

const MISSING = 0xffff;

const byId = (id) => document.getElementById(id);
const run = JSON.parse(byId("run").textContent);
const records = byId("records").textContent;
const count = run.ids.length;

/** The bytes of one record; each is a whole number of base64 groups, so it can be cut out and read alone. */
function recordOf(place) {
  const coded = records.slice(run.offsets[place], run.offsets[place + 1]);
  return Uint8Array.from(atob(coded), (c) => c.charCodeAt(0));
}

/**
 * One generation: `signal` and `text` (a number or null a step), `committedAt` (a step or 0 a position), and `codes`
 * and `changed`, both [step - 1][position]. How a record is laid out is told in packing.py.
 */
function generationAt(place) {
  const bytes = recordOf(place);
  const view = new DataView(bytes.buffer);
  let at = 0;
  const short = () => view.getUint16((at += 2) - 2, true);
  const shorts = (length) => Array.from({ length }, short);
  const code = () => {
    let value = 0;
    for (let i = 0; i < run.width; i++) value += bytes[at++] * 256 ** i;
    return value;
  };
  const share = (value) => (value === MISSING ? null : value / (MISSING - 1));

  const signal = shorts(run.steps).map(share);
  const text = shorts(run.steps).map(share);
  const committedAt = shorts(run.response);
  const still = new Array(run.response).fill(false);
  const changed = [still];
  for (let step = 2; step <= run.steps; step++) {
    changed.push(run.revises ? still.map((_, i) => Boolean((bytes[at + (i >> 3)] >> (i & 7)) & 1)) : still);
    if (run.revises) at += Math.ceil(run.response / 8);
  }
  const codes = [Array.from({ length: run.response }, code)];
  for (let step = 2; step <= run.steps; step++) {
    const last = codes[step - 2];
    const moved = changed[step - 1];
    codes.push(moved.includes(true) ? last.map((old, i) => (moved[i] ? code() : old)) : last);
  }
  return { place, signal, text, committedAt, changed, codes };
}

const ends = new Set(run.ends);
const blanks = new Set(run.blanks);

/** What one position looks like after a step; step 0 is before the first one. */
function cellAt(generation, step, position) {
  const at = generation.committedAt[position];
  const committed = at > 0 && at <= step;
  const code = step > 0 ? generation.codes[step - 1][position] : -1;
  if (step === 0 || (!committed && (!run.revises || blanks.has(code)))) return { state: "blank", code: -1 };
  return {
    state: committed ? "committed" : "predicted",
    code,
    end: ends.has(code),
    changed: generation.changed[step - 1][position],
    fresh: committed && at === step,
    edited: committed && at < step && generation.changed[step - 1][position],
  };
}

/** The words of the file: tokens by code, prompts and answers by generation. Null where it holds none. */
function readWords() {
  const element = byId("words");
  return element && JSON.parse(element.textContent);
}
