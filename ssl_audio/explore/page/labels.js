// Labels: classes on keys 1 to 9, saved one after the other, undone, and read again when another page adds some.
import { get, post } from "./api.js";

const EVERY = 2000;  // ms between looks for what other pages have written

export class Labels {
  // changed(): labels or classes are other ones. failed(message): something could not be saved.
  constructor({ changed, failed }) {
    Object.assign(this, { changed, failed, of: {}, classes: [], added: [], version: null, done: [], others: 0 });
    this.queue = Promise.resolve();
    setInterval(() => { if (!document.hidden) this.refresh(); }, EVERY);
  }

  counts() {
    const found = {};
    for (const label of Object.values(this.of)) found[label] = (found[label] ?? 0) + 1;
    return found;
  }

  take(answer) {
    if (!answer.labels) return;
    this.of = answer.labels;
    this.version = answer.version;
    this.others = answer.others;
    // A class keeps its key, also when its last label is taken away.
    for (const name of answer.classes) if (!this.classes.includes(name)) this.classes.push(name);
    this.changed();
  }
  async refresh() {
    try { this.take(await get(`labels?version=${this.version ?? ""}`)); this.lost = false; } catch (error) {
      if (!this.lost) this.failed(error.message);
      this.lost = true;
    }
  }

  addClass(name) {
    name = name.trim().replace(/\s+/g, " ");
    if (name && !this.classes.includes(name)) { this.classes.push(name); this.changed(); }
    return name;
  }
  set(row, label, undoing = false) {
    const before = this.of[row] ?? null;
    if (before === label) return this.queue;
    if (!undoing) this.done.push({ row, before });
    this.of = { ...this.of };
    if (label === null) delete this.of[row]; else this.of[row] = label;
    this.changed();
    this.queue = this.queue.then(async () => {
      try { this.take(await post("label", { row, label })); } catch (error) {
        this.failed(`Not saved: ${error.message}`);
        this.version = null;
        await this.refresh();
      }
    });
    return this.queue;
  }
  undo() {
    const last = this.done.pop();
    if (last) this.set(last.row, last.before, true);
    return last;
  }
}
