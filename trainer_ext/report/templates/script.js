"use strict";
document.documentElement.classList.add("scripted");

function element(tag, properties) { return Object.assign(document.createElement(tag), properties); }

// Pictures through training: one picture with a slider in place of the strip.
const settings = [];
for (const card of document.querySelectorAll(".card")) {
  if (!card.querySelector(".strip")) continue;
  const frames = [...card.querySelectorAll(".frame")].sort((a, b) => a.dataset.updates - b.dataset.updates);
  const stage = frames[0].cloneNode(true);
  stage.classList.add("stage");
  const range = element("input", { type: "range", min: 0, max: frames.length - 1, value: frames.length - 1 });
  range.setAttribute("aria-label", "moment of training");
  const show = () => {
    stage.innerHTML = frames[range.value].innerHTML;
    stage.querySelector("figcaption").prepend(element("b", { textContent: "slider" }), element("br"));
    for (const mark of stage.querySelectorAll("b:not(:first-of-type), b:not(:first-of-type) + br")) mark.remove();
    range.setAttribute("aria-valuetext", "update " + frames[range.value].dataset.updates);
  };
  range.addEventListener("input", show);
  settings.push((share) => { range.value = Math.round(share * (frames.length - 1)); show(); });
  card.querySelector(".marked").append(stage);
  const line = element("p", { className: "slider" });
  line.append("through training", range);
  card.querySelector(".strip").after(line);
  show();
}
const all = document.getElementById("all-moments");
if (all && settings.length) {
  const range = element("input", { type: "range", min: 0, max: 100, value: 100 });
  range.setAttribute("aria-label", "moment of training, for all prompts");
  range.addEventListener("input", () => settings.forEach((set) => set(range.value / 100)));
  all.append("All prompts through training", range);
  all.hidden = false;
}

// Tables: a button in each heading sorts the rows; a cell's number is in data-value.
for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((heading, column) => {
    const button = element("button", { type: "button", textContent: heading.textContent });
    button.addEventListener("click", () => sort(table, heading, column));
    heading.replaceChildren(button);
  });
}
function sort(table, heading, column) {
  const direction = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
  const rows = [...table.tBodies[0].rows].map((row) => [row, key(row.cells[column])]);
  rows.sort(([, a], [, b]) => compare(a, b, direction));
  table.tBodies[0].append(...rows.map(([row]) => row));
}
function key(cell) {
  const value = cell.dataset.value;
  return value === undefined ? cell.textContent.trim() : Number.parseFloat(value);
}
function compare(a, b, direction) {  // what has no number comes last
  const missing = [a, b].map((value) => Number.isNaN(value) || value === "–");
  if (missing[0] || missing[1]) return missing[0] - missing[1];
  return direction * (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
}

// On paper, everything is open but long prompts.
addEventListener("beforeprint", () => document.querySelectorAll("details:not(.prompt)").forEach((one) => { one.open = true; }));

// The blind vote: answers are saved as a file, in this browser only.
const ballot = document.getElementById("ballot");
if (ballot) {
  const count = document.getElementById("count");
  const answers = () => Object.fromEntries(new FormData(ballot));
  const tell = () => { count.textContent = Object.keys(answers()).length + " of " + ballot.dataset.pairs + " answered"; };
  ballot.addEventListener("change", tell);
  ballot.addEventListener("submit", (event) => {
    event.preventDefault();
    const content = JSON.stringify({ ballot: ballot.dataset.ballot, votes: answers() }, null, 1);
    const link = element("a", { download: "votes.json", href: URL.createObjectURL(new Blob([content], { type: "application/json" })) });
    link.click();
  });
  document.getElementById("save").disabled = false;
  tell();
}
