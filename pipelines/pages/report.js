"use strict";

// Sorts and filters tables, and copies the command. Nothing here makes HTML from text, and nothing
// is fetched: names of a data set only ever become `textContent`.

const STEP = 200; // rows that are in the page at once; a button adds as many

function readNumber(text) {
  const digits = text.replaceAll(",", "");
  return digits !== "" && !Number.isNaN(Number(digits)) ? Number(digits) : null;
}

function readKeys(row) {
  return [...row.cells].map((cell) => cell.dataset.key ?? cell.textContent.trim());
}

// A row of a class that is not in the page yet: a copy of the first one, filled in.
function makeRow(table, values) {
  const row = table.tBodies[0].querySelector("tr").cloneNode(true);
  const [name, ...counts] = values;
  const total = counts.reduce((sum, count) => sum + count, 0);
  row.querySelector("bdi").textContent = name;
  row.querySelectorAll("td.number").forEach((cell, place) => {
    cell.textContent = (place < counts.length ? counts[place] : total).toLocaleString("en-US");
  });
  let left = 0;
  row.querySelectorAll("rect").forEach((rect, place) => {
    const width = (100 * counts[place]) / Number(table.dataset.most);
    rect.setAttribute("x", left.toFixed(2));
    rect.setAttribute("width", width.toFixed(2));
    left += width;
  });
  return row;
}

function listEntries(table) {
  const entries = [...table.tBodies[0].rows].map((row) => ({ keys: readKeys(row), row }));
  const data = document.getElementById(table.dataset.more ?? "");
  for (const values of data ? JSON.parse(data.textContent) : []) {
    const [name, ...counts] = values;
    const total = counts.reduce((sum, count) => sum + count, 0);
    // As in the HTML: name, bar, one count a split, and the sum where there are several.
    const keys = [name, String(total), ...counts.map(String), String(total)];
    entries.push({ keys, values });
  }
  return entries;
}

function compare(one, other) {
  const [a, b] = [readNumber(one), readNumber(other)];
  if (a !== null && b !== null) return a - b;
  return one.localeCompare(other, undefined, { numeric: true });
}

function setUpTable(table) {
  const entries = listEntries(table);
  const area = table.closest("section");
  const field = area.querySelector("input.filter");
  const told = area.querySelector("output");
  const button = area.querySelector("button.more");
  let shown = STEP;
  let matches = entries;

  function draw() {
    const rows = matches.slice(0, shown).map((entry) => {
      entry.row ??= makeRow(table, entry.values);
      return entry.row;
    });
    table.tBodies[0].replaceChildren(...rows);
    const left = matches.length - rows.length;
    if (button) {
      button.hidden = left === 0;
      button.textContent = `Show ${Math.min(STEP, left).toLocaleString("en-US")} more`;
    }
    if (told) {
      const all = entries.length.toLocaleString("en-US");
      told.textContent = `${matches.length.toLocaleString("en-US")} of ${all}`;
    }
  }

  function filter() {
    const word = (field?.value ?? "").trim().toLocaleLowerCase();
    matches = entries.filter((entry) => entry.keys[0].toLocaleLowerCase().includes(word));
    shown = STEP;
    draw();
  }

  function sort(head, place) {
    const first = head.classList.contains("number") ? "descending" : "ascending";
    const other = first === "descending" ? "ascending" : "descending";
    const order = head.getAttribute("aria-sort") === first ? other : first;
    for (const each of head.parentNode.cells) each.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    entries.sort((one, two) => sign * compare(one.keys[place], two.keys[place]));
    filter();
  }

  [...table.tHead.rows[0].cells].forEach((head, place) => {
    if (head.classList.contains("bar")) return;
    const press = document.createElement("button");
    press.type = "button";
    press.append(...head.childNodes);
    press.addEventListener("click", () => sort(head, place));
    head.append(press);
  });
  field?.addEventListener("input", filter);
  button?.addEventListener("click", () => {
    shown += STEP;
    draw();
  });
  if (field) draw();
}

function copyText(text, button) {
  const area = document.createElement("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy"); // works in a file that was opened from a disk, too
  area.remove();
  button.textContent = done ? "Copied" : "Select it and copy";
  setTimeout(() => (button.textContent = "Copy"), 2000);
}

for (const element of document.querySelectorAll(".needs-script")) element.hidden = false;
for (const table of document.querySelectorAll("table.sortable")) setUpTable(table);
for (const button of document.querySelectorAll("button.copy")) {
  button.addEventListener("click", () => {
    copyText(button.parentNode.querySelector("pre").textContent, button);
  });
}
