// What is said about the cell or point that the reader points at, and moving between cells with the keyboard.
const tip = make("div", { class: "tip", role: "tooltip", id: "explore-tip", hidden: true });
document.body.append(tip);
let pointed = null;

function lines(row, key, table) {
  const cell = row.cells[key];
  const found = [make("b", {}, `${row.name}, ${labelOf(key, table)}`)];
  const say = (text) => found.push(make("p", {}, text));
  if (!cell && !["acceptance", "seeds"].includes(key)) say("no result");
  if (cell) {
    say(said(cell, "Mean", { seconds: " s", added_megabytes: " MB" }[key] || ""));
    if (cell.gap) say(said(cell.gap, key.startsWith("class") ? "Difference from Retrain" : "Gap to Retrain", ""));
    const spans = cell.intervals || [];
    cell.seeds.forEach((value, place) => {
      const gap = cell.gap && cell.gap.seeds[place] ? `, gap ${cell.gap.seeds[place]}` : "";
      const span = spans[place] ? ` (95 % interval ${spans[place]})` : "";
      if (value !== null) say(`seed ${row.seeds[place]}: ${value}${span}${gap}`);
    });
  }
  if (row.seeds.length < row.asked) say(`${row.seeds.length} of ${row.asked} seeds have a result`);
  if (row.answers) say(`acceptance test: ${row.answers}`);
  if (row.command) found.push(make("pre", {}, row.command));
  return found;
}

function said(part, what, unit) {
  const spread = part.std === null ? "" : `, standard deviation ${part.std}`;
  return `${what} ${part.mean}${unit}${spread}`;
}

function labelOf(key, table) {
  const metric = table.metrics.find((found) => found.key === key);
  if (metric) return metric.label;
  const head = document.querySelector(`th[data-key="${CSS.escape(key)}"]`).textContent;
  return key.startsWith("class") ? `class ${head.replace(/ \*$/, "")}` : head;
}

function show(element, content, pinned) {
  if (pointed && pointed !== element) clear();
  pointed = element;
  element.classList.add("pointed");
  element.setAttribute("aria-describedby", tip.id);
  tip.replaceChildren(...content);
  tip.classList.toggle("pinned", pinned);
  tip.hidden = false;
  const at = element.getBoundingClientRect(), own = tip.getBoundingClientRect();
  const below = at.bottom + 6 + own.height <= innerHeight || at.top < own.height + 6;
  tip.style.top = `${Math.max(4, below ? at.bottom + 6 : at.top - own.height - 6)}px`;
  tip.style.left = `${Math.max(4, Math.min(at.left, document.documentElement.clientWidth - own.width - 4))}px`;
}

function clear() {
  if (pointed) {
    pointed.classList.remove("pointed");
    pointed.removeAttribute("aria-describedby");
  }
  pointed = null;
  tip.hidden = true;
  tip.classList.remove("pinned");
}

const isPinned = () => tip.classList.contains("pinned");

function answering(element, content) {
  // A click keeps it, so that the command can be selected.
  element.addEventListener("pointerenter", () => { if (!isPinned()) show(element, content(), false); });
  element.addEventListener("pointerleave", () => { if (!isPinned() && document.activeElement !== element) clear(); });
  element.addEventListener("focus", () => show(element, content(), false));
  element.addEventListener("blur", () => { if (!isPinned()) clear(); });
  element.addEventListener("click", () => show(element, content(), true));
  element.addEventListener("keydown", (event) => { if (event.key === "Enter") show(element, content(), true); });
}

document.addEventListener("keydown", (event) => { if (event.key === "Escape") clear(); });
document.addEventListener("pointerdown", (event) => {
  if (isPinned() && !tip.contains(event.target)) clear();
});
addEventListener("scroll", () => { if (!isPinned()) clear(); }, { passive: true });

function reachable(table) {
  return [...table.querySelectorAll("tbody tr:not([hidden]) td[data-key]")];
}

// One cell of a table is a stop of the Tab key; arrows go on from there.
function rove(table, cell) {
  const cells = reachable(table);
  const chosen = cell ?? (cells.includes(table.stop) ? table.stop : cells[0]);
  if (table.stop) table.stop.tabIndex = -1;
  table.stop = chosen;
  if (chosen) chosen.tabIndex = 0;
}

const STEPS = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] };

function pointable(table) {
  table.setAttribute("role", "grid");
  for (const td of table.querySelectorAll("td[data-key]")) {
    td.tabIndex = -1;
    answering(td, () => {
      const { table: of, row } = rowOf(td);
      return row ? lines(row, td.dataset.key, of) : [make("b", {}, "no result")];
    });
    td.addEventListener("focus", () => rove(table, td));
  }
  table.addEventListener("keydown", (event) => {
    const step = STEPS[event.key], td = event.target.closest("td[data-key]");
    if (!step || !td) return;
    const rows = [...table.tBodies[0].rows].filter((tr) => tr.dataset.row && !tr.hidden);
    const cells = [...td.parentNode.querySelectorAll("td[data-key]")];
    const tr = rows[rows.indexOf(td.parentNode) + step[0]];
    const next = tr && tr.querySelectorAll("td[data-key]")[cells.indexOf(td) + step[1]];
    if (next) next.focus();
    event.preventDefault();
  });
}
