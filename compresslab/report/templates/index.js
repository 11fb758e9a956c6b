// Searches the list of studies. The page is readable without it.
"use strict";
(() => {
  const bar = document.getElementById("filter");
  if (!bar) return;
  const search = document.getElementById("search"), said = document.getElementById("shown");
  const rows = [...document.querySelectorAll("[data-study]")];
  function show() {
    const words = search.value.trim().toLowerCase().split(/\s+/);
    for (const row of rows) row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
    const left = rows.filter((row) => !row.hidden).length;
    said.textContent = left === rows.length ? `All ${rows.length} studies` : `${left} of ${rows.length} studies`;
  }
  search.addEventListener("input", show);
  bar.addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { search.value = ""; show(); }
    if (event.key === "/" && !event.target.closest("input, select")) { event.preventDefault(); search.focus(); }
  });
  bar.hidden = false;
  show();
})();
