/** What one task's log keeps for the eye; beyond either bound the oldest lines go. */
export const maxLines = 200_000;
export const maxChars = 32 << 20;

/** Consecutive lines as they came in one event; or none, and a note that stands between the lines. */
export interface Block {
  first: number;
  lines: readonly string[];
  chars: number;
  note?: string;
}

/**
 * LogLines holds the lines of one task by their numbers. Lines come in order; what was seen is passed
 * over, and what is missing shows as a gap between two blocks.
 */
export class LogLines {
  readonly blocks: Block[] = [];
  /** Blocks that went over the bounds since the beginning: blocks[0] is the dropped-th of all. */
  dropped = 0;
  /** The number of the last line; 0 if there is none. */
  last = 0;
  #lines = 0;
  #chars = 0;

  /** Puts a note behind the lines that came so far. */
  remark(note: string): void {
    this.blocks.push({ first: this.last + 1, lines: [], chars: 0, note });
  }

  append(first: number, lines: readonly string[]): void {
    const fresh = lines.slice(Math.max(0, this.last + 1 - first));
    if (!fresh.length) return;
    const block = { first: first + lines.length - fresh.length, lines: fresh, chars: 0 };
    for (const l of fresh) block.chars += l.length;
    this.blocks.push(block);
    this.last = block.first + fresh.length - 1;
    this.#lines += fresh.length;
    this.#chars += block.chars;
    while (this.blocks.length > 1 && (this.#lines > maxLines || this.#chars > maxChars)) {
      const old = this.blocks.shift()!;
      this.dropped++;
      this.#lines -= old.lines.length;
      this.#chars -= old.chars;
    }
  }
}
