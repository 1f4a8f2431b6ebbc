/** What the form offers for a kind: its parameters with their default values. */
export interface KindForm {
  kind: string;
  params: Record<string, unknown>;
}

export const builtIn: KindForm[] = [
  { kind: 'go-build', params: { repo: '', ref: 'HEAD', packages: ['./...'] } },
  { kind: 'make', params: { repo: '', ref: 'HEAD', target: '' } },
  { kind: 'countdown', params: { steps: 4, interval_ms: 250, lines: 80 } },
];

/** Reads /v1/console.json; whatever is not of its shape is passed over, and nothing left means builtIn. */
export function readKinds(doc: unknown): KindForm[] {
  const kinds = (doc as { kinds?: unknown } | null)?.kinds;
  const good = (Array.isArray(kinds) ? kinds : []).filter(
    (k): k is KindForm => typeof k?.kind === 'string' && typeof k.params === 'object' && k.params !== null && !Array.isArray(k.params),
  );
  return good.length ? good : builtIn;
}

/** A default value as the text of its field: lists by spaces, the rest that is no text as JSON. */
export function toField(value: unknown): string {
  if (typeof value === 'string') return value;
  if (isWords(value)) return value.join(' ');
  return JSON.stringify(value);
}

/** The parameters of a form by their fields' texts. An empty field is left out, so that the kind's own default holds. */
export function fromFields(form: KindForm, fields: Record<string, string>): object {
  const params: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(form.params)) {
    const text = (fields[name] ?? '').trim();
    if (text) params[name] = fromField(name, text, value);
  }
  return params;
}

function fromField(name: string, text: string, like: unknown): unknown {
  if (typeof like === 'string') return text;
  if (isWords(like)) return text.split(/\s+/);
  try {
    return JSON.parse(text);
  } catch {
    throw new Error(`${name} must be ${typeof like === 'number' ? 'a number' : 'JSON'}, not ${text}`);
  }
}

/** The parameters of the free form: one JSON object. */
export function fromJSON(text: string): object {
  let value: unknown;
  try {
    value = JSON.parse(text.trim() || '{}');
  } catch (e) {
    throw new Error(`not JSON: ${(e as Error).message}`);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new Error('parameters must be a JSON object: { … }');
  return value;
}

function isWords(v: unknown): v is string[] {
  return Array.isArray(v) && v.every((x) => typeof x === 'string');
}
