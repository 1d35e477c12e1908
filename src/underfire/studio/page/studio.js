"use strict";
// The page of underfire studio. It talks to its own server alone, by addresses relative to its own.

const $ = (id) => document.getElementById(id);
const form = $("form");
const RUNNING = new Set(["preparing", "running", "stopping"]);
const MAPS = { target: ["kept", "led", "free"], other: ["kept", "led", "free"], kept: ["led", "topk", "center", "l1"] };
const MEASURE = { topk: "top", l1: "top", center: "shift" };
const MEASURES = {
  iou: (d) => `IoU ${d.iou.toFixed(2)}`,
  l1: (d) => `L1 distance ${d.l1.toFixed(3)}`,
  top: (d) => `IoU of the top fifths ${d.top.toFixed(2)}`,
  shift: (d) => `centre shifted by ${d.shift.toFixed(2)} diagonals`,
};

let options = null;        // what the server offers for the chosen model
let benign = null;         // how photo and maps are seen before an attack
let frame = null;          // how they are seen now
let result = null;         // what came of the attack
let points = [];
let course = { number: 0, phase: "idle", message: "", asked: null };
let asked = null;          // what the attack was asked for
let dropped = null;        // the preview of a dropped photo
let flickering = false;
let shownBefore = false;
let announced = "idle";

// --- asking the server ---

async function ask(path, settings = {}) {
  let answer;
  try {
    answer = await fetch(path, settings);
  } catch {
    throw new Error("The studio does not answer; is it still running in the terminal?");
  }
  const told = await answer.json().catch(() => ({ error: "The studio refused the request; open the address that it printed again." }));
  if (!answer.ok) throw Object.assign(new Error(told.error), { status: answer.status });
  return told;
}
const post = (path, body) => ask(path, { method: "POST", body: JSON.stringify(body) });

function complain(error) { $("error").textContent = error ? error.message : ""; }

// --- the form ---

function chosen(name) { return [...form.querySelectorAll(`input[name="${name}"]:checked`)].map((box) => box.value); }

function perturbation() { return options.perturbations.find((one) => one.name === $("perturbation").value); }

function goal() { return `${$("label").value}/${$("map").value}`; }

function wish() {
  const photo = chosen("photo")[0];
  const wanted = {
    model: Number($("model").value), photo: photo === "dropped" ? null : Number(photo), interpreters: chosen("interpreter"),
    goal: goal(), perturbation: $("perturbation").value, eps: perturbation().budgets[$("eps").value], passes: Math.trunc(Number($("passes").value)) || 0, seed: Math.trunc(Number($("seed").value)) || 0,
  };
  if ($("label").value === "target") wanted.target = $("target").value;
  if ($("map").value === "led") wanted.target_map = [...drawing];
  return wanted;
}

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function thumbnail(value, source, title, checked) {
  const input = element("input", { type: "radio", name: "photo", value, checked });
  input.setAttribute("aria-label", title);
  return element("label", { title }, input, element("img", { src: source, alt: "", loading: "lazy" }));
}

function showPhotos() {
  const before = chosen("photo")[0] ?? "0";
  $("photos").replaceChildren(
    ...(dropped ? [thumbnail("dropped", dropped, "the photo that was dropped", before === "dropped")] : []),
    ...options.photos.map((title, i) => thumbnail(String(i), `photos/${i}`, title, before === String(i))));
}

function showInterpreters() {
  const before = chosen("interpreter");
  const names = options.interpreters.map((one) => one.name);
  const kept = before.filter((name) => names.includes(name));
  const first = kept.length ? kept : [names.includes("cam") ? "cam" : names[0]];
  $("interpreters").replaceChildren(...options.interpreters.map((one) => {
    const box = element("input", { type: "checkbox", name: "interpreter", value: one.name, checked: first.includes(one.name) });
    return element("label", { title: one.summary }, box, element("span", { textContent: one.title }));
  }));
}

function showGoal() {
  const label = $("label").value, map = $("map");
  for (const option of map.options) option.hidden = option.disabled = !MAPS[label].includes(option.value);
  if (map.selectedOptions[0]?.disabled ?? true) map.value = MAPS[label][0];
  $("target-field").hidden = label !== "target";
  $("draw").hidden = map.value !== "led";
  const attack = label === "kept" ? "the map attack" : map.value === "free" ? "PGD, which looks at no map" : "ADV²";
  $("goal").textContent = `Goal ${goal()}, by ${attack}.`;
  const shown = perturbation().shown[$("eps").value];
  $("eps-text").value = shown;
  $("eps").setAttribute("aria-valuetext", shown);
  const named = new Set(chosen("interpreter"));
  const costs = options.interpreters.filter((one) => named.has(one.name));
  const step = map.value === "free" ? 1 : 1 + costs.reduce((sum, one) => sum + one.passes_per_step - 1, 0);
  const slow = costs.filter((one) => one.slow).map((one) => one.title);
  $("costs").textContent = costs.length ? `A step takes ${step} ${step === 1 ? "pass" : "passes"} of the model.` +
    (slow.length ? ` Maps of ${slow.join(" and ")} take long and are shown before and after alone.` : "") : "Choose at least one.";
}

function showPerturbation() {
  const { budgets, unit, default: place } = perturbation();
  $("eps").max = budgets.length - 1;
  $("eps").value = place;
  $("unit").textContent = `Unit: ${unit}.`;
}

async function loadModel() {
  $("status").textContent = "Loading the model and finding the interpreters that suit it …";
  $("start").disabled = true;
  options = await ask(`options/${$("model").value || 0}`);
  if (!$("model").options.length) {
    $("model").append(...options.models.map((name, i) => element("option", { value: String(i), textContent: name })));
    $("perturbation").append(...options.perturbations.map((one) => element("option", { value: one.name, textContent: `${one.name}: ${one.summary}` })));
    showPhotos();
    showPerturbation();
  }
  $("passes").max = options.most_passes;
  $("classes").replaceChildren(...[...new Set(options.classes)].map((name) => element("option", { value: name })));
  if (!options.classes.includes($("target").value)) $("target").value = "";
  showInterpreters();
  showGoal();
  paintScale();
  await look();
}

// --- the photo before an attack ---

let looking = null, newest = 0;

// One after the other: the server works on one thing at a time, and the newest wish alone counts.
function look() {
  newest += 1;
  const number = newest;
  looking = (looking ?? Promise.resolve()).then(() => lookOnce(number));
  return looking;
}

async function lookOnce(number) {
  if (number !== newest || RUNNING.has(course.phase)) return;
  const wanted = { ...wish(), passes: 1, seed: 0 };
  if (!wanted.interpreters.length) { complain(new Error("Choose at least one interpreter.")); return; }
  delete wanted.target_map;
  $("status").textContent = "Looking at the photo …";
  try {
    const seen = await post("look", wanted);
    if (number !== newest || RUNNING.has(course.phase)) return;
    benign = seen; frame = null; result = null; points = []; asked = null;
    complain(null);
    $("status").textContent = "Ready.";
    show();
  } catch (error) {
    if (number !== newest) return;
    if (error.status === 409 && !RUNNING.has(course.phase)) {
      await new Promise((done) => setTimeout(done, 400));
      if (number === newest) return lookOnce(number);
      return;
    }
    $("status").textContent = "";
    complain(error);
  } finally {
    if (number === newest) $("start").disabled = RUNNING.has(course.phase);
  }
}

async function drop(file) {
  if (!file || RUNNING.has(course.phase)) return;
  complain(null);
  try {
    if (file.size > options.most_upload) throw new Error(`The photo is larger than ${options.most_upload / 2 ** 20} MiB; give a smaller one.`);
    if (looking) await looking;
    const taken = await ask("photo", { method: "POST", body: file });
    dropped = taken.preview;
    showPhotos();
    form.querySelector('input[value="dropped"]').checked = true;
    await look();
  } catch (error) { complain(error); }
}

// --- an attack ---

async function begin() {
  complain(null);
  $("start").disabled = true;
  try {
    if (looking) await looking;
    if ($("error").textContent) { $("start").disabled = false; return; }
    await post("attack", wish());
    $("measure").value = MEASURE[$("map").value] ?? "iou";
    stopFlicker();
    if (matchMedia("(max-width: 60rem)").matches) $("stage").scrollIntoView();
  } catch (error) {
    complain(error);
    $("start").disabled = false;
    if (error.message.includes("target")) $("target").focus();
  }
}

function follow() {
  const news = new EventSource("news");
  news.onmessage = (event) => take(JSON.parse(event.data));
  news.onerror = () => { if (news.readyState === EventSource.CLOSED) lost(); else $("status").textContent = "The studio does not answer; waiting for it …"; };
}

function lost() { $("status").textContent = "The studio has ended."; $("start").disabled = $("stop").disabled = true; }

function take(told) {
  if (told.number !== course.number) points = [];
  course = told;
  if (told.number) {
    asked = told.asked;
    points.push(...told.points);
    benign = told.benign ?? benign;
    frame = told.frame;
    result = told.result;
  }
  const running = RUNNING.has(told.phase);
  for (const part of form.querySelectorAll("fieldset")) part.disabled = running;
  $("start").disabled = running || !options;
  $("stop").disabled = !running || told.phase === "stopping";
  const spent = points.at(-1)?.passes ?? 0;
  const most = asked?.passes ?? 1;
  $("progress").max = Math.max(most, spent);
  $("progress").value = told.phase === "done" ? $("progress").max : spent;
  if (told.phase === "failed") complain(new Error(told.message));
  const words = {
    preparing: "Looking at the photo before the attack …", running: `Pass ${spent} of ${most}`, stopping: "Stopping at the next step …",
    done: `Done after ${result?.passes} passes, ${result?.seconds.toFixed(1)} s.`, stopped: `Stopped after ${result?.passes} passes.`, failed: "Failed.",
  };
  if (words[told.phase]) $("status").textContent = words[told.phase];
  if (told.phase !== announced) $("announced").textContent = told.phase === "running" ? "The attack is running." : words[told.phase] ?? "";
  announced = told.phase;
  show();
}

// --- pictures ---

function figure(kind, source, caption, detail) {
  const picture = source ? element("img", { src: source, alt: `${caption}: ${detail}` }) : element("span", { className: "gone", textContent: "not yet" });
  if (source && kind === "now") picture.dataset.now = source;
  return element("figure", { className: kind }, picture, element("figcaption", {}, element("b", { textContent: caption }), detail));
}

const percent = (p) => `${(100 * p).toFixed(p > 0.995 || p < 0.005 ? 2 : 1)}\u00a0%`;

function show() {
  const easel = $("easel-photo");
  if (benign && easel.src !== benign.image) easel.src = benign.image;
  const now = result ?? frame, last = points.at(-1), rows = [];
  if (benign) {
    const confidence = result ? result.confidence : null;
    const seen = now ? `${now.prediction}${confidence === null ? "" : ` ${percent(confidence)}`}` : "";
    const changed = frame ? `ε ${asked?.eps ?? ""} (${asked?.perturbation ?? ""}), drawn ×${frame.gain}` : "";
    rows.push(strip("Photo", "", figure("before", benign.image, "before", `${benign.label} ${percent(benign.confidence)}`),
      figure("now", now?.image, "now", seen), figure("more", frame?.change, "change", changed)));
    for (const one of options?.interpreters ?? []) {
      const before = benign.maps[one.name];
      if (!before) continue;
      const change = result?.distances[one.name] ?? last?.maps[one.name];
      const lead = benign.targets?.[one.name];
      const third = element("figure", { className: "more" }, ...(lead ? [element("img", { src: lead, alt: "the target map" })] : []), ...figures(change));
      rows.push(strip(one.title, one.summary, figure("before", before, "before", ""), figure("now", now?.maps[one.name], "now", change ? MEASURES[$("measure").value](change) : ""), third));
    }
  }
  const there = $("pictures");
  if (there.children.length === rows.length) rows.forEach((row, i) => morph(there.children[i], row));
  else there.replaceChildren(...rows);
  swapPictures();
  showVerdict();
  drawCharts();
}

// Makes old what fresh is, without touching what is the same: the page must not move while it is read.
function morph(old, fresh) {
  if (old.nodeName !== fresh.nodeName || old.className !== fresh.className || old.childNodes.length !== fresh.childNodes.length) { old.replaceWith(fresh); return; }
  if (old.nodeType === Node.TEXT_NODE) { if (old.data !== fresh.data) old.data = fresh.data; return; }
  for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  const pairs = [...fresh.childNodes].map((child, i) => [old.childNodes[i], child]);
  for (const [before, after] of pairs) morph(before, after);
}

function figures(change) {
  if (!change) return [];
  const to = asked?.goal.endsWith("/led") ? "target map" : "from the map before";
  return [element("figcaption", {}, element("b", { textContent: to }), ...Object.values(MEASURES).map((words) => element("span", { className: "fact num", textContent: words(change) })))];
}

function strip(title, note, ...parts) { return element("div", { className: "strip" }, element("h2", { textContent: title }, ...(note ? [element("small", { textContent: note })] : [])), ...parts); }

function showVerdict() {
  const box = $("verdict");
  box.hidden = !result;
  if (!result) return;
  box.classList.toggle("met", result.met);
  box.classList.toggle("missed", !result.met);
  const stopped = course.phase === "stopped" ? " when it was stopped" : "";
  $("verdict-title").textContent = result.met ? `The attacker has both: ${asked ? asked.goal : "the goal"} is met${stopped}` : `The goal ${asked ? asked.goal : ""} is not met${stopped}`;
  const line = (met, text) => element("li", {}, element("span", { className: `tag ${met ? "serious" : ""}`, textContent: met ? "met" : "missed" }), text);
  const lines = [line(result.label_met, `Label: the model sees “${result.prediction}” with ${percent(result.confidence)}; before, “${benign.label}” with ${percent(benign.confidence)}.`)];
  for (const one of options?.interpreters ?? []) {
    if (!(one.name in result.maps_met)) continue;
    const d = result.distances[one.name];
    lines.push(line(result.maps_met[one.name], `Map of ${one.title}: ${MEASURES.iou(d)}, ${MEASURES.l1(d)}, ${MEASURES.top(d)}, ${MEASURES.shift(d)}.`));
  }
  $("verdict-list").replaceChildren(...lines);
}

// --- flicker ---

let clock = null;

function swapPictures() {
  $("pictures").classList.toggle("flickering", flickering);
  if (!flickering) return;
  for (const row of $("pictures").children) {
    const now = row.querySelector(".now img"), before = row.querySelector(".before img"), name = row.querySelector(".now b");
    if (!now || !before) continue;
    now.src = shownBefore ? before.src : now.dataset.now;
    now.parentElement.classList.toggle("was", shownBefore);
    name.textContent = shownBefore ? "before" : "now";
  }
}

function swap() { shownBefore = !shownBefore; swapPictures(); }

function startFlicker() {
  flickering = true;
  $("swap").hidden = false;
  if (!matchMedia("(prefers-reduced-motion: reduce)").matches) clock = setInterval(swap, 700);
  pressed();
}

function stopFlicker() {
  flickering = shownBefore = false;
  $("swap").hidden = true;
  clearInterval(clock);
  pressed();
}

function pressed() {
  $("side").setAttribute("aria-pressed", String(!flickering));
  $("flicker").setAttribute("aria-pressed", String(flickering));
  show();
}

// --- curves ---

const SVG = "http://www.w3.org/2000/svg";
const BOX = { left: 36, right: 392, top: 12, bottom: 178 };

function svg(name, attributes, text = "") {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

function chart(id, lines, caption) {
  const most = Math.max(asked?.passes ?? 1, points.at(-1)?.passes ?? 1);
  const x = (passes) => BOX.left + (BOX.right - BOX.left) * passes / most, y = (value) => BOX.bottom - (BOX.bottom - BOX.top) * value;
  const parts = [];
  for (const value of [0, 0.25, 0.5, 0.75, 1]) {
    parts.push(svg("line", { class: "grid", x1: BOX.left, x2: BOX.right, y1: y(value), y2: y(value) }));
    if (value * 2 === Math.round(value * 2)) parts.push(svg("text", { x: BOX.left - 6, y: y(value) + 4, "text-anchor": "end" }, String(value)));
  }
  for (const share of [0, 0.5, 1]) parts.push(svg("text", { x: x(share * most), y: BOX.bottom + 18, "text-anchor": share === 1 ? "end" : share ? "middle" : "start" }, String(Math.round(share * most))));
  parts.push(svg("text", { x: (BOX.left + BOX.right) / 2, y: BOX.bottom + 33, "text-anchor": "middle" }, "passes"));
  lines.forEach((line, i) => {
    const path = line.values.map((value, k) => `${k ? "L" : "M"}${x(points[k].passes).toFixed(1)} ${y(Math.max(0, Math.min(1, value))).toFixed(1)}`).join("");
    if (path) parts.push(svg("path", { class: `line c${i % 4}`, d: path }));
  });
  $(`${id}-chart`).replaceChildren(...parts);
  $(`${id}-caption`).textContent = caption;
  $(`${id}-key`).replaceChildren(...lines.map((line, i) => {
    const sample = svg("svg", { viewBox: "0 0 32 10", "aria-hidden": "true" });
    sample.append(svg("path", { class: `line c${i % 4}`, d: "M0 5H32" }));
    const value = line.values.at(-1);
    return element("li", {}, sample, `${line.title} `, element("b", { textContent: value === undefined ? "" : value.toFixed(3) }));
  }));
}

function drawCharts() {
  const kept = asked ? asked.goal.startsWith("kept/") : $("label").value === "kept";
  const name = result?.explained ?? (asked?.target ? `target: ${asked.target}` : "the other class");
  const label = { title: benign ? `label before: ${benign.label}` : "label before", values: points.map((p) => p.label) };
  chart("label", kept ? [label] : [{ title: name, values: points.map((p) => p.reached) }, label], "Confidence of the model");
  const measure = $("measure").value, words = $("measure").selectedOptions[0].textContent;
  const names = Object.keys(points[0]?.maps ?? {});
  const title = (one) => options?.interpreters.find((other) => other.name === one)?.title ?? one;
  const to = (asked ? asked.goal.endsWith("/led") : $("map").value === "led") ? "target map" : "map before";
  chart("map", names.map((one) => ({ title: title(one), values: points.map((p) => p.maps[one][measure]) })), `Map now beside the ${to}: ${words}`);
}

function paintScale() {
  const pen = $("scale").getContext("2d"), pixels = pen.createImageData(256, 1);
  options.colours.forEach((colour, i) => pixels.data.set([...colour, 255], 4 * i));
  pen.putImageData(pixels, 0, 0);
}

// --- the target map ---

const SIDE = 28;
const drawing = new Uint8Array(SIDE * SIDE);
const brush = { x: SIDE / 2, y: SIDE / 2, shown: false };

function stamp(x, y) {
  const radius = Number($("brush").value);
  for (let i = 0; i < SIDE; i += 1) {
    for (let j = 0; j < SIDE; j += 1) {
      const far = Math.hypot(j + 0.5 - x, i + 0.5 - y);
      const value = Math.round(255 * Math.max(0, Math.min(1, radius + 0.5 - far)));
      drawing[i * SIDE + j] = Math.max(drawing[i * SIDE + j], value);
    }
  }
  paintDrawing();
}

function paintDrawing() {
  const pen = $("canvas").getContext("2d"), pixels = pen.createImageData(SIDE, SIDE);
  drawing.forEach((value, i) => pixels.data.set([...(options?.colours[value] ?? [value, value, value]), Math.round(255 * (0.35 + 0.45 * value / 255))], 4 * i));
  pen.putImageData(pixels, 0, 0);
  if (brush.shown) {
    pen.strokeStyle = "#fff";
    pen.strokeRect(brush.x - 1, brush.y - 1, 2, 2);
  }
}

function place(event) {
  const box = $("canvas").getBoundingClientRect();
  return [SIDE * (event.clientX - box.left) / box.width, SIDE * (event.clientY - box.top) / box.height];
}

function steer(event) {
  const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const clamp = (value) => Math.max(0, Math.min(SIDE, value));
  if (event.key in moves) {
    brush.x = clamp(brush.x + moves[event.key][0]);
    brush.y = clamp(brush.y + moves[event.key][1]);
  } else if (event.key === " ") {
    stamp(brush.x, brush.y);
  } else if (event.key === "Delete" || event.key === "Backspace") {
    drawing.fill(0);
  } else {
    return;
  }
  event.preventDefault();
  brush.shown = true;
  paintDrawing();
}

// --- what happens when ---

form.addEventListener("submit", (event) => { event.preventDefault(); begin(); });
form.addEventListener("change", (event) => {
  if (event.target.id === "model") { loadModel().catch(complain); return; }
  if (event.target.id === "file") { drop(event.target.files[0]); event.target.value = ""; return; }
  if (event.target.id === "perturbation") showPerturbation();
  showGoal();
  if (["photo", "interpreter"].includes(event.target.name)) look();
});
$("eps").addEventListener("input", showGoal);
$("measure").addEventListener("change", show);
$("stop").addEventListener("click", () => post("stop", {}).catch(complain));
$("side").addEventListener("click", stopFlicker);
$("flicker").addEventListener("click", () => (flickering ? stopFlicker() : startFlicker()));
$("swap").addEventListener("click", swap);
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, canvas")) return;
  if (event.key === "f") (flickering ? stopFlicker : startFlicker)();
  if (event.key === "s" && flickering) swap();
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop") drop(event.dataTransfer.files[0]);
  });
}
$("canvas").addEventListener("pointerdown", (event) => { $("canvas").setPointerCapture(event.pointerId); stamp(...place(event)); });
$("canvas").addEventListener("pointermove", (event) => { if (event.buttons) stamp(...place(event)); });
$("canvas").addEventListener("keydown", steer);
$("canvas").addEventListener("blur", () => { brush.shown = false; paintDrawing(); });
$("clear").addEventListener("click", () => { drawing.fill(0); paintDrawing(); });
$("random").addEventListener("click", () => {
  drawing.fill(0);
  const inner = () => SIDE * (0.2 + 0.6 * Math.random());
  stamp(inner(), inner());
});

follow();
loadModel().catch(complain).finally(paintDrawing);
