import type { Block, LogLines } from './log.ts';
import { Painter } from './sgr.ts';
import type { Run } from './sgr.ts';

/** Lines and characters of one chunk, the most that the browser lays out or skips at a time. */
export const chunkLines = 250;
export const chunkChars = 64 << 10;
/** The height of a line in main.css. */
const lineHeightPx = 18;
/** Characters of one line that are shown; pkg/taskrunner breaks lines long before, other publishers may not. */
export const lineChars = 16 << 10;
/** Lines that are built in one frame; the rest follows in the next ones, so that the page stays at hand. */
export const frameLines = 2000;

/**
 * LogView shows one LogLines in a scrolling element. Every line is in the document, so that the browser's
 * own find and copy work; chunks out of sight cost no layout (content-visibility). Line numbers are drawn
 * by main.css from data-n, so that they are not copied.
 *
 * While the end is in sight, new lines scroll into it; scrolling up stops that, and scrolling to the end
 * starts it again.
 */
export class LogView {
  #scroller: HTMLElement;
  #following: (on: boolean) => void;
  #log: LogLines | undefined;
  #painter = new Painter();
  #shown = 0; // blocks of #log that are in the document or gone, counted from its first
  #next = 1; // the number of the line that would be next without a gap
  #noted = false; // a note stands where that line would
  #chunk: HTMLElement | undefined;
  #chunkChars = 0;
  #begins: HTMLElement[] = []; // by block of #log that is in the document: the chunk in which it begins
  #follow = true;
  #top = 0;
  #scheduled = false;

  /** following is told when the view begins or ceases to follow the end. */
  constructor(scroller: HTMLElement, following: (on: boolean) => void) {
    this.#scroller = scroller;
    this.#following = following;
    scroller.addEventListener('scroll', () => this.#scrolled(), { passive: true });
    new ResizeObserver(() => this.#follow && this.#toEnd()).observe(scroller);
  }

  get follow(): boolean {
    return this.#follow;
  }

  set follow(on: boolean) {
    if (on !== this.#follow) this.#following((this.#follow = on));
    if (on) this.#toEnd();
  }

  /** Brings the document up to log, over several frames if it is far behind. Another log starts afresh. */
  show(log: LogLines): void {
    if (log !== this.#log) this.#clear(log);
    this.#dropOld(log);
    this.#shown = Math.max(this.#shown, log.dropped);
    const before = this.#shown;
    let lines = 0;
    for (const b of log.blocks.slice(this.#shown - log.dropped)) {
      if (lines >= frameLines) {
        this.#again();
        break;
      }
      this.#append(b);
      this.#shown++;
      lines += b.lines.length;
    }
    if (this.#shown > before && this.#follow) this.#toEnd();
  }

  #again(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    requestAnimationFrame(() => {
      this.#scheduled = false;
      if (this.#scroller.isConnected) this.show(this.#log!);
    });
  }

  #clear(log: LogLines): void {
    this.#log = log;
    this.#painter = new Painter();
    this.#shown = log.dropped;
    this.#next = 1;
    this.#noted = false;
    this.#chunk = undefined;
    this.#begins = [];
    this.#scroller.replaceChildren();
    this.follow = true;
  }

  /** Takes the chunks out that hold only lines of dropped blocks. */
  #dropOld(log: LogLines): void {
    const old = this.#begins.length - Math.max(0, this.#shown - log.dropped);
    if (old <= 0) return;
    this.#begins.splice(0, old);
    const keep = this.#begins[0];
    while (this.#scroller.firstElementChild && this.#scroller.firstElementChild !== keep) {
      this.#scroller.firstElementChild.remove();
    }
    if (!keep) {
      this.#chunk = undefined;
      this.#next = log.blocks[0]!.first;
    }
    const first = Number(keep?.querySelector<HTMLElement>('.line')?.dataset.n ?? this.#next);
    if (first > 1) this.#scroller.prepend(this.#gap(1, first - 1, 'not shown any more'));
  }

  #append(b: Block): void {
    if (b.first > this.#next) this.#into(this.#gap(this.#next, b.first - 1, this.#noted ? 'were among them' : 'not kept over the reload'), 0);
    this.#noted = !!b.note;
    if (b.note) {
      this.#into(this.#note('div', b.note), 0);
      this.#begins.push(this.#chunk!);
    }
    b.lines.forEach((text, i) => {
      const line = document.createElement('div');
      line.className = 'line';
      line.dataset.n = String(b.first + i);
      line.append(...this.#painter.paint(text.slice(0, lineChars)).map(paint));
      const more = text.length - lineChars;
      if (more > 0) line.append(this.#note('span', `… ${more.toLocaleString()} more characters`));
      this.#into(line, Math.min(text.length, lineChars));
      if (i === 0) this.#begins.push(this.#chunk!);
    });
    this.#next = b.first + b.lines.length;
  }

  #into(line: HTMLElement, chars: number): void {
    if (!this.#chunk || this.#chunk.childElementCount >= chunkLines || this.#chunkChars >= chunkChars) {
      if (this.#chunk) {
        this.#chunk.style.setProperty('contain-intrinsic-block-size', `auto ${this.#chunk.childElementCount * lineHeightPx}px`);
        this.#chunk.classList.add('full');
      }
      this.#chunkChars = 0;
      this.#chunk = document.createElement('div');
      this.#chunk.className = 'chunk';
      this.#scroller.append(this.#chunk);
    }
    this.#chunk.append(line);
    this.#chunkChars += chars;
  }

  #gap(first: number, last: number, why: string): HTMLElement {
    return this.#note('div', `${first === last ? `line ${first}` : `lines ${first}–${last}`} ${why}`);
  }

  #note(tag: 'div' | 'span', text: string): HTMLElement {
    const note = document.createElement(tag);
    note.className = 'gap';
    note.textContent = text;
    return note;
  }

  #toEnd(): void {
    this.#scroller.scrollTop = this.#scroller.scrollHeight;
    this.#top = this.#scroller.scrollTop;
  }

  #scrolled(): void {
    const { scrollTop, clientHeight, scrollHeight } = this.#scroller;
    const up = scrollTop < this.#top - 1;
    const atEnd = scrollTop + clientHeight >= scrollHeight - 4;
    this.#top = scrollTop;
    if (atEnd || up) {
      if (atEnd !== this.#follow) this.#following((this.#follow = atEnd));
    }
  }
}

function paint(r: Run): Node {
  const text = document.createTextNode(r.text);
  if (!r.classes.length && !r.fg && !r.bg) return text;
  const span = document.createElement('span');
  span.className = r.classes.join(' ');
  if (r.fg) span.style.color = r.fg;
  if (r.bg) span.style.backgroundColor = r.bg;
  span.append(text);
  return span;
}
