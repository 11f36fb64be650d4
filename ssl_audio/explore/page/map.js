// The map of all rows on a canvas: every point is written into the picture's memory, which takes some
// milliseconds for 100,000 of them and needs no graphics card.
export const COLOURS = ["#3d85c6", "#cf7716", "#2d9d5c", "#d8485a", "#8c65d3", "#12a0ad", "#c65aa8", "#8f8f14",
  "#a1694a", "#6b7ff0", "#5f9e2f", "#e0637f"];
const REST = { light: "#9aa3ad", dark: "#66707c" };

const rgba = (hex) => {
  const n = parseInt(hex.slice(1), 16);
  return (255 << 24) | ((n & 255) << 16) | (n & 0xff00) | (n >> 16);  // as little-endian memory has it
};

export class SoundMap {
  // choose(row): a point was clicked. over(row, x, y): the pointer is at a point; row is -1 when it is at none.
  constructor(canvas, { choose, over }) {
    Object.assign(this, { canvas, choose, over, points: new Float32Array(), of: null, colours: [], only: null });
    this.context = canvas.getContext("2d", { alpha: false });
    this.centre = [0, 0]; this.zoom = 1; this.hits = []; this.now = -1; this.pointers = new Map();
    this.dark = matchMedia("(prefers-color-scheme: dark)");
    this.dark.addEventListener("change", () => this.draw());
    new ResizeObserver(() => this.draw()).observe(canvas);
    canvas.addEventListener("wheel", (e) => { e.preventDefault(); this.zoomBy(Math.exp(-e.deltaY * 0.0015), ...this.at(e)); }, { passive: false });
    canvas.addEventListener("pointerdown", (e) => this.down(e));
    canvas.addEventListener("pointermove", (e) => this.move(e));
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (e) => this.up(e));
    canvas.addEventListener("pointerleave", () => this.over(-1, 0, 0));
    canvas.addEventListener("keydown", (e) => this.key(e));
  }

  setPoints(points) { this.points = points; this.draw(); }
  setGroups(of, order) {
    // order: number of a group → number of its colour; those without one are drawn grey.
    this.of = of; this.order = order; this.draw();
  }
  setOnly(group) { this.only = group; this.draw(); }
  setHits(rows, now) { this.hits = rows; this.now = now; this.draw(); }
  all() { this.centre = [0, 0]; this.zoom = 1; this.draw(); }

  at(e) { const box = this.canvas.getBoundingClientRect(); return [e.clientX - box.left, e.clientY - box.top]; }
  // Pixels (of the page, not of the screen) of one unit of the map.
  get scale() { return Math.min(this.canvas.clientWidth, this.canvas.clientHeight) / 2 * 0.97 * this.zoom; }
  toScreen(x, y) {
    return [(x - this.centre[0]) * this.scale + this.canvas.clientWidth / 2, (y - this.centre[1]) * this.scale + this.canvas.clientHeight / 2];
  }

  zoomBy(factor, x = this.canvas.clientWidth / 2, y = this.canvas.clientHeight / 2) {
    const dx = x - this.canvas.clientWidth / 2, dy = y - this.canvas.clientHeight / 2, before = this.scale;
    this.zoom = Math.min(200, Math.max(0.5, this.zoom * factor));
    this.centre[0] += dx / before - dx / this.scale;
    this.centre[1] += dy / before - dy / this.scale;
    this.draw();
  }
  pan(dx, dy) { this.centre[0] -= dx / this.scale; this.centre[1] -= dy / this.scale; this.draw(); }

  nearest(x, y, most) {
    const p = this.points, s = this.scale, [cx, cy] = this.centre, limit = (most / s) ** 2;
    const px = (x - this.canvas.clientWidth / 2) / s + cx, py = (y - this.canvas.clientHeight / 2) / s + cy;
    let best = -1, least = limit;
    for (let i = 0, k = 0; i < p.length; i += 2, k++) {
      const dx = p[i] - px, dy = p[i + 1] - py, d = dx * dx + dy * dy;
      if (d < least && (this.only === null || this.of?.[k] === this.only)) { least = d; best = k; }
    }
    return best;
  }

  down(e) {
    this.canvas.setPointerCapture(e.pointerId);
    this.pointers.set(e.pointerId, this.at(e));
    this.moved = this.pointers.size > 1;
  }
  move(e) {
    const [x, y] = this.at(e), before = this.pointers.get(e.pointerId);
    if (!before) return this.over(this.nearest(x, y, 12), x, y);
    if (this.pointers.size === 2) {
      const other = [...this.pointers].find(([id]) => id !== e.pointerId)[1];
      const was = Math.hypot(before[0] - other[0], before[1] - other[1]), is = Math.hypot(x - other[0], y - other[1]);
      if (was > 0) this.zoomBy(is / was, (x + other[0]) / 2, (y + other[1]) / 2);
    } else if (this.moved || Math.hypot(x - before[0], y - before[1]) > 4) {
      this.moved = true;
      this.pan(x - before[0], y - before[1]);
      this.over(-1, 0, 0);
    } else return;
    this.pointers.set(e.pointerId, [x, y]);
  }
  up(e) {
    if (!this.pointers.delete(e.pointerId) || this.moved || e.type === "pointercancel") return;
    const row = this.nearest(...this.at(e), e.pointerType === "touch" ? 24 : 12);
    if (row >= 0) this.choose(row);
  }
  key(e) {
    const moves = { ArrowLeft: [40, 0], ArrowRight: [-40, 0], ArrowUp: [0, 40], ArrowDown: [0, -40] };
    if (moves[e.key]) this.pan(...moves[e.key]);
    else if (e.key === "+" || e.key === "=") this.zoomBy(1.3);
    else if (e.key === "-") this.zoomBy(1 / 1.3);
    else if (e.key === "Enter") {
      const row = this.nearest(this.canvas.clientWidth / 2, this.canvas.clientHeight / 2, Infinity);
      if (row >= 0) this.choose(row);
    } else return;
    e.preventDefault(); e.stopPropagation();
  }

  draw() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => { this.waiting = 0; this.paint(); });
  }
  paint() {
    const began = performance.now(), { canvas, context: c, points: p } = this;
    const ratio = Math.min(devicePixelRatio || 1, 2);
    const w = Math.round(canvas.clientWidth * ratio), h = Math.round(canvas.clientHeight * ratio);
    if (!w || !h) return;
    if (canvas.width !== w || canvas.height !== h) { canvas.width = w; canvas.height = h; this.image = c.createImageData(w, h); }
    const theme = this.dark.matches ? "dark" : "light";
    const back = rgba(getComputedStyle(canvas.parentElement).getPropertyValue("--map").trim() || "#ffffff");
    const pixels = new Uint32Array(this.image.data.buffer).fill(back), rest = rgba(REST[theme]), dim = rgba(theme === "dark" ? "#2a3038" : "#e3e6ea");
    const table = COLOURS.map(rgba), s = this.scale * ratio, ox = w / 2 - this.centre[0] * s, oy = h / 2 - this.centre[1] * s;
    const count = p.length / 2, few = count < 3000 ? 3 : count < 20000 ? 2 : 1;
    const r = Math.max(1, Math.round((few + Math.log2(Math.max(1, this.zoom)) / 2) * ratio / 1.4));
    // Points without colour first, so that they cover none of the others.
    for (const coloured of [false, true]) {
      for (let k = 0; k < count; k++) {
        const group = this.of ? this.of[k] : -1, colour = group >= 0 ? this.order[group] : -1;
        const shown = this.only === null || group === this.only;
        if ((shown && colour >= 0) !== coloured) continue;
        const x = Math.round(p[2 * k] * s + ox), y = Math.round(p[2 * k + 1] * s + oy);
        if (x < r || y < r || x >= w - r || y >= h - r) continue;
        const value = !shown ? dim : colour >= 0 ? table[colour] : rest;
        for (let dy = -r; dy <= r; dy++) {
          const half = r < 2 ? r : Math.floor(Math.sqrt(r * r + r - dy * dy)), at = (y + dy) * w + x;
          for (let q = at - half; q <= at + half; q++) pixels[q] = value;
        }
      }
    }
    c.putImageData(this.image, 0, 0);
    c.lineWidth = 1.2 * ratio; c.strokeStyle = theme === "dark" ? "#ffffffa0" : "#000000a0";
    for (const row of this.hits) this.ring(row, 5 * ratio, ratio);
    if (this.now >= 0) { c.lineWidth = 3 * ratio; c.strokeStyle = theme === "dark" ? "#ffffff" : "#000000"; this.ring(this.now, 9 * ratio, ratio); }
    canvas.dataset.ms = (performance.now() - began).toFixed(1);  // read by experiments/explore/scale.py
    if (count && !performance.getEntriesByName("map-painted").length) performance.mark("map-painted");
  }
  ring(row, radius, ratio) {
    if (2 * row >= this.points.length) return;
    const [x, y] = this.toScreen(this.points[2 * row], this.points[2 * row + 1]);
    this.context.beginPath();
    this.context.arc(x * ratio, y * ratio, radius, 0, 2 * Math.PI);
    this.context.stroke();
  }
}
