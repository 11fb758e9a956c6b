// Highlights a variant and its lineage, filters tables and charts, and offers the tables for download. The page is readable without it.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("tables").textContent);
  const parents = new Map(data.lineage);
  const verdicts = new Map(data.verdicts);
  const marked = [...document.querySelectorAll("[data-variant]")];
  const nodes = marked.filter((one) => one.matches("g.node"));
  const [bar, search, verdict, said] = ["filter", "search", "verdict", "shown"].map((id) => document.getElementById(id));
  let chosen = "";

  // A variant with its ancestors and descendants.
  function lineage(name) {
    const found = new Set();
    for (let one = name; one && !found.has(one); one = parents.get(one)) found.add(one);
    for (let grew = true; grew; ) {
      grew = false;
      for (const [child, parent] of parents) {
        if (!found.has(child) && parent && (parent === name || (found.has(parent) && below(parent, name)))) grew = !!found.add(child);
      }
    }
    return found;
  }
  function below(name, top) {
    for (let one = name, seen = 0; one && seen <= parents.size; one = parents.get(one), seen++) if (one === top) return true;
    return false;
  }

  function show() {
    const near = chosen ? lineage(chosen) : null;
    const words = search.value.trim().toLowerCase();
    const wanted = (name) =>
      (!near || near.has(name)) && name.toLowerCase().includes(words) && (!verdict.value || verdicts.get(name) === verdict.value);
    const names = [...parents.keys()];
    const kept = new Set(names.filter(wanted));
    const all = kept.size === names.length;
    for (const one of marked) {
      const out = !kept.has(one.dataset.variant);
      if (one instanceof SVGElement) one.classList.toggle("dimmed", out);
      else one.hidden = out;
    }
    for (const one of document.querySelectorAll("[data-chain]")) one.hidden = !JSON.parse(one.dataset.chain).some((name) => kept.has(name));
    for (const node of nodes) node.setAttribute("aria-pressed", String(node.dataset.variant === chosen));
    document.getElementById("all").disabled = all && !chosen;
    said.textContent = all ? `All ${names.length} variants` : `${kept.size} of ${names.length} variants${chosen ? `: ${chosen} and its lineage` : ""}`;
  }
  function choose(name) {
    chosen = chosen === name ? "" : name;
    show();
  }

  for (const one of marked) {
    if (!(one instanceof SVGElement) || one.querySelector("title")) continue;
    const title = document.createElementNS("http://www.w3.org/2000/svg", "title");
    title.textContent = one.dataset.variant;
    one.append(title);
  }
  for (const node of nodes) {
    node.setAttribute("tabindex", "0");
    node.setAttribute("role", "button");
    node.querySelector("title").textContent = `${node.dataset.variant}: show this variant and its lineage only`; // its name and its hint
    node.addEventListener("click", () => choose(node.dataset.variant));
    node.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      choose(node.dataset.variant);
    });
  }
  search.addEventListener("input", show);
  verdict.addEventListener("change", show);
  document.getElementById("all").addEventListener("click", () => {
    chosen = search.value = verdict.value = "";
    show();
  });
  bar.addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") document.getElementById("all").click();
    if (event.key === "/" && !event.target.closest("input, select")) {
      event.preventDefault();
      search.focus();
    }
  });

  // A spreadsheet takes a text that begins like this for a formula. Numbers, which JSON keeps apart from texts, stay as they are.
  const formula = /^(?!-inf$)[=+\-@\t\r]/;  // minus infinity is a number
  const cell = (value) => {
    const text = value === null ? "" : typeof value === "string" && formula.test(value) ? `'${value}` : String(value);
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const forms = {
    CSV: (table) => ["text/csv", [table.columns, ...table.rows].map((row) => row.map(cell).join(",")).join("\n") + "\n"],
    JSON: (table) => [
      "application/json",
      JSON.stringify(table.rows.map((row) => Object.fromEntries(row.map((value, place) => [table.columns[place], value]))), null, 1),
    ],
  };
  for (const button of document.querySelectorAll("button[data-table]")) {
    const { table, form } = button.dataset;
    button.hidden = false;
    button.addEventListener("click", () => {
      const [type, text] = forms[form](data.tables[table]);
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([text], { type }));
      link.download = `${table}.${form.toLowerCase()}`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60000); // the download may start late on a busy machine
    });
  }
  bar.hidden = false;
  show();
})();
