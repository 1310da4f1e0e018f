// Pictures dropped, pasted or chosen; the keyboard; the filter's values. Without it the page still searches and pages.
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const say = (text, busy = false) => {
    const status = $("status");
    status.textContent = text;
    status.hidden = !text;
    status.classList.toggle("busy", busy);
  };

  // Pictures ----------------------------------------------------------------------------------------------------------
  const canTake = !$("choose") || !$("choose").disabled;

  async function searchBy(file) {
    const limit = Number(document.body.dataset.maxUpload);
    if (file.size > limit) return say(`${file.name || "The picture"} is too large: pictures may have up to ${limit >> 20} MiB.`);
    say("Looking at the picture…", true);
    try {
      const answer = await fetch("/upload", {method: "POST", body: file, headers: {"Content-Type": "application/octet-stream"}});
      const isJson = (answer.headers.get("Content-Type") || "").startsWith("application/json");
      const told = isJson ? await answer.json() : {problem: await answer.text()};
      if (!told.image) return say(told.problem);
      const address = new URL("/", location);
      const kept = new URLSearchParams(location.search);
      for (const name of ["where", "column", "comparison", "value"]) {
        if (location.pathname === "/" && kept.get(name)) address.searchParams.set(name, kept.get(name));
      }
      address.searchParams.set("image", told.image);
      location.assign(address);
    } catch {
      say("The server does not answer. Is it still running?");
    }
  }

  const fileOf = (transfer) => [...(transfer ? transfer.files : [])][0];
  const carriesFile = (event) => [...(event.dataTransfer ? event.dataTransfer.types : [])].includes("Files");

  if (canTake) {
    document.addEventListener("dragover", (event) => {
      if (!carriesFile(event)) return;
      event.preventDefault();
      $("drop").hidden = false;
    });
    document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) $("drop").hidden = true; });
    document.addEventListener("drop", (event) => {
      $("drop").hidden = true;
      if (!carriesFile(event)) return;
      event.preventDefault();
      if (fileOf(event.dataTransfer)) searchBy(fileOf(event.dataTransfer));
    });
    document.addEventListener("paste", (event) => {
      const file = fileOf(event.clipboardData);
      if (file) { event.preventDefault(); searchBy(file); }
    });
    if ($("choose")) {
      $("choose").addEventListener("click", () => $("file").click());
      $("file").addEventListener("change", () => { if ($("file").files[0]) searchBy($("file").files[0]); });
    }
  }

  // The form: what is empty stays out of the address --------------------------------------------------------------------
  const form = $("search");
  if (form) {
    form.addEventListener("submit", () => {
      const off = [...form.elements].filter((one) => one.name && !one.disabled && !one.value);
      if (!$("column").value) off.push($("comparison"), $("value"));
      const searched = $("text").value.trim();
      if (searched) off.push(...form.querySelectorAll("input[type=hidden]"));
      for (const one of off) { one.disabled = true; one.dataset.off = ""; }
      say(searched ? "Searching…" : "", true);
    });
    addEventListener("pageshow", () => {
      for (const one of form.querySelectorAll("[data-off]")) { one.disabled = false; delete one.dataset.off; }
      if ($("status").classList.contains("busy")) say("");
      if ($("file")) $("file").value = "";
    });

    const fitFilter = async () => {
      const chosen = $("column").selectedOptions[0], kind = chosen.dataset.kind;
      for (const option of $("comparison").options) {
        option.hidden = option.disabled = Boolean(kind) && !option.dataset.kinds.split(";").includes(kind);
      }
      if ($("comparison").selectedOptions[0].disabled) {
        $("comparison").value = [...$("comparison").options].find((option) => !option.disabled).value;
      }
      $("comparison").disabled = $("value").disabled = !kind;
      $("values").replaceChildren();
      if (!kind) return;
      const answer = await fetch(`/values?${new URLSearchParams({column: chosen.value})}`);
      const values = answer.ok ? await answer.json() : [];
      if ($("column").selectedOptions[0] === chosen) $("values").replaceChildren(...values.map((value) => new Option("", value)));
    };
    $("column").addEventListener("change", () => { $("value").value = ""; fitFilter(); });
    fitFilter();
  }

  // Keys --------------------------------------------------------------------------------------------------------------
  const hits = () => [...document.querySelectorAll("#results .hit")];
  const middle = (one) => {
    const box = one.getBoundingClientRect();
    return {x: box.left + box.width / 2, y: box.top + box.height / 2};
  };

  // The nearest hit in a direction; what lies off the line counts double.
  function neighbour(from, dx, dy) {
    const start = middle(from);
    let best = null, least = Infinity;
    for (const one of hits()) {
      const place = middle(one);
      const along = (place.x - start.x) * dx + (place.y - start.y) * dy;
      const aside = Math.abs((place.x - start.x) * dy) + Math.abs((place.y - start.y) * dx);
      if (along > 4 && (dx === 0 || aside < 40) && along + 2 * aside < least) { best = one; least = along + 2 * aside; }
    }
    return best;
  }

  const ARROWS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
  const show = (one) => { one.focus(); one.scrollIntoView({block: "nearest"}); };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const focused = document.activeElement, typing = focused.matches("input, select, textarea");
    if (event.key === "/" && !typing && $("text") && !$("text").disabled) {
      event.preventDefault();
      $("text").focus();
      $("text").select();
    } else if (event.key === "Escape" && typing) {
      focused.blur();
    } else if (ARROWS[event.key] && (focused.matches(".hit") || focused === document.body || (focused === $("text") && event.key === "ArrowDown"))) {
      const next = focused.matches(".hit") ? neighbour(focused, ...ARROWS[event.key]) : event.key === "ArrowUp" ? null : hits()[0];
      if (next) { event.preventDefault(); show(next); }
      else if (focused.matches(".hit") && event.key === "ArrowUp" && $("text") && !$("text").disabled) { event.preventDefault(); $("text").focus(); }
    }
  });

  document.addEventListener("error", (event) => {
    if (event.target.matches && event.target.matches("img")) event.target.classList.add("gone");
  }, true);
  document.documentElement.dataset.ready = "";
})();
