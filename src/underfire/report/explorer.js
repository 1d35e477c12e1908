// What the report can do with a script, and all of it in the page: nothing is asked of a network, and every text of the
// run is set as text. Without a script the page shows the same figures, photos and maps.
"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("explorer-data").textContent);
  const photos = [...document.querySelectorAll("details.photo")];
  const OUTCOMES = { k: "map kept", m: "map moved", x: "label missed" };
  const PAGE = 100; // rows that are drawn at a time
  const FLICKER = 600; // milliseconds: below three changes a second, which are safe to look at
  const calm = matchMedia("(prefers-reduced-motion: reduce)");

  const make = (tag, text, attributes = {}) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  };
  const option = (value, text) => make("option", text, { value });
  const percent = (share) => `${Math.round(100 * share)} %`;

  // Light and dark: the style sheet has one block for dark, which then holds always or never.

  const darkRules = [...document.styleSheets]
    .flatMap((sheet) => [...sheet.cssRules])
    .filter((rule) => rule.media && rule.media.mediaText.includes("prefers-color-scheme"));
  let dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const setDark = (wanted) => {
    dark = wanted;
    for (const rule of darkRules) rule.media.mediaText = dark ? "screen" : "not all";
    document.documentElement.style.colorScheme = dark ? "dark" : "light";
    byId("theme").setAttribute("aria-pressed", String(dark));
  };
  byId("theme").addEventListener("click", () => setDark(!dark));
  byId("theme").setAttribute("aria-pressed", String(dark));

  // Maps: 8-bit grey pictures on the interpreter's own grid.

  const cache = new Map();
  const mapOf = (photo, condition, interpreter) =>
    photo.querySelector(`tr[data-c="${condition}"] td[data-i="${interpreter}"] img.map`);
  const pixelsOf = (image) => {
    if (!cache.has(image)) cache.set(image, read(image));
    return cache.get(image);
  };
  const read = async (image) => {
    await image.decode();
    const [width, height] = [image.naturalWidth, image.naturalHeight];
    const canvas = new OffscreenCanvas(width, height);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0);
    const rgba = context.getImageData(0, 0, width, height).data;
    return { width, height, values: Uint8Array.from({ length: width * height }, (_, i) => rgba[4 * i]) };
  };
  const iou = (a, b, cut) => {
    let [both, either] = [0, 0];
    for (let i = 0; i < a.values.length; i += 1) {
      const [first, second] = [a.values[i] >= 255 * cut, b.values[i] >= 255 * cut];
      both += first && second;
      either += first || second;
    }
    return either ? both / either : 1;
  };

  // The figures of the sample at any threshold.

  const cut = () => Number(byId("cut").value) / 100;
  const tau = () => Number(byId("tau").value) / 100;
  let turn = 0;
  const measure = async (pair) => {
    let [n, reached, kept, total] = [0, 0, 0, 0];
    for (const photo of photos) {
      const success = data.sample[photo.id]?.reached[pair.index];
      const images = [data.benign, pair.condition].map((condition) => mapOf(photo, condition, pair.interpreter));
      if (success === undefined || success === null || !images.every(Boolean)) continue;
      n += 1;
      if (!success) continue;
      const value = iou(...(await Promise.all(images.map(pixelsOf))), cut());
      reached += 1;
      total += value;
      kept += value >= tau();
    }
    return { n, reached, kept, mean: reached ? total / reached : null };
  };
  const refresh = async () => {
    turn += 1;
    const mine = turn;
    for (const id of ["cut", "tau"]) byId(`${id}-value`).textContent = (Number(byId(id).value) / 100).toFixed(2);
    for (const pair of data.pairs) {
      const found = await measure(pair);
      if (mine !== turn) return; // the slider has moved on
      const [jsr, mean] = byId(`live-${pair.index}`).querySelectorAll("td");
      jsr.textContent = found.n ? `${found.kept} of ${found.n} (${percent(found.kept / found.n)})` : "–";
      mean.textContent = found.mean === null ? "–" : `${found.mean.toFixed(2)} (${found.reached} reached)`;
    }
    byId("live").dataset.settled = `${byId("cut").value} ${byId("tau").value}`;
    for (const viewer of document.querySelectorAll(".viewer")) viewer.dispatchEvent(new Event("redraw"));
  };
  for (const id of ["cut", "tau"]) byId(id).addEventListener("input", refresh);

  // Two images of a photo beside or over each other.

  const regions = async (canvas, benign, other) => {
    const [a, b] = await Promise.all([benign, other].map(pixelsOf));
    const context = canvas.getContext("2d");
    [canvas.width, canvas.height] = [b.width, b.height];
    const picture = context.createImageData(b.width, b.height);
    b.values.forEach((value, i) => {
      const [was, is] = [a.values[i] >= 255 * cut(), value >= 255 * cut()];
      const colour = was && is ? [255, 255, 255, 225] : is ? [255, 122, 69, 225] : was ? [64, 156, 255, 225] : [0, 0, 0, 150];
      picture.data.set(colour, 4 * i);
    });
    context.putImageData(picture, 0, 0);
  };
  const pane = (photo, condition, interpreter, layer) => {
    const row = photo.querySelector(`tr[data-c="${condition}"]`);
    const [image, benign] = [condition, data.benign].map((one) => mapOf(photo, one, interpreter));
    const stage = make("div", undefined, { class: "stage" });
    stage.style.setProperty("--p", getComputedStyle(row).getPropertyValue("--p") || "none");
    stage.classList.toggle("laid", layer !== "image");
    if (layer === "map" && image) stage.append(make("img", undefined, { class: "map", src: image.src, alt: "" }));
    if (layer === "region" && image && benign) {
      const canvas = make("canvas", undefined, { class: "region" });
      regions(canvas, benign, image);
      stage.append(canvas);
    }
    const figure = make("figure");
    const says = row.querySelector(".says").textContent.trim();
    const cell = row.querySelector(`td[data-i="${interpreter}"]`);
    const below = layer === "image" || !cell ? "" : cell.textContent.trim();
    stage.setAttribute("role", "img");
    stage.setAttribute("aria-label", `${row.dataset.title}: ${layer}`);
    figure.append(stage, make("figcaption", [row.dataset.title, says, below].filter(Boolean).join(" · ")));
    return figure;
  };
  const chooser = (label, name, options) => {
    const [wrap, select] = [make("label", label), make("select", undefined, { name })];
    select.append(...options.map(([value, text]) => option(value, text)));
    wrap.append(" ", select);
    return wrap;
  };
  const addViewer = (photo) => {
    if (photo.querySelector(".viewer")) return;
    const rows = [...photo.querySelectorAll("tr[data-c]")].map((row) => [row.dataset.c, row.dataset.title]);
    const viewer = make("div", undefined, { class: "viewer", role: "group", "aria-label": "Compare two images" });
    const bar = make("div", undefined, { class: "tools" });
    const interpreters = data.interpreters.map((title, i) => [String(i), title]);
    const layers = [["map", "map"], ["image", "image"], ["region", "map cut"]];
    bar.append(
      chooser("Left", "left", rows), chooser("Right", "right", rows),
      chooser("Interpreter", "interpreter", interpreters), chooser("Show", "layer", layers),
    );
    const flicker = make("button", "Flicker", { type: "button", "aria-pressed": "false", name: "flicker" });
    bar.append(flicker);
    const panes = make("div", undefined, { class: "panes" });
    const key = make("p", "White: in both maps; blue: in the benign map alone; orange: in this map alone.", { class: "muted" });
    viewer.append(bar, panes, key);
    const field = (name) => bar.querySelector(`[name="${name}"]`);
    field("right").value = (data.pairs.find((pair) => rows.some(([c]) => c === String(pair.condition))) || { condition: rows[rows.length - 1][0] }).condition;
    const first = data.pairs[0];
    field("interpreter").value = first ? first.interpreter : 0;
    let timer = null;
    const draw = () => {
      const [interpreter, layer] = [field("interpreter").value, field("layer").value];
      panes.replaceChildren(...["left", "right"].map((side) => pane(photo, field(side).value, interpreter, layer)));
      key.hidden = layer !== "region";
      show(0);
    };
    const show = (place) => {
      const over = flicker.getAttribute("aria-pressed") === "true";
      panes.classList.toggle("over", over);
      [...panes.children].forEach((figure, i) => figure.classList.toggle("behind", over && i !== place));
      panes.dataset.shown = String(place);
    };
    const swap = () => show(1 - Number(panes.dataset.shown));
    flicker.addEventListener("click", () => {
      const on = flicker.getAttribute("aria-pressed") !== "true";
      flicker.setAttribute("aria-pressed", String(on));
      clearInterval(timer);
      // Who wants less motion swaps the images by hand, with a click.
      if (on && !calm.matches) timer = setInterval(() => (viewer.isConnected && photo.open ? swap() : undefined), FLICKER);
      show(0);
    });
    panes.addEventListener("click", () => flicker.getAttribute("aria-pressed") === "true" && swap());
    bar.addEventListener("change", draw);
    viewer.addEventListener("redraw", () => field("layer").value === "region" && draw());
    photo.querySelector(".body").prepend(viewer);
    draw();
  };

  // A photo by its address.

  const open = (photo, focus) => {
    photo.open = true;
    photo.hidden = false;
    addViewer(photo);
    photo.scrollIntoView({ block: "start" });
    if (focus) photo.querySelector("summary").focus({ preventScroll: true });
  };
  const follow = () => {
    const photo = location.hash.startsWith("#photo-") && byId(decodeURIComponent(location.hash.slice(1)));
    if (photo) open(photo, true);
  };
  for (const photo of photos) {
    photo.addEventListener("toggle", () => photo.open && addViewer(photo));
    if (photo.open) addViewer(photo);
  }
  addEventListener("hashchange", follow);

  // The list of photos.

  let [list, found, drawn] = [null, [], 0];
  const unpack = async (text) => {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return JSON.parse(await new Response(stream).text());
  };
  const pairOf = () => Number(byId("attack").value);
  const order = {
    run: () => 0,
    name: (a, b) => (list.names[a] < list.names[b] ? -1 : 1),
    label: (a, b) => (list.classes[list.labels[a]] < list.classes[list.labels[b]] ? -1 : 1),
    "iou-down": (a, b) => list.iou[pairOf()][b] - list.iou[pairOf()][a],
    "iou-up": (a, b) => list.iou[pairOf()][a] - list.iou[pairOf()][b],
    "l1-down": (a, b) => list.l1[pairOf()][b] - list.l1[pairOf()][a],
    "l1-up": (a, b) => list.l1[pairOf()][a] - list.l1[pairOf()][b],
  };
  const choose = () => {
    const [pair, verdict] = [pairOf(), byId("verdict-filter").value];
    const words = byId("words-filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    const texts = (i) => `${list.names[i]} ${list.classes[list.labels[i]]} ${list.classes[list.targets[i]]}`.toLowerCase();
    const by = byId("sort").value;
    found = [...list.names.keys()].filter(
      (i) =>
        (verdict === "all" || list.outcomes[pair][i] === verdict) &&
        (!byId("shown-filter").checked || list.shown[i]) &&
        words.every((word) => texts(i).includes(word)),
    );
    found.sort((a, b) => {
      const missing = (list.outcomes[pair][a] === "-") - (list.outcomes[pair][b] === "-");
      return missing || order[by](a, b) || a - b;
    });
    drawn = 0;
    byId("list").tBodies[0].replaceChildren();
    drawMore();
    arrange();
  };
  const line = (i) => {
    const pair = pairOf();
    const row = make("tr");
    const name = make("th", undefined, { scope: "row", class: "name" });
    name.append(list.shown[i] ? make("a", list.names[i], { href: `#${list.shown[i]}` }) : list.names[i]);
    const outcome = list.outcomes[pair][i];
    const seen = outcome !== "-";
    row.append(
      name,
      make("td", list.classes[list.labels[i]]),
      make("td", list.classes[list.targets[i]]),
      make("td", OUTCOMES[outcome] || "not attacked", { class: `outcome ${outcome}` }),
      make("td", seen ? (list.iou[pair][i] / 100).toFixed(2) : "–", { class: "num" }),
      make("td", seen ? (list.l1[pair][i] / 1000).toFixed(3) : "–", { class: "num" }),
    );
    return row;
  };
  const drawMore = () => {
    const some = found.slice(drawn, drawn + PAGE);
    byId("list").tBodies[0].append(...some.map(line));
    drawn += some.length;
    byId("more").hidden = drawn === found.length;
    byId("count").textContent = `${found.length} of ${list.names.length} photos match, ${drawn} are drawn.`;
  };
  const arrange = () => {
    const places = new Map(found.map((i, place) => [list.shown[i], place]));
    const before = [...byId("album").querySelectorAll("details.photo")];
    const sorted = [...photos].sort((a, b) => (places.get(a.id) ?? Infinity) - (places.get(b.id) ?? Infinity) || 0);
    for (const photo of sorted) photo.hidden = !places.has(photo.id);
    if (sorted.some((photo, i) => photo !== before[i])) byId("album").append(...sorted); // moving takes the focus away
  };
  for (const id of ["attack", "verdict-filter", "sort", "shown-filter"]) byId(id)?.addEventListener("change", choose);
  byId("words-filter").addEventListener("input", choose);
  byId("more").addEventListener("click", drawMore);

  // By keys: only where nothing is being written or chosen.

  const visible = () => [...document.querySelectorAll("details.photo")].filter((photo) => !photo.hidden);
  const current = () => visible().find((photo) => photo.contains(document.activeElement)) || visible().find((photo) => photo.open);
  const step = (by) => {
    const all = visible();
    const place = all.indexOf(current());
    const next = all[Math.min(all.length - 1, Math.max(0, place + by))];
    if (next) {
      for (const photo of all) if (photo !== next) photo.open = false;
      history.replaceState(null, "", `#${next.id}`);
      open(next, true);
    }
  };
  const press = (name, act) => {
    const photo = current();
    const field = photo && photo.querySelector(`.viewer [name="${name}"]`);
    if (field) act(field);
  };
  const slide = (by) => {
    byId("cut").value = Number(byId("cut").value) + by;
    refresh();
  };
  const keys = {
    j: () => step(1),
    k: () => step(-1),
    f: () => press("flicker", (button) => button.click()),
    m: () => press("layer", (select) => {
      select.selectedIndex = (select.selectedIndex + 1) % select.options.length;
      select.dispatchEvent(new Event("change", { bubbles: true }));
    }),
    ",": () => slide(-5),
    ".": () => slide(5),
    d: () => setDark(!dark),
    "/": () => byId("words-filter").focus(),
  };
  addEventListener("keydown", (event) => {
    const writing = event.target instanceof Element && event.target.closest("input, select, textarea");
    if (writing || event.ctrlKey || event.metaKey || event.altKey || !byId("keys").checked || !keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });

  // With all in place, what needs a script is shown.

  document.documentElement.classList.add("scripted");
  follow();
  refresh();
  unpack(data.list).then((content) => {
    list = { ...content, shown: [] };
    for (const [id, { place }] of Object.entries(data.sample)) list.shown[place] = id;
    choose();
    byId("list").dataset.ready = "";
  });
})();
