// What the reader chose, and the tables that follow it. Texts go into the page as text, never as HTML.
const SVG = "http://www.w3.org/2000/svg";
const data = JSON.parse(document.getElementById("explore-data").textContent);
const tables = [...document.querySelectorAll("table.explore")];
const state = { words: "", hidden: new Set(), groups: new Set(), answers: new Set(), gaps: false };
const GROUPS = { aware: "with labels", agnostic: "without labels" };

function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== null) element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

function methods() {
  // Name and group of every row that is a method, by its id, in the order of the tables.
  const found = new Map();
  for (const table of data.cases)
    for (const tr of document.querySelectorAll("tr[data-row]")) {
      const row = table.rows[tr.dataset.row];
      if (row && row.group && !found.has(tr.dataset.row)) found.set(tr.dataset.row, row);
    }
  return found;
}

function rowOf(td) {
  const table = data.cases[td.dataset.case ?? td.closest("table").dataset.case];
  return { table, row: table.rows[td.parentNode.dataset.row] };
}

function cellOf(td) {
  const { row } = rowOf(td);
  return row && row.cells[td.dataset.key];
}

// What a cell shows: the gap where gaps are asked for and it has one. Retrain's own stays, to be compared with.
function shownOf(cell) {
  return state.gaps && cell.gap ? cell.gap : cell;
}

function isShown(id, rows) {
  const found = rows.filter((row) => row);
  if (!found.length || !found[0].group) return true;
  const row = found[0];
  return row.name.toLowerCase().includes(state.words) && !state.hidden.has(id) && !state.groups.has(row.group)
    && (!state.answers.size || !found.every((row) => state.answers.has(row.decision)));
}

function isRowShown(id, number) {
  return isShown(id, [data.cases[number].rows[id]]);
}

function update() {
  for (const table of tables) {
    for (const tr of table.tBodies[0].rows)
      if (tr.dataset.row) {
        const cases = new Set([...tr.querySelectorAll("td[data-key]")].map((td) => td.dataset.case ?? table.dataset.case));
        tr.hidden = !isShown(tr.dataset.row, [...cases].map((number) => data.cases[number].rows[tr.dataset.row]));
        for (const td of tr.querySelectorAll("td[data-key]")) write(td);
      }
    sort(table);
    rove(table);
  }
  for (const element of document.querySelectorAll("[data-of-row]"))
    element.hidden = !isRowShown(element.dataset.ofRow, element.dataset.case);
  const every = [...methods().keys()];
  const left = every.filter((id) => isShown(id, data.cases.map((table) => table.rows[id])));
  const count = document.getElementById("explore-count");
  if (count) count.textContent = `${left.length} of ${every.length} methods shown`;
  scatters.forEach((draw) => draw());
}

function write(td) {
  const cell = cellOf(td);
  if (!cell || !cell.gap) return;
  td.own ??= [...td.childNodes];
  const shown = shownOf(cell);
  const heat = td.closest("table").classList.contains("heat");
  if (shown === cell) td.replaceChildren(...td.own);
  else td.replaceChildren(shown.text, ...(shown.below && !heat ? [make("small", {}, shown.below)] : []));
  if (!heat) return;
  td.style.setProperty("--strength", (0.6 * (shown === cell ? shown.value / 100 : Math.sqrt(Math.abs(shown.value) / 100))).toFixed(3));
  td.classList.toggle("down", shown.value < 0);
}

function sort(table) {
  const body = table.tBodies[0];
  table.order ??= [...body.rows];
  const by = table.sorted;
  const value = (tr) => {
    const td = tr.cells[by.column];
    if (!by.column) return td.textContent.toLowerCase();
    const cell = cellOf(td);
    return cell ? shownOf(cell).value : td.dataset.key === "acceptance" ? td.textContent : null;
  };
  let order = table.order;
  if (by) {
    const fixed = order.filter((tr) => tr.dataset.row && tr.dataset.row.startsWith("/"));
    const ranked = order.filter((tr) => tr.dataset.row && !fixed.includes(tr)).map((tr) => [value(tr), tr]);
    const last = ranked.filter(([found]) => found === null);
    const known = ranked.filter(([found]) => found !== null);
    known.sort(([a], [b]) => by.sign * (a < b ? -1 : a > b ? 1 : 0));
    order = [...fixed, ...[...known, ...last].map(([, tr]) => tr)];
  }
  table.classList.toggle("sorted", Boolean(by));
  body.replaceChildren(...order);
}

function sortable(table) {
  const heads = table.tHead.rows[table.tHead.rows.length - 1].cells;
  [...heads].forEach((th, column) => {
    const click = () => {
      const by = table.sorted && table.sorted.column === column ? table.sorted : null;
      table.sorted = !by ? { column, sign: 1 } : by.sign === 1 ? { column, sign: -1 } : null;
      for (const other of heads) other.removeAttribute("aria-sort");
      if (table.sorted) th.setAttribute("aria-sort", table.sorted.sign === 1 ? "ascending" : "descending");
      update();
    };
    const button = make("button", { type: "button", class: "sort", title: "Sort: ascending, descending, as it was", onclick: click });
    button.append(...th.childNodes);
    th.append(button);
  });
}

function choice(type, name, text, checked, change) {
  const input = make("input", { type, name, checked, onchange: () => change(input.checked) });
  return make("label", {}, input, text);
}

// A box for each name; a box that is not ticked puts its name among those to leave out.
function boxes(legend, names, out) {
  const change = (name) => (on) => {
    if (on) out.delete(name);
    else out.add(name);
    update();
  };
  return make("fieldset", {}, make("legend", {}, legend),
    ...Object.entries(names).map(([name, text]) => choice("checkbox", legend, text, true, change(name))));
}

function controls() {
  const found = methods();
  const rows = data.cases.flatMap((table) => Object.values(table.rows)).filter((row) => row.group);
  const search = make("input", { type: "search", placeholder: "name of a method", "aria-label": "Filter by name",
    oninput: () => { state.words = search.value.trim().toLowerCase(); update(); } });
  const number = (gaps) => () => { state.gaps = gaps; update(); };
  const parts = [
    make("label", {}, "Filter ", search),
    make("fieldset", {}, make("legend", {}, "Numbers"), choice("radio", "numbers", "metric", true, number(false)),
      choice("radio", "numbers", "gap to Retrain", false, number(true))),
  ];
  const groups = Object.entries(GROUPS).filter(([group]) => rows.some((row) => row.group === group));
  if (groups.length > 1) parts.push(boxes("Methods", Object.fromEntries(groups), state.groups));
  const answers = [...new Set(rows.map((row) => row.decision))].sort();
  if (answers.length > 1)
    parts.push(boxes("Acceptance", Object.fromEntries(answers.map((answer) => [answer, answer || "not tested"])), state.answers));
  const chips = [...found].map(([id, row]) => make("button", { type: "button", "aria-pressed": "true", title: `Hide or show ${row.name}`,
    onclick: (event) => {
      const off = !state.hidden.delete(id);
      if (off) state.hidden.add(id);
      event.currentTarget.setAttribute("aria-pressed", String(!off));
      update();
    } }, row.name));
  const all = (on) => () => {
    state.hidden = new Set(on ? [] : found.keys());
    chips.forEach((chip) => chip.setAttribute("aria-pressed", String(on)));
    update();
  };
  const every = [make("button", { type: "button", onclick: all(true) }, "show all"), make("button", { type: "button", onclick: all(false) }, "hide all")];
  parts.push(make("span", { id: "explore-count", role: "status", class: "soft" }),
    make("details", {}, make("summary", {}, "Hide methods"), make("div", { class: "chips" }, ...chips, ...every)));
  return make("div", { class: "controls", role: "group", "aria-label": "What the tables and pictures show" }, ...parts);
}

// Rows of one name in two groups: what tells them apart stands with them once they are not below their group.
function named(table) {
  for (const tr of table.tBodies[0].querySelectorAll("tr[data-row]")) {
    const row = methods().get(tr.dataset.row);
    if (row && row.twin) tr.cells[0].append(make("span", { class: "of-group" }, `, ${GROUPS[row.group]}`));
  }
}

function start() {
  if (!tables.length || !methods().size) return;
  const place = document.getElementById("explore-controls");
  if (place) place.append(controls());
  for (const element of document.querySelectorAll("[data-scripted]")) element.hidden = false;
  tables.forEach((table) => {
    sortable(table);
    if (!table.classList.contains("heat")) named(table);
    pointable(table);
  });
  document.querySelectorAll(".scatter").forEach(scatter);
  update();
}
