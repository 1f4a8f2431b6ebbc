/** A piece of one line with one look. fg and bg are '#rrggbb' where no class says the colour. */
export interface Run {
  text: string;
  classes: string[];
  fg?: string | undefined;
  bg?: string | undefined;
}

/** 0-15: a palette index, shown by class; '#rrggbb': as it is; undefined: the default. */
type Colour = number | string | undefined;

// One escape sequence of ECMA-48 in each branch: CSI; strings (OSC, DCS, SOS, PM, APC) up to their end or
// the line's; any other escape; a control character alone (tab is text).
const sequence =
  /\x1b\[([0-?]*)[ -/]*([@-~]?)|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]?|[\x00-\x08\x0a-\x1f\x7f-\x9f]/g;

/**
 * Painter turns lines of terminal output into runs of plain text and looks, as SGR sequences ask
 * (ECMA-48 8.3.117, 256 and RGB colours). The look is carried on from line to line, as a terminal does.
 * Of text that a carriage return overwrites only the last is kept. Every other sequence is dropped: what
 * comes out is text, for text nodes, and can do nothing.
 */
export class Painter {
  #fg: Colour;
  #bg: Colour;
  #on = new Set<string>();

  paint(line: string): Run[] {
    let runs: Run[] = [];
    let from = 0;
    for (const m of line.matchAll(sequence)) {
      this.#put(runs, line.slice(from, m.index));
      from = m.index + m[0].length;
      if (m[2] === 'm') this.#select((m[1] ?? '').split(/[;:]/).map(Number));
      else if (m[0] === '\r' && from < line.length) runs = [];
    }
    this.#put(runs, line.slice(from));
    return runs;
  }

  #put(runs: Run[], text: string): void {
    if (!text) return;
    const inverse = this.#on.has('inverse');
    const [fg, bg] = inverse ? [this.#bg, this.#fg] : [this.#fg, this.#bg];
    const run: Run = { text, classes: [...this.#on] };
    if (typeof fg === 'number') run.classes.push('fg' + fg);
    else run.fg = fg;
    if (typeof bg === 'number') run.classes.push('bg' + bg);
    else run.bg = bg;
    runs.push(run);
  }

  #select(codes: number[]): void {
    for (let i = 0; i < codes.length; i++) {
      const c = codes[i]!;
      if (c === 0) this.#reset();
      else if (looks[c]) this.#on.add(looks[c]);
      else if (ends[c]) for (const look of ends[c]) this.#on.delete(look);
      else if (c >= 30 && c <= 37) this.#fg = c - 30;
      else if (c >= 90 && c <= 97) this.#fg = c - 82;
      else if (c === 39) this.#fg = undefined;
      else if (c >= 40 && c <= 47) this.#bg = c - 40;
      else if (c >= 100 && c <= 107) this.#bg = c - 92;
      else if (c === 49) this.#bg = undefined;
      else if (c === 38 || c === 48) {
        const [colour, used] = extended(codes.slice(i + 1));
        if (c === 38) this.#fg = colour;
        else this.#bg = colour;
        i += used;
      }
    }
  }

  #reset(): void {
    this.#on.clear();
    this.#fg = this.#bg = undefined;
  }
}

const looks: Record<number, string> = { 1: 'bold', 2: 'faint', 3: 'italic', 4: 'underline', 7: 'inverse', 9: 'strike' };
const ends: Record<number, string[]> = { 22: ['bold', 'faint'], 23: ['italic'], 24: ['underline'], 27: ['inverse'], 29: ['strike'] };

/** Reads what follows 38 or 48: 5;index or 2;r;g;b. Returns the colour and how many codes it took. */
function extended([mode, a = 0, b = 0, c = 0]: number[]): [Colour, number] {
  if (mode === 5) return [indexed(a), 2];
  if (mode === 2) return [hex(a, b, c), 4];
  return [undefined, 1];
}

function indexed(i: number): Colour {
  if (i < 16) return i;
  if (i > 231) return hex(i * 10 - 2312, i * 10 - 2312, i * 10 - 2312);
  const level = (n: number) => (n % 6 ? 55 + 40 * (n % 6) : 0);
  return hex(level(Math.floor((i - 16) / 36)), level(Math.floor((i - 16) / 6)), level(i - 16));
}

function hex(...rgb: number[]): string {
  return '#' + rgb.map((v) => (v & 255).toString(16).padStart(2, '0')).join('');
}
