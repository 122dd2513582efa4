// Keeps the page up to date in place: fetches it again and moves in what changed. Sorts, searches and filters tables.
"use strict";
(() => {
  const EVERY_MS = 2000;
  const parser = new DOMParser();
  const collator = new Intl.Collator("en", { numeric: true });
  const icon = document.querySelector("link[rel=icon]");
  let lastAnswer = new Date();

  // What the operator chose is kept in the address: a wall screen can be bookmarked with it.
  const choices = new URLSearchParams(location.hash.slice(1));
  const choose = (name, value) => {
    if (value) choices.set(name, value); else choices.delete(name);
    history.replaceState(null, "", "#" + choices);
  };

  // -- tables -------------------------------------------------------------------------------------------------

  const value = (row, column) => {
    const cell = row.cells[column];
    return cell === undefined ? "" : cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value);
  };

  function arrange(table) {
    const body = table.tBodies[0];
    const [column, direction] = (choices.get(table.id + ".sort") || "").split(" ");
    if (column) {
      const sign = direction === "descending" ? -1 : 1;
      const sorted = [...body.rows].map((row) => [value(row, column), row]);
      sorted.sort(([a, x], [b, y]) => sign * (typeof a === "number" && typeof b === "number"
        ? a - b : collator.compare(a, b)) || collator.compare(x.dataset.key, y.dataset.key));
      sorted.forEach(([, row], at) => { if (body.rows[at] !== row) body.insertBefore(row, body.rows[at]); });
    }
    [...table.tHead.rows[0].cells].forEach((head, at) => {
      if (String(at) === column) head.setAttribute("aria-sort", direction); else head.removeAttribute("aria-sort");
    });
    const words = (choices.get(table.id + ".search") || "").toLowerCase();
    const state = choices.get(table.id + ".state") || "";
    let shown = 0;
    for (const row of body.rows) {
      const data = row.dataset;
      const fits = state === "" || state === data.state || (state === "troubled" && data.troubled !== undefined)
        || (state === "busy" && data.busy !== undefined);
      row.hidden = !(fits && (words === "" || row.textContent.toLowerCase().includes(words)));
      shown += row.hidden ? 0 : 1;
    }
    const counter = document.querySelector(`[data-shown="${table.id}"]`);
    const text = shown === body.rows.length ? "" : `${shown} of ${body.rows.length} shown`;
    if (counter && counter.textContent !== text) counter.textContent = text;
  }

  function equip(table) {
    [...table.tHead.rows[0].cells].forEach((head, at) => {
      if (head.dataset.plain !== undefined) return;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const first = head.classList.contains("n") ? "descending" : "ascending";
        const second = first === "ascending" ? "descending" : "ascending";
        const next = { [first]: second, [second]: null }[head.getAttribute("aria-sort")];
        choose(table.id + ".sort", next === null ? "" : `${at} ${next || first}`);
        arrange(table);
        if (next === null) update();
      });
    });
    for (const [kind, event] of [["search", "input"], ["filter", "change"]]) {
      const field = document.querySelector(`[data-${kind}="${table.id}"]`);
      if (!field) continue;
      const name = table.id + (kind === "search" ? ".search" : ".state");
      field.value = choices.get(name) || "";
      field.addEventListener(event, () => { choose(name, field.value); arrange(table); });
    }
    arrange(table);
  }

  // -- in place -----------------------------------------------------------------------------------------------

  const shown = new WeakMap();  // row -> what it was made of: most are the same again

  function replaceCells(old, row) {
    const text = row.outerHTML;
    if (shown.get(old) === text) return;
    shown.set(old, text);
    for (const { name } of [...old.attributes]) if (name !== "hidden" && !row.hasAttribute(name)) old.removeAttribute(name);
    for (const { name, value } of row.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    for (let at = 0; at < row.cells.length; at++) {
      const [was, is] = [old.cells[at], row.cells[at]];
      if (was === undefined) { old.append(document.importNode(is, true)); continue; }
      // A box that is ticked, or a list that is open, stays as it is.
      if (was.contains(document.activeElement)) shown.delete(old);
      else if (was.outerHTML !== is.outerHTML) was.replaceWith(document.importNode(is, true));
    }
  }

  function updateTable(table, fresh) {
    const body = table.tBodies[0];
    const known = new Map([...body.rows].map((row) => [row.dataset.key, row]));
    const sorted = choices.has(table.id + ".sort");
    [...fresh.tBodies[0].rows].forEach((row, at) => {
      let old = known.get(row.dataset.key);
      if (old === undefined) { old = document.importNode(row, true); body.append(old); } else {
        known.delete(row.dataset.key);
        replaceCells(old, row);
      }
      if (!sorted && body.rows[at] !== old) body.insertBefore(old, body.rows[at]);
    });
    for (const row of known.values()) row.remove();
    arrange(table);
  }

  function take(page) {
    for (const part of document.querySelectorAll("[data-live]")) {
      const fresh = page.querySelector(`[data-live="${part.dataset.live}"]`);
      if (fresh && fresh.innerHTML !== part.innerHTML && !part.contains(document.activeElement)) {
        const isOpen = part.querySelector("details")?.open;
        part.replaceChildren(...document.importNode(fresh, true).childNodes);
        if (isOpen && part.querySelector("details")) part.querySelector("details").open = true;
      }
    }
    for (const table of document.querySelectorAll("main table")) {
      const fresh = page.getElementById(table.id);
      if (fresh) updateTable(table, fresh);
    }
    if (document.title !== page.title) document.title = page.title;
    const fresh = page.querySelector("link[rel=icon]").getAttribute("href");
    if (icon.getAttribute("href") !== fresh) icon.setAttribute("href", fresh);
  }

  const clock = (time) => time.toLocaleTimeString();

  function setGone(isGone) {
    const banner = document.getElementById("gone");
    if (isGone && banner.hidden) {
      banner.textContent = `No answer since ${clock(lastAnswer)}: the supervisor has stopped, or cannot be reached. `
        + "What is shown is from then. Trying again …";
      document.title = "No answer – qjsupervisor";
    }
    banner.hidden = !isGone;
    document.body.classList.toggle("gone", isGone);
  }

  let busy = false;
  async function update() {
    if (busy) return;
    busy = true;
    try {
      const answer = await fetch(location.pathname, { cache: "no-store", signal: AbortSignal.timeout(8000) });
      const text = await answer.text();
      if (answer.ok) {
        const began = performance.now();
        const page = parser.parseFromString(text, "text/html");
        if ((document.querySelector("main table") === null) !== (page.querySelector("main table") === null)) {
          location.reload();  // it was starting, and now there is something to show
          return;
        }
        take(page);
        document.body.dataset.updateMs = (performance.now() - began).toFixed(1);
        lastAnswer = new Date();
        document.getElementById("updated").textContent = clock(lastAnswer);
      }
      setGone(!answer.ok);
    } catch {
      setGone(true);
    } finally {
      busy = false;
    }
  }

  for (const tools of document.querySelectorAll(".tools")) tools.hidden = false;
  document.querySelectorAll("main table").forEach(equip);
  document.getElementById("updated").textContent = clock(lastAnswer);
  if (!document.querySelector(".login")) {
    setInterval(() => { if (!document.hidden) update(); }, EVERY_MS);
    document.addEventListener("visibilitychange", () => { if (!document.hidden) update(); });
  }
})();
