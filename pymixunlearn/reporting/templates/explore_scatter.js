// Gap to Retrain against seconds, a point a method: the shape and the colour say what the acceptance test answers.
const scatters = [];
const LOOKS = {
  accepted: ["--accepted", "accepted", "M0-6A6 6 0 1 1 0 6A6 6 0 1 1 0-6Z"],
  refused: ["--refused", "refused", "M-6-3.5L-3.5-6L0-2.5L3.5-6L6-3.5L2.5 0L6 3.5L3.5 6L0 2.5L-3.5 6L-6 3.5L-2.5 0Z"],
  "cannot tell": ["--unsure", "cannot tell", "M0-7.5L6.5 0L0 7.5L-6.5 0Z"],
  "seeds differ": ["--differ", "seeds differ", "M0-7L6.5 5.5L-6.5 5.5Z"],
  "": ["--accent", "not tested", "M-5.5-5.5L5.5-5.5L5.5 5.5L-5.5 5.5Z"],
};
const HEIGHT = 380, LEFT = 52, RIGHT = 14, TOP = 10, BOTTOM = 44;

function draw(name, attributes, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

function mark(row) {
  const [colour, , path] = LOOKS[row.decision];
  const inside = row.group === "aware" ? `var(${colour})` : "var(--paper)";
  return draw("path", { class: "mark", d: path, style: `fill:${inside};stroke:var(${colour})` });
}

// Linear up to 1, logarithmic beyond: methods within a point of Retrain stay apart, and those far away are on it too.
const bent = (gap) => (gap < 1 ? gap : 1 + Math.log10(gap));

function seconds(low, high) {
  const ticks = (steps) => {
    const found = [];
    for (let power = -4; power < 7; power += 1)
      for (const step of steps) if (step * 10 ** power >= low && step * 10 ** power <= high) found.push(step * 10 ** power);
    return found;
  };
  const found = ticks([1, 2, 5]);
  return found.length < 3 ? ticks([1, 2, 3, 4, 5, 6, 7, 8, 9]) : found.length > 8 ? ticks([1]) : found;
}

// Each name near its point, at the nearest of several places where it covers no other name or point; a line leads to one
// that is farther away.
function labels(points, width) {
  const taken = points.map(({ x, y }) => [x - 8, y - 8, x + 8, y + 8]);
  const covered = (box) => taken.reduce((sum, other) => sum
    + Math.max(0, Math.min(box[2], other[2]) - Math.max(box[0], other[0])) * Math.max(0, Math.min(box[3], other[3]) - Math.max(box[1], other[1])), 0);
  const parts = [];
  for (const { x, y, row } of points) {
    const size = 6.6 * row.name.length, boxes = [];
    for (const rise of [-7, -19, 5, -31, 17, -43, 29, -57, 43, -71, 57, -85, 71])
      for (const shift of [11, -11 - size, -size / 2]) boxes.push([x + shift, y + rise, x + shift + size, y + rise + 14]);
    const inside = boxes.filter((box) => box[0] >= LEFT && box[2] <= width && box[1] >= 0 && box[3] <= HEIGHT - BOTTOM);
    const ranked = (inside.length ? inside : boxes).map((box) => [covered(box), box]);
    const [, box] = ranked.reduce((best, other) => (other[0] < best[0] ? other : best));
    taken.push(box);
    const [middle, edge] = [(box[1] + box[3]) / 2, Math.max(box[0], Math.min(x, box[2]))];
    if (Math.abs(middle - y) > 20) parts.push(draw("path", { class: "lead", d: `M${x} ${y}L${edge} ${middle + (middle < y ? 6 : -6)}` }));
    parts.push(draw("text", { x: box[0], y: box[1] + 11, "aria-hidden": "true" }, row.name));
  }
  return parts;
}

function scatter(place) {
  const number = place.dataset.case, table = data.cases[number];
  const rows = Object.entries(table.rows).filter(([, row]) => row.group && row.cells.mean && row.cells.seconds);
  if (!rows.length) return;
  const still = place.dataset.replaces && document.getElementById(place.dataset.replaces);
  if (still) still.hidden = true;
  const keys = table.metrics.filter(({ key }) => key === "mean" || rows.some(([, row]) => row.cells[key] && row.cells[key].gap));
  const select = make("select", { onchange: () => again() },
    ...keys.filter(({ key }) => key !== "seconds").map(({ key, label }) => make("option", { value: key, selected: key === "mean" }, label)));
  const tool = make("p", { class: "explore-tool" }, make("label", {}, "Gap in ", select));
  const drawing = make("div");
  place.append(tool, drawing, legend(rows, table));
  const again = () => drawing.replaceChildren(picture(number, table, rows, select.value, Math.min(drawing.clientWidth || 640, 736)));
  scatters.push(again);
  let width = 0;
  new ResizeObserver(() => {
    if (Math.abs(drawing.clientWidth - width) > 2) again();
    width = drawing.clientWidth;
  }).observe(drawing);
}

function legend(rows, table) {
  const judged = rows.some(([, row]) => row.decision);
  const item = (shape, text) => make("li", {}, draw("svg", { viewBox: "-8 -8 16 16", "aria-hidden": "true" }, shape), text);
  const found = Object.entries(LOOKS).filter(([answer]) => judged && rows.some(([, row]) => row.decision === answer))
    .map(([answer, [, text]]) => item(mark({ decision: answer, group: "aware" }), text));
  const groups = Object.entries(GROUPS).filter(([group]) => rows.some(([, row]) => row.group === group))
    .map(([group, text]) => item(mark({ decision: "", group }), `${group === "aware" ? "filled" : "hollow"}: ${text}`));
  if (table.seconds) found.push(item(draw("path", { class: "retrain", d: "M0-8L0 8" }), "Retrain takes"));
  if (table.floor) found.push(item(draw("rect", { class: "floor", x: -8, y: -8, width: 16, height: 16 }), "noise floor of the mean gap"));
  return make("ul", { class: "legend" }, ...found, ...groups);
}

function picture(number, table, rows, key, width) {
  const gapOf = (row) => (key === "mean" ? row.cells.mean : row.cells[key] && row.cells[key].gap);
  const every = rows.filter(([, row]) => gapOf(row)).map(([, row]) => [row.cells.seconds.value, gapOf(row).value]);
  const times = [...every.map(([time]) => time), ...(table.seconds ? [table.seconds] : [])].map((time) => Math.max(time, 1e-3));
  const low = Math.log10(Math.min(...times) / 1.5), high = Math.log10(Math.max(...times) * 1.5);
  const top = 1.08 * bent(Math.max(1, ...every.map(([, gap]) => gap)));
  const across = (time) => LEFT + ((Math.log10(Math.max(time, 1e-3)) - low) / (high - low)) * (width - LEFT - RIGHT);
  const up = (gap) => TOP + (1 - bent(gap) / top) * (HEIGHT - TOP - BOTTOM);
  const svg = draw("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, role: "group", "aria-label": "Gap to Retrain against seconds" });
  if (table.floor && key === "mean") {
    const [from, to] = table.floor.map((gap) => Math.max(TOP, up(gap)));
    svg.append(draw("rect", { class: "floor", x: LEFT, y: to, width: width - LEFT - RIGHT, height: from - to }));
  }
  for (const gap of [0, 0.5, 1, 2, 5, 10, 20, 50, 100].filter((tick) => bent(tick) <= top)) {
    svg.append(draw("path", { class: "grid", d: `M${LEFT} ${up(gap)}H${width - RIGHT}` }));
    svg.append(draw("text", { class: "tick", x: LEFT - 6, y: up(gap) + 4, "text-anchor": "end" }, String(gap)));
  }
  for (const time of seconds(10 ** low, 10 ** high)) {
    svg.append(draw("path", { class: "grid", d: `M${across(time)} ${TOP}V${HEIGHT - BOTTOM}` }));
    svg.append(draw("text", { class: "tick", x: across(time), y: HEIGHT - BOTTOM + 16, "text-anchor": "middle" }, String(Number(time.toPrecision(1)))));
  }
  if (table.seconds) svg.append(draw("path", { class: "retrain", d: `M${across(table.seconds)} ${TOP}V${HEIGHT - BOTTOM}` }));
  svg.append(draw("text", { class: "axis", x: (LEFT + width) / 2, y: HEIGHT - 8, "text-anchor": "middle" }, "seconds"));
  svg.append(draw("text", { class: "axis", "text-anchor": "middle", transform: `translate(14 ${(HEIGHT - BOTTOM) / 2}) rotate(-90)` }, "gap to Retrain, points"));
  const points = rows.filter(([id, row]) => gapOf(row) && isRowShown(id, number))
    .map(([id, row]) => ({ id, row, x: across(row.cells.seconds.value), y: up(gapOf(row).value) }));
  svg.append(...labels(points, width));
  for (const { row, x, y } of points) {
    const about = `${row.name}: gap ${gapOf(row).text}, ${row.cells.seconds.text} s${row.answers ? `, ${row.answers}` : ""}`;
    const point = draw("g", { class: "point", transform: `translate(${x} ${y})`, tabindex: "0", role: "img", "aria-label": about }, mark(row));
    answering(point, () => [...lines(row, key, table), make("p", {}, `${row.cells.seconds.text} seconds`)]);
    svg.append(point);
  }
  return svg;
}
