"use strict";
// What comes from the dataset is only ever set as text (textContent), never as HTML.
(() => {
  const LIGHT = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#7a5195", "#8c7a00"];
  const DARK = ["#4aa8e0", "#f0b43c", "#2fbf95", "#e39bc3", "#8fd3ff", "#ff8a4c", "#b18be0", "#d1c24a"];
  const MISSING = {"-2": "not trained on, so in no cluster", "-1": "in no cluster"};
  const PAGE = 24;  // cards at a time
  const LEGEND = 24;  // entries at most
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const number = (value) => value.toLocaleString("en");

  function element(tag, className, text) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  async function unpack({dtype, data: packed}) {
    const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    const buffer = await new Response(stream).arrayBuffer();
    if (dtype === "json") return JSON.parse(new TextDecoder().decode(buffer));
    return new {uint16: Uint16Array, int32: Int32Array}[dtype](buffer);
  }

  function picture(row, size) {
    const source = data.pictures[row];
    if (!source) return null;
    const image = element("img");
    image.src = source;
    image.alt = "";
    image.decoding = "async";
    image.width = image.height = size;
    return image;
  }

  // Colours -----------------------------------------------------------------------------------------------------------

  const hues = () => (dark.matches ? DARK : LIGHT);
  // The map's palette: not matching the filter, not trained on, in no cluster, then the hues.
  const palette = () => dark.matches
    ? ["#ffffff12", "#59636d", "#98a2ac", ...DARK] : ["#0000000d", "#cfd5da", "#8f99a3", ...LIGHT];

  function paint(plot) {
    const style = getComputedStyle(document.documentElement);
    const [ink, soft, line, accent] = ["--ink", "--soft", "--line", "--accent"].map((name) => style.getPropertyValue(name).trim());
    const font = getComputedStyle(document.body).fontFamily;
    for (const axis of [...plot.below, ...plot.left]) {
      axis.setv({
        axis_line_color: line, major_tick_line_color: line, minor_tick_line_color: null, major_label_text_color: soft,
        axis_label_text_color: soft, major_label_text_font: font, axis_label_text_font: font, axis_label_text_font_style: "normal",
        major_label_text_font_size: "12px", axis_label_text_font_size: "12px",
      });
    }
    for (const part of plot.center) if (part.name === "names") part.text_color = ink;
    for (const part of plot.center) if ("grid_line_color" in part.attributes) part.grid_line_color = line;
    plot.outline_line_color = null;
    for (const renderer of plot.renderers) {
      const colour = {accent, reference: soft, ring: ink}[renderer.name];
      if (colour) renderer.glyph.line_color = colour;
      if (colour && renderer.name !== "ring" && "fill_color" in renderer.glyph.attributes) renderer.glyph.fill_color = colour;
    }
  }

  async function embed(item, target) {
    const views = await Bokeh.embed.embed_item(item, target);
    const plot = [...views.roots][0].model;
    paint(plot);
    dark.addEventListener("change", () => paint(plot));
    return plot;
  }

  // Cluster cards -----------------------------------------------------------------------------------------------------

  const words = (card) => [card.name, ...card.terms, ...card.labels.map(([name]) => name)].join(" ").toLowerCase();
  data.cards.forEach((card, place) => { card.place = place; card.words = words(card); });

  function drawCard(card) {
    const made = $("card").content.firstElementChild.cloneNode(true);
    const part = (selector) => made.querySelector(selector);
    made.dataset.card = card.place;
    const size = card.size === 1 ? "1 image" : `${number(card.size)} images`;
    part("h4").textContent = card.terms.join(", ") || card.name;
    part(".size").textContent = card.terms.length ? `${size} · ${card.name}` : size;
    for (const row of card.rows) {
      const image = picture(row, 52);
      if (image) part(".pictures").append(image);
    }
    if (card.purity === null) {
      part(".mix").remove();
    } else {
      const known = card.labels[0][1] / card.purity;
      card.labels.forEach(([name, count], place) => {
        const piece = element("i");
        piece.style.width = `${100 * count / known}%`;
        piece.style.background = "var(--accent)";
        piece.style.opacity = 1 - 0.22 * place;
        piece.title = `${name}: ${count}`;
        part(".bar").append(piece);
      });
      const purity = element("b", "", `${Math.round(100 * card.purity)} % pure`);
      const rest = card.labels.map(([name, count]) => `${name} ${number(count)}`).join(", ");
      part(".labels").append(purity, ` · ${card.entropy.toFixed(1)} bits · ${rest}`);
    }
    part("button").addEventListener("click", () => showOnMap(card.place));
    part("button").setAttribute("aria-label", `Show ${card.name} on the map`);
    return made;
  }

  function drawHighlights() {
    const titles = {
      largest: ["Largest", ""],
      purest: ["Purest", "nearly one label each"],
      confused: ["Most confused", "many labels in one cluster"],
    };
    for (const [key, places] of Object.entries(data.highlights)) {
      if (!places.length) continue;
      const title = element("h3", "", `${titles[key][0]} `);
      title.append(element("small", "", titles[key][1]));
      const grid = element("div", "cards");
      grid.dataset.highlight = key;
      grid.append(...places.map((place) => drawCard(data.cards[place])));
      $("highlights").append(title, grid);
    }
  }

  const SORTS = {
    size: ["size, largest first", (a, b) => b.size - a.size],
    smallest: ["size, smallest first", (a, b) => a.size - b.size],
    purity: ["purity, purest first", (a, b) => (b.purity ?? -1) - (a.purity ?? -1) || b.size - a.size],
    entropy: ["confusion, most first", (a, b) => (b.entropy ?? -1) - (a.entropy ?? -1) || b.size - a.size],
  };
  let shownCards = PAGE;

  function drawCards() {
    const wanted = $("find").value.trim().toLowerCase();
    const found = data.cards.filter((card) => card.words.includes(wanted)).sort(SORTS[$("sort").value][1]);
    $("cards").replaceChildren(...found.slice(0, shownCards).map(drawCard));
    $("found").textContent = wanted ? `${number(found.length)} of ${number(data.cards.length)} clusters` : `${number(found.length)} clusters`;
    $("more").hidden = found.length <= shownCards;
  }

  function startCards() {
    if (!$("cards")) return;
    for (const [key, [title]] of Object.entries(SORTS)) {
      if (data.labelled || !["purity", "entropy"].includes(key)) $("sort").add(new Option(title, key));
    }
    const restart = () => { shownCards = PAGE; drawCards(); };
    $("find").addEventListener("input", restart);
    $("sort").addEventListener("change", restart);
    $("more").addEventListener("click", () => { shownCards += 4 * PAGE; drawCards(); });
    drawHighlights();
    drawCards();
  }

  // The map -----------------------------------------------------------------------------------------------------------

  const map = {colouring: null, alone: null, query: "", kept: null};  // alone: the one category that is shown, or null
  let showOnMap = () => {};

  async function startMap() {
    const [x, y, ids] = await Promise.all([data.points.x, data.points.y, data.points.ids].map(unpack));
    for (const one of data.colourings) one.codes = await unpack(one.codes);
    const plot = await embed(data.map, $("map"));
    const model = (name) => plot.document.get_model_by_name(name);
    const points = model("points");
    const n = x.length;
    const lowered = ids.map((id) => id.toLowerCase());
    let colour = new Uint8Array(n);

    function describe(one, code) {
      if (code < 0) return one.kind === "labels" ? "no label" : MISSING[code];
      const card = one.kind === "clusters" ? data.cards[one.cards[code]] : null;
      return card && card.terms.length ? `${one.names[code]}: ${card.terms.join(", ")}` : one.names[code];
    }

    function matching() {
      if (map.alone !== null) {
        const codes = map.colouring.codes;
        return (row) => codes[row] === map.alone;
      }
      if (!map.query) return () => true;
      const hits = data.colourings.map((one) => one.names.map((name, code) => describe(one, code).toLowerCase().includes(map.query)));
      return (row) => lowered[row].includes(map.query)
        || data.colourings.some((one, place) => one.codes[row] >= 0 && hits[place][one.codes[row]]);
    }

    function draw() {
      const matches = matching();
      const one = map.colouring;
      let count = 0;
      colour = new Uint8Array(n);  // a new one: Bokeh takes an array it knows for unchanged
      for (let row = 0; row < n; row++) {
        const code = one ? one.codes[row] : 0;
        const inside = matches(row);
        count += inside;
        colour[row] = !inside ? 0 : code === -2 ? 1 : code === -1 ? 2 : 3 + (one ? one.hues[code] : 0);
      }
      const colours = palette();
      model("palette").setv({palette: colours, low: 0, high: colours.length - 1});
      points.data = {x, y, colour};
      const narrowed = map.alone !== null || map.query;
      $("matches").textContent = narrowed ? `${number(count)} of ${number(n)} images` : `${number(n)} images`;
      $("clear").hidden = !narrowed;
      drawLegend();
    }

    function drawLegend() {
      const one = map.colouring;
      $("legend").replaceChildren();
      $("legend-note").textContent = "";
      if (!one) {
        $("legend-note").textContent = "Neither clusters nor labels to colour by.";
        return;
      }
      const counts = new Map();
      for (const code of one.codes) counts.set(code, (counts.get(code) ?? 0) + 1);
      const codes = [...counts.keys()].filter((code) => code >= 0).sort((a, b) => counts.get(b) - counts.get(a));
      const shown = codes.slice(0, LEGEND);
      if (map.alone !== null && map.alone >= 0 && !shown.includes(map.alone)) shown.unshift(map.alone);
      for (const code of [...shown, ...[-1, -2].filter((code) => counts.has(code))]) {
        const button = element("button");
        const swatch = element("span", "swatch");
        swatch.style.background = code < 0 ? palette()[-code === 2 ? 1 : 2] : hues()[one.hues[code]];
        const card = one.kind === "clusters" && code >= 0 ? data.cards[one.cards[code]] : null;
        const text = code < 0 ? describe(one, code) : card && card.terms.length ? card.terms.join(", ") : one.names[code];
        button.append(swatch, element("span", "names", text), element("span", "count", number(counts.get(code))));
        button.title = describe(one, code);
        button.type = "button";
        button.setAttribute("aria-pressed", String(map.alone === code));
        button.addEventListener("click", () => { choose(map.alone === code ? null : code); });
        $("legend").append(button);
      }
      const more = codes.length > LEGEND ? ` The ${LEGEND} largest of ${number(codes.length)} are listed; the filter finds the others.` : "";
      const shared = codes.length > hues().length ? ` Groups share ${hues().length} colours, those of one colour lying apart.` : "";
      $("legend-note").textContent = `Choose one to see it alone.${shared}${more}`;
    }

    function choose(code) {
      map.alone = code;
      map.query = $("filter").value = "";
      draw();
    }

    showOnMap = (place) => {
      const found = data.colourings.findIndex((one) => one.kind === "clusters" && one.cards.includes(place));
      if (found < 0) return;
      map.colouring = data.colourings[found];
      $("colour-by").value = String(found);
      choose(map.colouring.cards.indexOf(place));
      $("map-section").scrollIntoView();
    };

    function facts(row, buttons) {
      const list = element("dl");
      const add = (title, text, action) => {
        const value = element("dd");
        if (action) {
          const button = element("button", "link", text);
          button.type = "button";
          button.addEventListener("click", action);
          value.append(button);
        } else {
          value.textContent = text;
        }
        list.append(element("dt", "", title), value);
      };
      add("id", ids[row]);
      data.colourings.forEach((one, place) => {
        const code = one.codes[row];
        const alone = () => {
          map.colouring = one;
          $("colour-by").value = String(place);
          choose(code);
        };
        add(one.title, describe(one, code), buttons && code >= 0 ? alone : null);
      });
      return list;
    }

    // What is under the pointer: of several points the one drawn last.
    const hovered = () => points.inspected.indices.at(-1);
    let pointer = {clientX: 0, clientY: 0};
    $("map").addEventListener("pointermove", (event) => { pointer = event; });
    $("map").addEventListener("pointerleave", () => { $("tooltip").hidden = true; });
    points.inspect.connect(() => {
      const row = hovered();
      const tooltip = $("tooltip");
      tooltip.hidden = row === undefined || colour[row] === 0 || matchMedia("(hover: none)").matches;
      $("map").style.cursor = tooltip.hidden ? "" : "pointer";
      if (tooltip.hidden) return;
      if (tooltip.dataset.row !== String(row)) {
        tooltip.dataset.row = String(row);
        tooltip.replaceChildren(...[picture(row, 72), facts(row, false)].filter(Boolean));
      }
      const {width, height} = tooltip.getBoundingClientRect();
      tooltip.style.left = `${Math.max(8, Math.min(pointer.clientX + 14, innerWidth - width - 8))}px`;
      tooltip.style.top = `${Math.max(8, Math.min(pointer.clientY + 14, innerHeight - height - 8))}px`;
    });

    points.selected.properties.indices.change.connect(() => {
      const row = points.selected.indices.filter((one) => colour[one] !== 0).at(-1);
      if (row === undefined) return;
      map.kept = row;
      model("mark").data = {x: [x[row]], y: [y[row]]};
      $("details").replaceChildren(
        picture(row, 96) ?? element("div", "no-picture", "no picture of this one in the report"), facts(row, true));
    });

    // Moving and zooming ----------------------------------------------------------------------------------------------

    const {x_range: across, y_range: up} = plot;
    function fit() {
      const [width, height] = [plot.inner_width || 1, plot.inner_height || 1];
      const xs = extent(x), ys = extent(y);
      const scale = 1.06 * Math.max((xs[1] - xs[0] || 1) / width, (ys[1] - ys[0] || 1) / height);
      centre(across, (xs[0] + xs[1]) / 2, scale * width);
      centre(up, (ys[0] + ys[1]) / 2, scale * height);
    }
    const extent = (values) => values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);
    const centre = (range, middle, span) => range.setv({start: middle - span / 2, end: middle + span / 2});
    const zoom = (factor) => [across, up].forEach((range) => centre(range, (range.start + range.end) / 2, (range.end - range.start) * factor));
    const move = (range, share) => centre(range, (range.start + range.end) / 2 + share * (range.end - range.start), range.end - range.start);
    const KEYS = {
      "+": () => zoom(0.8), "=": () => zoom(0.8), "-": () => zoom(1.25), "0": fit,
      ArrowLeft: () => move(across, -0.1), ArrowRight: () => move(across, 0.1), ArrowUp: () => move(up, 0.1), ArrowDown: () => move(up, -0.1),
    };
    $("map").addEventListener("keydown", (event) => {
      if (!KEYS[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      KEYS[event.key]();
    });
    // The wheel scrolls the page until the map was chosen by a click or by Tab.
    const wheel = model("wheel");
    const useWheel = (active) => { wheel.active = active; };
    useWheel(false);
    $("map").addEventListener("pointerdown", () => $("map").focus({preventScroll: true}));
    $("map").addEventListener("focusin", () => useWheel(true));
    $("map").addEventListener("focusout", () => useWheel(false));
    $("zoom-in").addEventListener("click", () => zoom(0.7));
    $("zoom-out").addEventListener("click", () => zoom(1 / 0.7));
    $("fit").addEventListener("click", fit);

    // Controls --------------------------------------------------------------------------------------------------------

    data.colourings.forEach((one, place) => $("colour-by").add(new Option(one.title, String(place))));
    if (!data.colourings.length) $("colour-by").parentElement.hidden = true;
    map.colouring = data.colourings[0] ?? null;
    $("colour-by").addEventListener("change", () => { map.colouring = data.colourings[$("colour-by").value]; choose(null); });
    let waiting = 0;
    $("filter").addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => { map.alone = null; map.query = $("filter").value.trim().toLowerCase(); draw(); }, 120);
    });
    $("clear").addEventListener("click", () => choose(null));
    dark.addEventListener("change", draw);
    draw();
    fit();
    // For tests and the curious.
    globalThis.wsclEmbedMap = {plot, points, ids, fit};
  }

  startCards();
  const charts = [...document.querySelectorAll("[data-chart]")].map((target) => embed(target.dataset.chart === "information" ? data.information : data.training[target.dataset.chart], target));
  Promise.all([startMap(), ...charts]).then(() => { document.documentElement.dataset.ready = "yes"; });
})();
