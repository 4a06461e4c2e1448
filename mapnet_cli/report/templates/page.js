"use strict";
const { config, charts } = JSON.parse(document.getElementById("charts").textContent);
const hidden = new Set(), views = [], dark = matchMedia("(prefers-color-scheme: dark)").matches;
const glyphs = { circle: "●", square: "■", "triangle-up": "▲", diamond: "◆", "triangle-down": "▼", "triangle-right": "▶", cross: "✚" };
const make = (tag, text, more = {}) => Object.assign(document.createElement(tag), { textContent: text, ...more });

// Charts: a panel is a Vega-Lite specification whose data is shared by the panels of its chart.
for (const [name, { data, panels }] of Object.entries(charts)) {
  const place = document.getElementById("chart-" + name), legend = new Map();
  for (const panel of panels) {
    const spec = JSON.parse(JSON.stringify(panel)), box = make("div", "", { className: "panel" });
    const rows = (d) => (d && d.name ? { values: data[d.name] } : d);
    spec.data = rows(spec.data);
    spec.transform = [...(spec.transform || []), { filter: "indexof(hidden, datum.Model) < 0" }];
    for (const part of [spec, ...(spec.layer || [])]) {
      if (part !== spec && part.data) part.data = rows(part.data);
      for (const channel of ["color", "shape", "strokeDash"]) {
        const found = part.encoding?.[channel];
        if (!found?.field) continue;
        found.legend = null;
        found.scale.domain.forEach((label, n) => {
          legend.set(label, { ...legend.get(label), [channel]: found.scale.range[n % found.scale.range.length] });
        });
      }
    }
    if (spec.height?.step && place.style.getPropertyValue("--across") < 3) box.classList.add("wide");
    box.setAttribute("aria-hidden", "true"); // the whole chart has a label, and its data are in a table
    place.append(box);
    const full = { $schema: "https://vega.github.io/schema/vega-lite/v6.json", width: "container", height: 150, ...spec,
      params: [{ name: "hidden", value: [] }], autosize: { type: "fit-x", contains: "padding" } };
    const style = { ...config, font: getComputedStyle(document.body).fontFamily };
    vegaEmbed(box, full, { actions: false, renderer: "svg", config: style, tooltip: { theme: dark ? "dark" : "light" } })
      .then(({ view }) => views.push(view)).catch((error) => { box.textContent = "This chart can't be shown: " + error.message; });
  }
  const row = make("div", "", { className: "legend" });
  for (const [label, { color, shape, strokeDash }] of legend) {
    const item = make("span", " " + label), mark = make("span", glyphs[shape] || "━");
    if (strokeDash) mark.innerHTML = `<svg width="26" height="8"><path d="M0 5h26" stroke="#8a8a8a" stroke-width="1.5" stroke-dasharray="${strokeDash}"/></svg>`;
    mark.style.color = color; item.prepend(mark); row.append(item);
  }
  place.prepend(row);
}

// The data of a chart as a table, made when it is opened.
for (const details of document.querySelectorAll("details.data")) {
  details.addEventListener("toggle", () => {
    if (details.querySelector("table")) return;
    const rows = Object.values(charts[details.dataset.chart].data).flat(), table = make("table", "");
    const names = [...new Set(rows.flatMap(Object.keys))], head = table.createTHead().insertRow(), body = table.createTBody();
    names.forEach((name) => head.append(make("th", name, { scope: "col" })));
    for (const row of rows.slice(0, 2000)) { const line = body.insertRow(); names.forEach((name) => { line.insertCell().textContent = row[name] ?? ""; }); }
    const scroll = make("div", "", { className: "scroll", tabIndex: 0 });
    scroll.setAttribute("role", "region"); scroll.setAttribute("aria-label", "Data of the chart " + details.dataset.chart);
    scroll.append(table); details.append(scroll);
  });
}

// Tables: a click on a title sorts, selects filter; methods are hidden by the check boxes for charts and tables alike.
const texts = (row) => [...row.cells].map((cell) => cell.textContent.trim());
const refresh = [];
for (const box of document.querySelectorAll(".table")) {
  const table = box.querySelector("table"), body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  const titles = heads.map((head) => head.textContent.trim()), all = [...body.rows], chosen = new Map();
  heads.forEach((head, n) => head.addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "descending" ? 1 : -1;
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down < 0 ? "descending" : "ascending");
    const value = (row) => row.cells[n].dataset.v === undefined ? null : +row.cells[n].dataset.v;
    const compare = (a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x !== null && y !== null) return down * (x - y);
      if (x === null && y === null) return down * a.cells[n].textContent.localeCompare(b.cells[n].textContent);
      return x === null ? 1 : -1;
    };
    body.append(...[...body.rows].sort(compare));
  }));
  const model = titles.indexOf("Model"), steps = titles.indexOf("Steps"), last = new Map();
  if (model >= 0 && steps >= 0) all.forEach((row) => { const [m, s] = [texts(row)[model], +row.cells[steps].dataset.v || 0]; last.set(m, Math.max(last.get(m) || 0, s)); });
  const show = () => all.forEach((row) => {
    const cells = texts(row);
    const kept = [...chosen].every(([n, choice]) => choice === "" || cells[n] === "-" || (choice === "last" ? (+row.cells[n].dataset.v || 0) === last.get(cells[model]) : cells[n] === choice));
    row.hidden = !kept || (model >= 0 && hidden.has(cells[model]));
  });
  const controls = make("div", "", { className: "controls" });
  for (const title of ["Steps", "Measure", "Origin", "Data", "Gradient", "What"]) {
    const n = titles.indexOf(title), values = n < 0 ? [] : [...new Set(all.map((row) => texts(row)[n]))].filter((value) => value && value !== "-");
    if (values.length < 2 || values.length > 60 || all.length < 4) continue;
    const select = make("select", ""), name = make("label", title + " ");
    select.append(new Option("all", ""), ...(last.size && title === "Steps" ? [new Option("last", "last")] : []), ...values.map((value) => new Option(value, value)));
    select.addEventListener("change", () => { chosen.set(n, select.value); show(); });
    if (title === "Steps" && box.classList.contains("filters")) { select.value = "last"; chosen.set(n, "last"); }
    name.append(select); controls.append(name);
  }
  const tasks = box.classList.contains("filters") ? titles.slice(titles.findIndex((title) => title.startsWith("Time")) + 1) : [];
  if (tasks.length > 1) {
    const select = make("select", ""), name = make("label", "Task ");
    select.append(new Option("all", ""), ...tasks.map((task) => new Option(task, task)));
    select.addEventListener("change", () => tasks.forEach((task) => {
      const n = titles.indexOf(task), off = select.value !== "" && select.value !== task;
      heads[n].hidden = off; all.forEach((row) => { row.cells[n].hidden = off; });
    }));
    name.append(select); controls.append(name);
  }
  if (controls.childElementCount) box.prepend(controls);
  refresh.push(show); show();
}

const names = [...new Set(Object.values(charts).flatMap(({ data }) => Object.values(data).flat().map((row) => row.Model)).filter(Boolean))];
const field = document.getElementById("methods");
field.hidden = names.length < 2;
for (const name of names) {
  const input = make("input", "", { type: "checkbox", checked: true }), label = make("label", "");
  label.append(input, " " + name); field.append(label);
  input.addEventListener("change", () => {
    hidden[input.checked ? "delete" : "add"](name);
    refresh.forEach((show) => show());
    views.forEach((view) => view.signal("hidden", [...hidden]).runAsync());
  });
}
for (const link of document.querySelectorAll("a[href='#signature']")) link.addEventListener("click", () => { document.getElementById("signature").open = true; });
addEventListener("beforeprint", () => document.querySelectorAll("#table3 details, #signature").forEach((details) => { details.open = true; }));
