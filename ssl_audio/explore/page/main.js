// Puts the page together: search, map, results, labels, keys.
import { bytes, get, post, send } from "./api.js";
import { Hits } from "./hits.js";
import { Labels } from "./labels.js";
import { COLOURS, SoundMap } from "./map.js";

const $ = (id) => document.getElementById(id);
const STEP = 24;  // hits shown at a time
const narrow = matchMedia("(max-width: 820px)");  // as in style.css: one column
let about = {}, asked = null, begun = false, only = null, groups = { names: [], counts: [], of: "" };

function say(text, bad = false) {
  $("status").textContent = text;
  $("status").classList.toggle("bad", bad);
}

const map = new SoundMap($("map"), { choose: (row) => more({ row }), over: hover });
const hits = new Hits($("hits"), $("hit"), {
  like: more,
  selected: (hit) => { map.setHits(hits.hits.map((h) => h.row), hit ? hit.row : -1); showClasses(); },
});
const labels = new Labels({
  changed: () => { hits.relabel(labels.of); showClasses(); if (["label", "guess"].includes($("colour").value)) colourSoon(); },
  failed: (message) => say(message, true),
});

// ---- search

// ask(top) → {hits, ms}; said: what was asked, for the title.
async function show(said, ask, top = STEP, keep = false) {
  asked = { said, ask, top };
  const mine = asked;
  say(keep ? "" : `${said} …`);
  try {
    const found = await ask(top);
    if (mine !== asked) return;
    const before = hits.hits.length;
    hits.show(found.hits, { keep });
    if (begun) hits.select(keep ? before : 0, { focus: true, scroll: keep });  // keys are for the results now
    if (begun && !keep) toResults();
    $("hits-title").textContent = said;
    $("took").textContent = found.ms === undefined ? "" : `${found.hits.length} in ${found.ms} ms`;
    $("more").hidden = found.hits.length < top || top >= Math.min(500, about.rows);
    say(found.hits.length ? "" : "Nothing found.");
  } catch (error) { if (mine === asked) say(error.message, true); }
}
function toResults() {
  const top = $("hits").getBoundingClientRect().top;
  if (narrow.matches || top < $("labels").offsetHeight) $("found").scrollIntoView();
}
function more(hit) {
  const name = hit.path ? hit.path.split("/").pop() : `sound ${hit.row}`;
  return show(`More like ${name}`, (top) => post("search", { row: hit.row, top }));
}
function random() {
  const seed = Math.floor(Math.random() * 2 ** 31);
  return show("Some sounds at random", (top) => post("search", { random: true, seed, top }));
}

$("search").addEventListener("submit", (e) => {
  e.preventDefault();
  const words = $("words").value.trim();
  if (words) { show(`Sounds like “${words}”`, (top) => post("search", { words, top })); $("words").blur(); }
});
$("random").addEventListener("click", random);
$("more").addEventListener("click", () => show(asked.said, asked.ask, Math.min(500, asked.top + STEP), true));
const byFile = (file) => show(`Sounds like ${file.name}`, (top) => send(`by-sound?top=${top}`, file));
$("file").addEventListener("change", (e) => { if (e.target.files[0]) byFile(e.target.files[0]); e.target.value = ""; });
let inside = 0;
addEventListener("dragenter", (e) => { if (e.dataTransfer?.types.includes("Files")) { inside++; $("drop").hidden = false; } });
addEventListener("dragleave", () => { inside = Math.max(0, inside - 1); $("drop").hidden = inside === 0; });
addEventListener("dragover", (e) => e.preventDefault());
addEventListener("drop", (e) => {
  e.preventDefault();
  inside = 0;
  $("drop").hidden = true;
  if (e.dataTransfer.files[0]) byFile(e.dataTransfer.files[0]);
});

// ---- map

const known = new Map();
let hovered = -1, timer = 0;
function hover(row, x, y) {
  const tip = $("tip");
  if (row < 0) { tip.hidden = true; hovered = -1; clearTimeout(timer); return; }
  const place = () => {
    const box = tip.parentElement.getBoundingClientRect();
    tip.style.left = `${Math.min(x + 12, Math.max(0, box.width - tip.offsetWidth - 4))}px`;
    tip.style.top = `${y + tip.offsetHeight + 18 > box.height ? y - tip.offsetHeight - 8 : y + 14}px`;
  };
  place();
  if (row === hovered) return;
  hovered = row;
  clearTimeout(timer);
  const tell = (hit) => {
    if (hovered !== row) return;
    const group = map.of && map.of[row] >= 0 ? groups.names[map.of[row]] : "";
    tip.textContent = [hit.path.split("/").slice(-2).join("/"), hit.end === null ? "" : `${hit.start.toFixed(1)}–${hit.end.toFixed(1)} s`,
      labels.of[row] ?? group].filter(Boolean).join(" · ");
    tip.hidden = false;
    place();
  };
  if (known.has(row)) return tell(known.get(row));
  timer = setTimeout(async () => {
    try { known.set(row, await get(`row/${row}`)); tell(known.get(row)); } catch { /* the next one may come */ }
  }, 60);
}

async function colour() {
  const by = $("colour").value;
  try { groups = await get(`colours/${by}`); } catch (error) { return say(error.message, true); }
  if (by !== $("colour").value) return;
  const raw = atob(groups.of), of = new Int16Array(raw.length / 2);
  for (let i = 0; i < of.length; i++) of[i] = raw.charCodeAt(2 * i) | (raw.charCodeAt(2 * i + 1) << 8);
  const byCount = groups.names.map((_, i) => i).sort((a, b) => groups.counts[b] - groups.counts[a]);
  const order = new Array(groups.names.length).fill(-1);
  byCount.slice(0, COLOURS.length).forEach((group, i) => { order[group] = i; });
  if (only !== null && only >= groups.names.length) only = null;
  map.only = only;
  map.setGroups(of.length ? of : null, order);
  $("legend").replaceChildren(...byCount.map((group) => {
    const item = document.createElement("li"), button = document.createElement("button"), dot = document.createElement("i");
    dot.className = "dot";
    if (order[group] >= 0) dot.style.background = COLOURS[order[group]];
    button.type = "button";
    button.setAttribute("aria-pressed", String(only === group));
    button.title = "show only these";
    button.append(dot, `${groups.names[group]} `, Object.assign(document.createElement("span"), { className: "quiet", textContent: groups.counts[group].toLocaleString("en") }));
    button.addEventListener("click", () => {
      only = only === group ? null : group;
      for (const other of $("legend").querySelectorAll("button")) other.setAttribute("aria-pressed", "false");
      button.setAttribute("aria-pressed", String(only === group));
      map.setOnly(only);
    });
    item.append(button);
    return item;
  }));
}
let soon = 0;
function colourSoon() { clearTimeout(soon); soon = setTimeout(colour, 150); }
$("colour").addEventListener("change", () => { only = null; colour(); });
$("closer").addEventListener("click", () => map.zoomBy(1.5));
$("farther").addEventListener("click", () => map.zoomBy(1 / 1.5));
$("all").addEventListener("click", () => map.all());

async function watchMap() {
  let version = 0;
  for (;;) {
    let state;
    try { state = await get("map"); } catch { return; }
    if (state.version > version) {
      version = state.version;
      const [points] = await Promise.all([bytes("points"), colour()]);
      map.setPoints(new Float32Array(points));
    }
    $("progress").hidden = state.done && !state.stage.startsWith("failed");
    $("progress-text").textContent = state.stage.startsWith("failed") ? `No map: ${state.stage}` : `Map: ${state.stage}, ${Math.round(state.seconds ?? 0)} s`;
    $("progress").querySelector("progress").value = state.share;
    if (state.done) return;
    await new Promise((go) => setTimeout(go, 500));
  }
}

// ---- labels

function showClasses() {
  const counts = labels.counts(), now = hits.current, mine = now ? labels.of[now.row] : undefined;
  $("classes").replaceChildren(...labels.classes.map((name, i) => {
    const button = document.createElement("button");
    button.type = "button";
    if (i < 9) button.append(Object.assign(document.createElement("kbd"), { textContent: i + 1 }), " ");
    button.append(`${name} `, Object.assign(document.createElement("span"), { className: "quiet", textContent: counts[name] ?? 0 }));
    button.setAttribute("aria-pressed", String(mine === name));
    button.addEventListener("click", () => give(name));
    return button;
  }));
  $("label-title").textContent = now ? `Label ${now.path.split("/").pop()}` : "Label";
  $("undo").disabled = !labels.done.length;
  const total = Object.keys(labels.of).length;
  $("saved").textContent = total || labels.others
    ? `${total} labelled${labels.others ? `, ${labels.others} of other sounds` : ""}; saved in ${(about.labels ?? "").split("/").pop()}`
    : "Type the name of a class and press Enter: the selected sound gets it. Then number keys.";
  $("saved").title = about.labels ?? "";
  const select = $("of-class"), chosen = select.value;
  select.replaceChildren(...labels.classes.map((name) => new Option(name, name)));
  if (labels.classes.includes(chosen)) select.value = chosen;
  $("highest").disabled = !labels.classes.length;
}
// Label the selected sound and go on to the next.
function give(label) {
  if (!hits.current) return;
  const last = hits.now === hits.hits.length - 1;
  labels.set(hits.current.row, label);
  // The last of those that were to be labelled: the classifier has learned, and asks for the next ones.
  if (label !== null && last && asked.again) return labels.queue.then(asked.again);
  if (label !== null && !last) hits.select(hits.now + 1, { focus: !document.activeElement?.closest("#new-class") });
}
function undo() {
  const last = labels.undo();
  if (!last) return;
  const at = hits.hits.findIndex((hit) => hit.row === last.row);
  if (at >= 0) hits.select(at, { focus: true });
}
$("new-class").addEventListener("submit", (e) => {
  e.preventDefault();
  const name = labels.addClass($("class-name").value);
  if (!name) return;
  $("class-name").value = "";
  $("class-name").blur();
  give(name);
});
$("undo").addEventListener("click", undo);
$("export").addEventListener("click", (e) => {
  if (!Object.keys(labels.of).length && !labels.others) { e.preventDefault(); say("No labels yet: choose a sound and press a number key.", true); }
});
for (const button of document.querySelectorAll("#learner [data-how]")) {
  button.addEventListener("click", () => labelNext(button.dataset.how));
}
function labelNext(how) {
  const label = how === "highest" ? $("of-class").value : null;
  const said = { uncertain: "Least certain", highest: `Most likely ${label}`, random: "Random, not labelled yet" }[how];
  const done = show(said, (top) => post("next", { how, label, top }), 12);
  asked.again = () => labelNext(how);
  return done;
}

// ---- keys

$("help").addEventListener("click", () => $("keys").showModal());
addEventListener("keydown", (e) => {
  const inBox = e.target.closest?.("input, select, textarea, dialog[open]");
  if (e.key === "Escape" && inBox) return e.target.blur();
  if (inBox || e.altKey || ((e.ctrlKey || e.metaKey) && e.key !== "z")) return;
  const onButton = e.target.closest?.("button, a, canvas");
  const keys = {
    j: () => hits.select(hits.now + 1, { focus: true }), k: () => hits.select(hits.now - 1, { focus: true }),
    n: () => $("class-name").focus(), u: undo, z: undo, m: () => { if (hits.current) more(hits.current); },
    "/": () => $("words").focus(), "?": () => $("keys").showModal(), 0: () => give(null),
    p: () => { hits.auto = !hits.auto; say(`Playing by itself: ${hits.auto ? "on" : "off"}`); },
  };
  if (e.key === "z" && !e.ctrlKey && !e.metaKey) return;
  if (!onButton) {
    Object.assign(keys, { ArrowDown: keys.j, ArrowRight: keys.j, ArrowUp: keys.k, ArrowLeft: keys.k, " ": () => hits.toggle() });
  }
  const name = /^[1-9]$/.test(e.key) ? labels.classes[e.key - 1] : undefined;
  if (name) give(name);
  else if (keys[e.key]) keys[e.key]();
  else return;
  e.preventDefault();
});

// ---- begin

async function begin() {
  try {
    about = await get("about");
  } catch (error) { return say(error.message, true); }
  document.title = `${about.name}: sounds`;
  $("name").textContent = about.name;
  $("about").textContent = `${about.rows.toLocaleString("en")} segments of ${about.files.toLocaleString("en")} files`;
  $("about").title = about.place;
  const ways = [["label", "by label"], ["cluster", "by cluster"]];
  if (about.folders) ways.unshift(["folder", "by folder"]);
  if (about.learner) ways.push(["guess", "by what is likely"]);
  $("colour").replaceChildren(...ways.map(([value, text]) => new Option(text, value)));
  $("colour").value = about.folders ? "folder" : "cluster";
  $("learner").hidden = !about.learner;
  $("words").disabled = $("go").disabled = Boolean(about.lacks_words);
  $("words").placeholder = about.lacks_words ? "No search by words" : "Search by words";
  $("words").title = about.lacks_words;
  $("file").disabled = Boolean(about.lacks_sound);
  $("by-file").classList.toggle("off", $("file").disabled);
  watchMap();
  await Promise.all([about.learner ? labelNext("uncertain") : random(), labels.refresh()]);
  begun = true;
  if (about.lacks_words) say(about.lacks_words);
}
begin();
