// The list of found sounds: pictures, player, selection.
import { reason } from "./api.js";

const EDGES = [0.105, 0.87];  // where the picture's time axis begins and ends, as shares of its width: see sounds.py
const seconds = (s) => (s >= 60 ? `${Math.floor(s / 60)}:${(s % 60).toFixed(1).padStart(4, "0")}` : `${s.toFixed(1)}`);

// Pictures are asked for when they come near the view, two at a time: the server draws one after the other, and
// a sound or a search must not wait behind all of them.
class Pictures {
  constructor() {
    this.waiting = []; this.running = 0;
    this.observer = new IntersectionObserver((seen) => {
      for (const { target, isIntersecting } of seen) if (isIntersecting) { this.observer.unobserve(target); this.waiting.push(target); }
      this.next();
    }, { rootMargin: "300px" });
  }
  clear() { this.observer.disconnect(); this.waiting = []; }
  add(img) { this.observer.observe(img); }
  next() {
    while (this.running < 2 && this.waiting.length) {
      const img = this.waiting.shift();
      if (!img.isConnected) continue;
      this.running++;
      const over = () => { this.running--; this.next(); };
      img.addEventListener("load", over, { once: true });
      img.addEventListener("error", over, { once: true });
      img.src = img.dataset.src;
    }
  }
}

export class Hits {
  // like(hit): the user wants more like it. selected(hit): it is the selected one now.
  constructor(list, template, { like, selected }) {
    Object.assign(this, { list, template, like, selected, hits: [], items: [], now: -1, auto: false });
    this.pictures = new Pictures();
    this.audio = new Audio();
    this.audio.preload = "none";
    this.playing = -1;
    for (const what of ["play", "pause", "ended"]) this.audio.addEventListener(what, () => this.tell());
    this.audio.addEventListener("error", () => this.failed());
    this.dark = matchMedia("(prefers-color-scheme: dark)");
    this.dark.addEventListener("change", () => this.items.forEach((item, i) => this.picture(item, this.hits[i])));
  }

  get current() { return this.hits[this.now]; }

  show(hits, { keep = false } = {}) {
    if (!keep) { this.stop(); this.pictures.clear(); this.list.replaceChildren(); this.items = []; this.hits = []; this.now = -1; }
    for (const hit of hits.slice(this.hits.length)) {
      this.hits.push(hit);
      const item = this.template.content.firstElementChild.cloneNode(true), number = this.hits.length - 1;
      item.dataset.row = hit.row;
      this.items.push(item);
      const file = hit.path.split("/").pop(), end = hit.end === null ? "" : `–${seconds(hit.end)}`;
      item.querySelector(".file").textContent = file;
      item.querySelector(".title").title = hit.path;
      item.querySelector(".span").textContent = hit.end === null && !hit.start ? "" : `${seconds(hit.start)}${end} s`;
      item.querySelector(".score").textContent = hit.score ? hit.score.toFixed(3) : "";
      item.querySelector(".score").title = "cosine similarity: 1 is the same, 0 unrelated";
      item.querySelector("img").alt = `Spectrogram of ${file}: time in s, frequency in Hz, level in dB`;
      item.setAttribute("aria-label", `Sound ${number + 1}: ${file}`);
      this.picture(item, hit);
      this.labelled(item, hit);
      item.addEventListener("click", (e) => { if (!e.target.closest("button")) this.select(number, { focus: true }); });
      item.querySelector(".picture").addEventListener("click", (e) => this.seek(number, e));
      item.querySelector(".play").addEventListener("click", () => { this.select(number); this.toggle(number); });
      item.querySelector(".like").addEventListener("click", () => this.like(hit));
      this.list.append(item);
    }
    if (this.now < 0 && this.hits.length) this.select(0, { scroll: false, quiet: true });
    if (!this.hits.length) this.selected(undefined);
  }

  picture(item, hit) {
    const img = item.querySelector("img"), path = `picture/${hit.row}.${this.dark.matches ? "dark" : "light"}.png`;
    img.onerror = async () => this.fault(item, await reason(path));
    img.onload = () => item.querySelector(".picture").classList.remove("gone");
    img.dataset.src = path;
    this.pictures.add(img);
  }
  fault(item, said) {
    item.querySelector(".picture").classList.add("gone");
    const error = item.querySelector(".error");
    error.hidden = !said;
    error.textContent = said;
  }

  labelled(item, hit) {
    const label = item.querySelector(".label"), guess = item.querySelector(".guess");
    label.hidden = !hit.label;
    label.textContent = hit.label ?? "";
    guess.replaceChildren();
    if (hit.guess && !hit.label) {
      const name = document.createElement("i");
      name.textContent = hit.guess.label;
      guess.append("likely ", name, ` ${Math.round(100 * hit.guess.share)} %`);
      guess.title = "what the classifier says that has learned from your labels";
    }
  }
  relabel(labels) {
    this.hits.forEach((hit, i) => {
      const label = labels[hit.row] ?? null;
      if (label !== hit.label) { hit.label = label; this.labelled(this.items[i], hit); }
    });
  }

  select(number, { focus = false, scroll = true, quiet = false } = {}) {
    if (number < 0 || number >= this.hits.length) return;
    if (this.now !== number) {
      this.items[this.now]?.classList.remove("now");
      this.items[this.now]?.removeAttribute("aria-current");
      if (this.items[this.now]) this.items[this.now].tabIndex = -1;
    }
    this.now = number;
    const item = this.items[number];
    item.classList.add("now");
    item.setAttribute("aria-current", "true");
    item.tabIndex = 0;
    if (focus) item.focus({ preventScroll: true });
    if (scroll) item.scrollIntoView({ block: "nearest" });
    this.selected(this.hits[number]);
    if (this.auto && !quiet) this.play(number);
  }

  async play(number) {
    if (this.playing !== number) {
      this.stop();
      this.playing = number;
      this.audio.src = `sound/${this.hits[number].row}.wav`;
    }
    try { await this.audio.play(); } catch (error) { if (error.name === "NotAllowedError") this.fault(this.items[number], "The browser wants a click before it plays."); }
  }
  toggle(number = this.now) {
    if (number < 0) return;
    if (this.playing === number && !this.audio.paused) this.audio.pause(); else this.play(number);
  }
  stop() {
    this.audio.pause();
    const item = this.items[this.playing];
    if (item) { item.querySelector(".head").hidden = true; item.querySelector(".play").textContent = "Play"; }
    this.playing = -1;
  }
  tell() {
    const item = this.items[this.playing];
    if (!item) return;
    item.querySelector(".play").textContent = this.audio.paused ? "Play" : "Pause";
    const head = item.querySelector(".head");
    const step = () => {
      if (this.items[this.playing] !== item) return;
      const share = this.audio.duration ? this.audio.currentTime / this.audio.duration : 0;
      head.hidden = false;
      head.style.left = `${100 * (EDGES[0] + share * (EDGES[1] - EDGES[0]))}%`;
      if (!this.audio.paused) requestAnimationFrame(step);
    };
    step();
  }
  async failed() {
    const item = this.items[this.playing];
    if (item) this.fault(item, await reason(`sound/${this.hits[this.playing].row}.wav`));
  }
  // A click into the picture plays from there.
  async seek(number, e) {
    const box = e.currentTarget.getBoundingClientRect();
    const share = ((e.clientX - box.left) / box.width - EDGES[0]) / (EDGES[1] - EDGES[0]);
    if (share < 0 || share > 1) return;
    await this.play(number);
    if (this.audio.duration) this.audio.currentTime = share * this.audio.duration;
  }
}
