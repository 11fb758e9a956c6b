// Sorts tables by a column, hides columns by choice, and shows a mark's figures when it is pointed at or reached by the keyboard.
(() => {
  const MISSING = /^–?$|^– \|/; // of two values, such as measured | modelled, the first is what counts
  const SCALE = { k: 1e3, M: 1e6, B: 1e9, T: 1e12, kB: 1e3, MB: 1e6, GB: 1e9, TB: 1e12, "%": 0.01, ms: 1e-3, s: 1, min: 60, h: 3600 };
  const NUMBER = /^[<>×≈±]?\s*([+-]?(?:\d[\d.]*(?:e[+-]?\d+)?|∞))\s*([kMBT]|[kMGT]B|%|ms|s|min|h)?(?![A-Za-z\d.]|-\d)/; // not the 2026 of a date, nor the 12 of 12abc

  // The number that a cell shows, in the unit of the smallest; null for a text. In a column of bytes "B" is a byte.
  function number(text, bytes) {
    const found = NUMBER.exec(text.replaceAll("−", "-").replace(/(\d),(?=\d{3})/g, "$1"));
    if (!found) return null;
    const value = Number(found[1].replace("∞", "Infinity")) * (found[2] === "B" && bytes ? 1 : (SCALE[found[2]] ?? 1));
    const rest = /^\s*(?:(\d+) (s|min))/.exec(text.slice(found[0].length));
    return value + (rest && (found[2] === "min" || found[2] === "h") ? Number(rest[1]) * SCALE[rest[2]] : 0);
  }
  function shown(cell) {
    if (!cell) return "";
    const copy = cell.cloneNode(true);
    for (const one of copy.querySelectorAll("small, abbr")) one.remove();
    return copy.textContent.trim();
  }
  // The cell below a heading, over cells that span several columns.
  function cellAt(row, place) {
    let column = 0;
    for (const cell of row.cells) {
      column += cell.dataset.cols ? cell.dataset.cols.split(" ").length : cell.colSpan;
      if (place < column) return cell.dataset.cols ? null : cell;
    }
    return null;
  }

  function sort(table, place, direction) {
    const body = table.tBodies[0];
    const rows = [...body.rows].sort((one, other) => one.dataset.order - other.dataset.order);
    if (direction) {
      const texts = new Map(rows.map((row) => [row, shown(cellAt(row, place))]));
      const given = [...texts.values()].filter((text) => !MISSING.test(text));
      const bytes = given.some((text) => /\d [kMGT]B$/.test(text));
      const numbers = given.every((text) => number(text, bytes) !== null);
      const key = (row) => (numbers ? number(texts.get(row), bytes) : texts.get(row));
      const lacks = (row) => MISSING.test(texts.get(row));
      const sign = direction === "ascending" ? 1 : -1;
      rows.sort((one, other) => lacks(one) - lacks(other) || (lacks(one) ? 0
        : sign * (numbers ? key(one) - key(other) : key(one).localeCompare(key(other), "en", { numeric: true }))) || one.dataset.order - other.dataset.order);
    }
    body.append(...rows);
    for (const [at, heading] of [...table.tHead.rows[0].cells].entries()) {
      if (at === place && direction) heading.setAttribute("aria-sort", direction);
      else heading.removeAttribute("aria-sort");
    }
  }
  const NEXT = { "": "ascending", ascending: "descending", descending: "" };
  for (const table of document.querySelectorAll("main table")) {
    if (!table.tHead || table.tHead.rows.length !== 1 || table.tBodies[0].rows.length < 2 || table.closest("#picking")) continue;
    [...table.tBodies[0].rows].forEach((row, place) => { row.dataset.order = place; });
    [...table.tHead.rows[0].cells].forEach((heading, place) => {
      if (!heading.textContent.trim()) return;
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...heading.childNodes);
      heading.append(button);
      button.addEventListener("click", () => sort(table, place, NEXT[heading.getAttribute("aria-sort") ?? ""]));
    });
  }

  // Columns by choice. Those that do not fit are off at first.
  const table = document.querySelector("table.verdicts"), chooser = document.getElementById("columns");
  if (table && chooser) {
    const boxes = new Map();
    const headings = [...table.tHead.rows[0].cells];
    function show(column, on) {
      for (const one of table.querySelectorAll(`[data-col="${column}"]`)) one.hidden = !on;
      for (const one of table.querySelectorAll("[data-cols]")) {
        const left = one.dataset.cols.split(" ").filter((name) => !boxes.has(name) || boxes.get(name).checked);
        one.colSpan = Math.max(1, left.length);
        one.hidden = !left.length;
      }
    }
    for (const heading of headings) {
      const column = heading.dataset.col;
      if (!column) continue;
      const label = document.createElement("label"), box = document.createElement("input");
      box.type = "checkbox";
      box.checked = true;
      box.value = column;
      label.append(box, ` ${heading.dataset.name}`);
      boxes.set(column, box);
      box.addEventListener("change", () => show(column, box.checked));
      chooser.append(label);
    }
    const frame = table.parentElement;
    if (window.matchMedia("screen and (min-width: 861px)").matches) {
      for (const column of ["days", "root", "N", "made"]) {
        if (frame.scrollWidth <= frame.clientWidth || !boxes.has(column)) continue;
        boxes.get(column).checked = false;
        show(column, false);
      }
    }
    chooser.parentElement.hidden = false;
    // Headings are not there on a narrow screen, so sorting has a list.
    const by = document.getElementById("sort-by");
    headings.forEach((heading, place) => {
      for (const direction of ["ascending", "descending"]) {
        const option = document.createElement("option");
        option.value = `${place} ${direction}`;
        option.textContent = `${heading.dataset.name}, ${direction}`;
        by.append(option);
      }
    });
    by.addEventListener("change", () => {
      const [place, direction] = by.value.split(" ");
      sort(table, Number(place || 0), direction ?? "");
    });
  }

  // The figures of the variant behind a mark.
  if (!document.getElementById("tables")) return;
  const { variants } = JSON.parse(document.getElementById("tables").textContent).choices;
  const about = new Map(variants.map((one) => [one.name, [
    one.density && `density ${one.density[3]}`, one.accuracy && `accuracy ${one.accuracy[1]}`, one.change && `against the base ${one.change[3]}`,
    one.bpb && `${one.bpb[1]} bits per byte`, one.stored && `stored ${one.stored[1]}`, one.memory && `memory ${one.memory[1]}`,
  ].filter(Boolean)]));
  const tip = document.createElement("div");
  tip.id = "tip";
  tip.className = "tip";
  tip.setAttribute("role", "status");
  tip.hidden = true;
  document.querySelector("main").append(tip);
  function tell(mark) {
    const name = mark.dataset.variant, box = mark.getBoundingClientRect();
    tip.replaceChildren(...[name, ...(about.get(name) ?? [])].map((line, place) => {
      const made = document.createElement(place ? "div" : "strong");
      made.textContent = line;
      return made;
    }));
    tip.hidden = false;
    const left = Math.min(Math.max(8, box.left + box.width / 2 - tip.offsetWidth / 2), document.documentElement.clientWidth - tip.offsetWidth - 8);
    const above = box.top - tip.offsetHeight - 10;
    tip.style.left = `${left + window.scrollX}px`;
    tip.style.top = `${(above > 0 ? above : box.bottom + 10) + window.scrollY}px`;
  }
  for (const figure of document.querySelectorAll(".figure")) {
    const marks = () => {
      const first = new Map();
      for (const mark of figure.querySelectorAll("svg [data-variant]:not(.dimmed)")) if (!first.has(mark.dataset.variant)) first.set(mark.dataset.variant, mark);
      return [...first.values()];
    };
    if (!figure.querySelector("svg [data-variant]")) continue;
    let at = -1;
    figure.tabIndex = 0;
    figure.setAttribute("aria-label", `${figure.querySelector("svg").getAttribute("aria-label")}: arrow keys go from variant to variant`);
    figure.addEventListener("mouseover", (event) => {
      const mark = event.target.closest("[data-variant]");
      if (mark) tell(mark);
    });
    figure.addEventListener("mouseout", () => { tip.hidden = true; });
    figure.addEventListener("blur", () => { tip.hidden = true; at = -1; });
    figure.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      const there = marks();
      if (event.key === "Escape") tip.hidden = true;
      if (!step || !there.length) return;
      event.preventDefault();
      at = (at + step + there.length + (at < 0 && step < 0 ? 1 : 0)) % there.length;
      tell(there[at]);
    });
  }
})();
