"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const root = document.documentElement;
  const theme = byId("theme");
  const isDark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const showTheme = () => theme.setAttribute("aria-pressed", String(isDark()));
  theme.hidden = false;
  theme.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; showTheme(); });
  showTheme();

  const cards = [...document.querySelectorAll(".card")];
  const list = byId("cards");
  const number = (card, key) => Number(card.dataset[key]);
  const orders = {
    number: (a, b) => number(a, "number") - number(b, "number"),
    confidence: (a, b) => number(a, "confidence") - number(b, "confidence"),
    strongest: (a, b) => number(b, "strongest") - number(a, "strongest"),
    needed: (a, b) => number(a, "needed") - number(b, "needed"),
  };
  const isChecked = (id) => { const box = byId(id); return box !== null && box.checked; };
  const update = () => {
    const words = byId("search").value.trim().toLowerCase();
    const wanted = byId("class").value;
    let shown = 0;
    for (const card of cards) {
      const hit = (!words || card.textContent.toLowerCase().includes(words))
        && (!wanted || card.dataset.class === wanted)
        && (!isChecked("wrong") || card.dataset.wrong === "1")
        && (!isChecked("disagrees") || card.dataset.disagrees === "1");
      card.hidden = !hit;
      shown += hit ? 1 : 0;
    }
    list.append(...cards.slice().sort(orders[byId("sort").value]));
    byId("count").textContent = `${shown} of ${cards.length} test points`;
    list.classList.toggle("no-heatmaps", byId("heatmaps") !== null && !isChecked("heatmaps"));
  };
  const form = byId("controls");
  form.hidden = false;
  form.addEventListener("input", update);
  form.addEventListener("submit", (event) => event.preventDefault());
  update();

  for (const table of document.querySelectorAll(".sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const direction = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
        const text = (row) => row.cells[column].textContent;
        const compare = (a, b) => {
          const [x, y] = [parseFloat(text(a)), parseFloat(text(b))];
          return Number.isNaN(x) || Number.isNaN(y) ? text(a).localeCompare(text(b)) : x - y;
        };
        const body = table.tBodies[0];
        body.append(...[...body.rows].sort((a, b) => direction * compare(a, b)));
      });
    });
  }
})();
