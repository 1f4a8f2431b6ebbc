/** What of a JSON Schema this form understands; the rest is for the server to judge. */
export interface Property {
  type?: unknown;
  title?: unknown;
  description?: unknown;
  default?: unknown;
  enum?: unknown;
  pattern?: unknown;
  minLength?: unknown;
  maxLength?: unknown;
  minimum?: unknown;
  maximum?: unknown;
  exclusiveMinimum?: unknown;
  exclusiveMaximum?: unknown;
  minItems?: unknown;
  maxItems?: unknown;
  items?: unknown;
}

/** How a parameter is asked for. A list is words with spaces between them; what is none of these is JSON. */
export type Shape = 'choice' | 'flag' | 'integer' | 'number' | 'text' | 'list' | 'json';

export interface Field {
  name: string;
  shape: Shape;
  required: boolean;
  /** The text that the field begins with: the default, or empty. */
  initial: string;
  /** For people: what it means, and its bounds. */
  hint: string;
  schema: Property;
}

/** A kind that runners announce. */
export interface KindForm {
  kind: string;
  title: string;
  /** Undefined where no schema says what the parameters are: then they are one JSON object. */
  fields: Field[] | undefined;
  /** All runners announce this schema, so that what it refuses is refused. */
  strict: boolean;
}

/** Reads the answer of GET /v1/kinds; what is not of its shape is passed over. */
export function readKinds(doc: unknown): KindForm[] {
  const kinds = object(doc)?.kinds;
  return (Array.isArray(kinds) ? kinds : []).flatMap((k): KindForm[] => {
    const { kind, schemas, schema } = object(k) ?? {};
    if (typeof kind !== 'string') return [];
    const s = object(schema);
    return [{ kind, title: words(s?.title) || words(s?.description), fields: s && readFields(s), strict: schemas === 1 }];
  });
}

function readFields(schema: Record<string, unknown>): Field[] | undefined {
  const properties = object(schema.properties);
  if (!properties) return schema.additionalProperties === false ? [] : undefined;
  const required = Array.isArray(schema.required) ? schema.required : [];
  const fields = Object.entries(properties).map(([name, p]): Field => {
    const own: Property = object(p) ?? {};
    const shape = shapeOf(own);
    const initial = own.default === undefined ? '' : toText(shape, own.default);
    return { name, shape, schema: own, required: required.includes(name), initial, hint: hintOf(own, shape) };
  });
  return [...fields.filter((f) => f.required), ...fields.filter((f) => !f.required)];
}

function shapeOf(p: Property): Shape {
  if (Array.isArray(p.enum) && p.enum.length) return 'choice';
  const item: Property = object(p.items) ?? {};
  switch (p.type) {
    case 'boolean':
      return 'flag';
    case 'integer':
    case 'number':
      return p.type;
    case 'string':
      return 'text';
    case 'array':
      return item.type === 'string' && !spaced(p.default) ? 'list' : 'json';
    default:
      return 'json';
  }
}

/** A value as its field has it. The texts of a choice are JSON, because a choice may be of any type. */
export function toText(shape: Shape, value: unknown): string {
  if (shape === 'text' && typeof value === 'string') return value;
  if (shape === 'list' && Array.isArray(value)) return value.join(' ');
  return JSON.stringify(value);
}

function hintOf(p: Property, shape: Shape): string {
  const parts = [words(p.description) || words(p.title)];
  const { minimum: min, maximum: max } = p;
  if (isNumber(min) && isNumber(max)) parts.push(`${min} to ${max}`);
  else if (isNumber(min)) parts.push(`at least ${min}`);
  else if (isNumber(max)) parts.push(`at most ${max}`);
  if (shape === 'list') parts.push('separated by spaces');
  if (shape === 'json') parts.push('JSON');
  return parts.filter(Boolean).join('; ');
}

/** The parameters of a form, and what is wrong with them by the names of their fields. */
export interface Reading {
  params: Record<string, unknown>;
  faults: Record<string, string>;
}

/**
 * Reads the texts of a form's fields. An empty one is left out: then the default holds, and if it is required and has
 * none that is its fault. Other faults are told only if the form is strict, but for texts that are no value at all.
 */
export function readParams({ fields = [], strict }: KindForm, texts: Record<string, string>): Reading {
  const params: Record<string, unknown> = {};
  const faults: Record<string, string> = {};
  for (const f of fields) {
    const text = (texts[f.name] ?? f.initial).trim();
    if (f.shape === 'flag' && (f.required || f.initial === 'true')) params[f.name] = text === 'true';
    else if (!text) {
      if (f.required && f.schema.default === undefined && strict) faults[f.name] = 'is missing';
      continue;
    } else {
      const value = fromText(f.shape, text);
      if (value === undefined) {
        faults[f.name] = f.shape === 'json' ? 'is no JSON' : `must be ${f.shape === 'integer' ? 'a whole number' : 'a number'}, as 12`;
        continue;
      }
      params[f.name] = value;
    }
    const fault = strict && faultOf(params[f.name], f.schema);
    if (fault) faults[f.name] = fault;
  }
  return { params, faults };
}

/** Undefined if the text is none of that shape. */
function fromText(shape: Shape, text: string): unknown {
  if (shape === 'text') return text;
  if (shape === 'list') return text.split(/\s+/);
  try {
    const value: unknown = JSON.parse(text);
    const numeric = shape === 'integer' || shape === 'number';
    return numeric && typeof value !== 'number' ? undefined : value;
  } catch {
    return undefined;
  }
}

/** What is wrong with a value, in the words of pkg/schema where it has some; empty if nothing is that this form understands. */
function faultOf(value: unknown, p: Property): string {
  if (Array.isArray(p.enum) && !p.enum.some((x) => JSON.stringify(x) === JSON.stringify(value))) return `must be one of ${p.enum.map((x) => JSON.stringify(x)).join(', ')}`;
  if (typeof value === 'number') return numberFault(value, p);
  if (typeof value === 'string') {
    const n = [...value].length;
    if (isNumber(p.maxLength) && n > p.maxLength) return `has ${n} characters and may have ${p.maxLength}`;
    if (isNumber(p.minLength) && n < p.minLength) return `has ${n} characters and must have ${p.minLength}`;
    return matches(value, p.pattern) ? '' : `does not match ${p.pattern}`;
  }
  if (Array.isArray(value)) {
    if (isNumber(p.maxItems) && value.length > p.maxItems) return `has ${value.length} items and may have ${p.maxItems}`;
    if (isNumber(p.minItems) && value.length < p.minItems) return `has ${value.length} items and must have ${p.minItems}`;
    const item: Property = object(p.items) ?? {};
    for (const [i, x] of value.entries()) {
      const fault = faultOf(x, item);
      if (fault) return `[${i}] ${fault}`;
    }
  }
  return '';
}

function numberFault(n: number, p: Property): string {
  if (p.type === 'integer' && !Number.isInteger(n)) return 'must be a whole number, as 12';
  if (isNumber(p.minimum) && n < p.minimum) return `must be at least ${p.minimum}`;
  if (isNumber(p.maximum) && n > p.maximum) return `must be at most ${p.maximum}`;
  if (isNumber(p.exclusiveMinimum) && n <= p.exclusiveMinimum) return `must be more than ${p.exclusiveMinimum}`;
  if (isNumber(p.exclusiveMaximum) && n >= p.exclusiveMaximum) return `must be less than ${p.exclusiveMaximum}`;
  return '';
}

/** Patterns are Go's; one that is none of JavaScript's is left to the server. */
function matches(text: string, pattern: unknown): boolean {
  if (typeof pattern !== 'string') return true;
  try {
    return new RegExp(pattern, 'u').test(text);
  } catch {
    return true;
  }
}

/** The fields that a server's refusal names: "repo is missing; env.PATH must be …". */
export function namedIn(refusal: string, fields: readonly Field[] = []): string[] {
  const parts = refusal.split('; ');
  return fields.map((f) => f.name).filter((name) => parts.some((p) => p.startsWith(name) && /^([ [.:]|$)/.test(p.slice(name.length))));
}

/** The parameters of a free form: one JSON object. */
export function fromJSON(text: string): object {
  let value: unknown;
  try {
    value = JSON.parse(text.trim() || '{}');
  } catch (e) {
    throw new Error(`not JSON: ${(e as Error).message}`);
  }
  const found = object(value);
  if (!found) throw new Error('parameters must be a JSON object: { … }');
  return found;
}

function object(v: unknown): Record<string, unknown> | undefined {
  return typeof v === 'object' && v !== null && !Array.isArray(v) ? (v as Record<string, unknown>) : undefined;
}

function isNumber(v: unknown): v is number {
  return typeof v === 'number';
}

function spaced(list: unknown): boolean {
  return Array.isArray(list) && list.some((x) => String(x).includes(' '));
}

function words(v: unknown): string {
  return typeof v === 'string' ? v : '';
}
