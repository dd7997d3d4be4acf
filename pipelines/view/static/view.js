// Keys, a choice that needs no button, and progress. Every page works without it.
"use strict";

document.documentElement.classList.add("scripted");

for (const choice of document.querySelectorAll("select[name=class]")) {
  choice.addEventListener("change", () => choice.form.submit());
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input:not([type=checkbox]), select, textarea")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const target = document.querySelector(`[data-key="${CSS.escape(event.key)}"]`);
  if (!target) return;
  event.preventDefault();
  if (target.matches("input:not([type=checkbox])")) {
    target.focus();
    target.select();
  } else {
    target.click();
  }
});

const progress = document.getElementById("progress");

async function follow() {
  const answer = await fetch(progress.dataset.url);
  if (!answer.ok) return;
  const now = await answer.json();
  progress.querySelector("progress").value = now.looked;
  progress.querySelector("span").textContent =
    `${now.looked.toLocaleString("en")} of ${now.records.toLocaleString("en")} records, ` +
    `${now.found.toLocaleString("en")} found`;
  const fills = progress.dataset.full === "0" && now.found > Number(progress.dataset.found);
  if (now.done || now.failed || fills) location.reload();
  else setTimeout(follow, 700);
}

if (progress) setTimeout(follow, 700);
