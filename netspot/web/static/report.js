// The charts of a report: all of the run, with the value under the pointer (or the arrow keys) in words.
"use strict";

(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const t = Chart.unpackTimes(data.t0, data.t);
  const help = new Map();
  for (const row of document.querySelectorAll("#stats tr")) help.set(row.cells[0].textContent, { unit: row.cells[4].textContent, help: row.cells[6].textContent });

  const figures = Object.entries(data.stats).map(([name, columns]) => {
    const canvas = document.createElement("canvas"), readout = document.createElement("output");
    const card = document.createElement("article"), title = document.createElement("h3"), about = document.createElement("p");
    const known = help.get(name) || { unit: "", help: "" };
    card.className = "card";
    title.textContent = name + (known.unit ? ` [${known.unit}]` : "");
    about.textContent = known.help;
    about.className = "hint";
    readout.textContent = "\u00a0";
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "img");
    const figure = { canvas, readout, columns: Chart.unpack(columns, t), at: null };
    canvas.setAttribute("aria-label", `${name}: ${figure.columns.a.length} anomalous points; left and right arrow keys read single values`);
    card.append(title, about, canvas, readout);
    document.getElementById("charts").append(card);
    canvas.addEventListener("pointermove", (event) => show(figure, Chart.nearest(canvas, figure.columns, options(figure), event.offsetX)));
    canvas.addEventListener("pointerleave", () => show(figure, null));
    canvas.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step) return;
      event.preventDefault();
      const next = figure.at == null ? t.length - 1 : figure.at + step;
      if (next >= 0 && next < t.length) show(figure, next);
    });
    return figure;
  });

  function options(figure) {
    const to = t[t.length - 1], from = Math.min(t[0], to - 1000);
    return { from, to, full: true, at: figure.at };
  }

  function show(figure, row) {
    figure.at = row;
    draw(figure);
    figure.readout.textContent = row == null ? "\u00a0" : Chart.readout(figure.columns, row);
  }

  function draw(figure) {
    if (t.length) Chart.draw(figure.canvas, figure.columns, options(figure));
  }

  const all = () => figures.forEach(draw);
  window.addEventListener("resize", all);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", all);
  all();
})();
