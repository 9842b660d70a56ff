// A long list of which only the visible part exists: elements, and data.

import { h, oncePerFrame } from "./dom.js";

const OVERSCAN = 8;
const PAGE = 50;
/** Items that are kept, around what is visible. */
const KEPT_MAX = 600;
/** Browsers stop to lay out elements that are higher than about 33 million pixels. */
const HEIGHT_MAX = 16_000_000;

/**
 * Rows of one height. `fetch(from, count)` answers `{total, items}`; `render(item, index)` makes a row,
 * with null for what is still to come.
 */
export class VirtualList {
  #items = new Map();
  /** The rows that exist, by their place, each with the item that it shows. */
  #drawn = new Map();
  #wanted = new Set();
  #generation = 0;
  #total = 0;
  #spacer = h("div", { class: "spacer" });
  #rows = h("div", { class: "rows" });
  #draw = oncePerFrame(() => this.#paint());

  constructor({ scroller, fetch, render, rowHeight, signal, rowsRole = "rowgroup", onTotal = () => {}, onError = () => {} }) {
    Object.assign(this, { scroller, fetch, render, rowHeight, signal, onTotal, onError });
    this.#rows.setAttribute("role", rowsRole);
    scroller.append(this.#spacer, this.#rows);
    scroller.addEventListener("scroll", this.#draw, { passive: true, signal });
    new ResizeObserver(this.#draw).observe(scroller);
  }

  get total() {
    return this.#total;
  }

  /** The items that are here. */
  items() {
    return this.#items.values();
  }

  get atEnd() {
    const { scrollTop, clientHeight, scrollHeight } = this.scroller;
    return scrollTop + clientHeight >= scrollHeight - 2 * this.rowHeight();
  }

  /** Reads what is visible anew; the rest when it is looked at. */
  async refresh() {
    this.#generation += 1;
    this.#wanted.clear();
    const { first } = this.#window();
    const from = Math.floor(first / PAGE) * PAGE;
    await this.#load(from, this.#generation, true);
  }

  /** Says that there are more by now. */
  grow(total) {
    if (total <= this.#total) return;
    const partly = Math.floor(this.#total / PAGE) * PAGE;
    this.#wanted.delete(partly);
    this.#setTotal(total);
    this.#draw();
  }

  /** Draws rows anew, of the data that is here: those whose item is so. */
  redraw(isSo = () => true) {
    for (const [index, { item }] of this.#drawn) if (item && isSo(item)) this.#drawn.get(index).item = undefined;
    this.#draw();
  }

  /** Changes an item in place, if it is here. */
  update(isIt, change) {
    for (const [index, item] of this.#items) {
      if (isIt(item)) {
        this.#items.set(index, change(item));
        this.#draw();
        return true;
      }
    }
    return false;
  }

  toEnd() {
    // First as high as it is to be.
    this.#paint();
    this.scroller.scrollTop = this.scroller.scrollHeight;
    this.#draw();
  }

  /** Brings a row into view. */
  reveal(index) {
    const top = (index * this.rowHeight()) / this.#scale();
    const { scrollTop, clientHeight } = this.scroller;
    if (top < scrollTop) this.scroller.scrollTop = top;
    if (top + this.rowHeight() > scrollTop + clientHeight) this.scroller.scrollTop = top + this.rowHeight() - clientHeight;
    this.#paint();
  }

  row(index) {
    return this.#drawn.get(index)?.row;
  }

  #scale() {
    return Math.max(1, (this.#total * this.rowHeight()) / HEIGHT_MAX);
  }

  #window() {
    const height = this.rowHeight();
    const top = this.scroller.scrollTop * this.#scale();
    const first = Math.max(0, Math.floor(top / height) - OVERSCAN);
    const count = Math.ceil(this.scroller.clientHeight / height) + 2 * OVERSCAN;
    return { first, last: Math.min(this.#total, first + count), top, height };
  }

  #setTotal(total) {
    this.#total = total;
    this.onTotal(total);
  }

  async #load(from, generation, isAnew = false) {
    if (this.#wanted.has(from)) return;
    this.#wanted.add(from);
    try {
      const { total, items } = await this.fetch(from, PAGE);
      if (generation !== this.#generation || this.signal.aborted) return;
      if (isAnew) this.#items.clear();
      items.forEach((item, at) => this.#items.set(from + at, item));
      // Fewer than asked for: long lines. The rest is asked for when it is looked at.
      if (items.length < PAGE && from + items.length < total) this.#wanted.delete(from);
      if (total !== this.#total) this.#setTotal(total);
      this.#draw();
    } catch (error) {
      this.#wanted.delete(from);
      if (!this.signal.aborted) this.onError(error);
    }
  }

  #paint() {
    if (this.signal.aborted) return;
    const { first, last, top, height } = this.#window();
    this.#spacer.style.setProperty("height", `${Math.min(this.#total * height, HEIGHT_MAX)}px`);
    const shift = this.scroller.scrollTop - top + first * height;
    this.#rows.style.setProperty("transform", `translateY(${shift}px)`);
    for (const index of this.#drawn.keys()) if (index < first || index >= last) this.#drop(index);
    let before = this.#rows.firstChild;
    for (let index = first; index < last; index += 1) {
      const item = this.#items.get(index) ?? null;
      const drawn = this.#drawn.get(index);
      // A row that is as it was keeps its place: with it stay focus and selected text.
      if (drawn?.item === item) {
        before = drawn.row.nextSibling;
        continue;
      }
      const row = this.render(item, index);
      row.dataset.index = index;
      const hadFocus = drawn?.row.contains(document.activeElement);
      if (drawn) drawn.row.replaceWith(row);
      else this.#rows.insertBefore(row, before);
      if (hadFocus) (row.querySelector("a, button") ?? row).focus({ preventScroll: true });
      before = row.nextSibling;
      this.#drawn.set(index, { item, row });
    }
    this.#loadMissing(first, last);
    this.#forget(first, last);
  }

  #drop(index) {
    this.#drawn.get(index)?.row.remove();
    this.#drawn.delete(index);
  }

  #loadMissing(first, last) {
    for (let index = first; index < last; index += 1) {
      if (this.#items.has(index)) continue;
      const page = Math.floor(index / PAGE) * PAGE;
      // The rest of a page that came short begins where that ended.
      const from = this.#items.has(page) ? index : page;
      this.#load(from, this.#generation);
      index = page + PAGE - 1;
    }
  }

  #forget(first, last) {
    if (this.#items.size <= KEPT_MAX) return;
    for (const index of this.#items.keys()) {
      if (index < first - KEPT_MAX / 3 || index > last + KEPT_MAX / 3) {
        this.#items.delete(index);
        this.#wanted.delete(Math.floor(index / PAGE) * PAGE);
        this.#wanted.delete(index);
      }
    }
  }
}
