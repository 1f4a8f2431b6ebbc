import { useEffect, useRef, useState } from 'preact/hooks';
import { fromJSON, namedIn, readParams } from './params.ts';
import type { Field, KindForm } from './params.ts';

interface Props {
  kinds: KindForm[];
  /** Returns the ID of the new task. */
  submit: (kind: string, params: object) => string;
  /** Why the parameters of a task were refused, by the server or its runner; undefined if they were not. */
  refusal: (id: string) => string | undefined;
}

/** The kind that the form begins with where runners offer it: builds are what this page is for. */
const first = 'go-build';

/** The form for a new task: one field for each parameter of a kind that runners announce, or any kind with JSON. */
export function SubmitForm({ kinds, submit, refusal }: Props) {
  const [chosen, choose] = useState('');
  const [texts, setTexts] = useState<Record<string, Record<string, string>>>({});
  const [problem, setProblem] = useState<{ kind: string; text?: string; faults?: Record<string, string> }>();
  const [sent, setSent] = useState<{ kind: string; id: string }>();
  const element = useRef<HTMLFormElement>(null);
  const form = chosen === '*' ? undefined : (kinds.find((k) => k.kind === chosen) ?? kinds.find((k) => k.kind === first) ?? kinds[0]);
  const kind = form?.kind ?? '*';
  const faults = (problem?.kind === kind && problem.faults) || {};
  const refused = sent?.kind === kind ? refusal(sent.id) : undefined;
  const wrong = new Set([...Object.keys(faults), ...(refused ? namedIn(refused, form?.fields) : [])]);
  const told = (problem?.kind === kind && problem.text) || refused;
  useEffect(() => {
    if (problem?.faults) element.current!.querySelector<HTMLElement>('[aria-invalid=true]')?.focus();
  }, [problem]);

  function onSubmit(e: Event) {
    e.preventDefault();
    setSent(undefined);
    setProblem(undefined);
    const free = new FormData(e.currentTarget as HTMLFormElement);
    const text = (name: string) => String(free.get(name) ?? '');
    try {
      const read = form?.fields && readParams(form, texts[kind] ?? {});
      if (read && Object.keys(read.faults).length) return setProblem({ kind, faults: read.faults });
      const params = read?.params ?? fromJSON(text('*json'));
      setSent({ kind, id: submit(form?.kind ?? text('*kind').trim(), params) });
    } catch (err) {
      setProblem({ kind, text: (err as Error).message });
    }
  }

  function change(name: string, value: string) {
    setTexts({ ...texts, [kind]: { ...texts[kind], [name]: value } });
    setSent(undefined);
    if (!faults[name]) return;
    const { [name]: _, ...left } = faults;
    setProblem({ kind, faults: left });
  }

  return (
    <form ref={element} onSubmit={onSubmit} class="submit" data-testid="submit-form" autocomplete="off" noValidate aria-labelledby="submit-title">
      <h2 id="submit-title">New task</h2>
      <div class="field">
        <label for="kind">Kind</label>
        <select id="kind" data-testid="kind" value={kind} onChange={(e) => choose(e.currentTarget.value)} aria-describedby="kind-hint">
          {kinds.map((k) => (
            <option key={k.kind} value={k.kind}>
              {k.kind}
            </option>
          ))}
          <option value="*">any other, as JSON</option>
        </select>
        <span id="kind-hint" class="hint" data-testid="kind-hint">
          {form ? form.title : kinds.length ? '' : 'no task runner has announced a kind yet'}
        </span>
      </div>
      {form?.fields?.map((f, i) => (
        <FieldRow
          key={`${kind} ${f.name}`}
          id={`param-${i}`}
          field={f}
          text={texts[kind]?.[f.name] ?? f.initial}
          fault={faults[f.name]}
          wrong={wrong.has(f.name)}
          change={(value) => change(f.name, value)}
        />
      ))}
      {!form && (
        <div class="field">
          <label for="free-kind">Kind name</label>
          <input id="free-kind" name="*kind" data-testid="free-kind" spellcheck={false} autocapitalize="off" />
        </div>
      )}
      {!form?.fields && (
        <div class="field">
          <label for="free-json">Parameters</label>
          <textarea id="free-json" name="*json" data-testid="free-json" rows={5} spellcheck={false} placeholder="{ }" aria-describedby="free-hint" />
          <span id="free-hint" class="hint">
            one JSON object
          </span>
        </div>
      )}
      <p id="form-error" class="problem" role="alert" data-testid="form-error">
        {told}
      </p>
      <button type="submit" class="primary" data-testid="submit">
        Submit
      </button>
    </form>
  );
}

interface RowProps {
  id: string;
  field: Field;
  text: string;
  /** What this page finds wrong with it; told at the field. */
  fault: string | undefined;
  /** The page or the server finds something wrong with it. */
  wrong: boolean;
  change: (text: string) => void;
}

function FieldRow({ id, field: f, text, fault, wrong, change }: RowProps) {
  const described = [f.hint && `${id}-hint`, fault ? `${id}-fault` : wrong && 'form-error'].filter(Boolean).join(' ');
  const own = {
    id,
    'data-testid': `param-${f.name}`,
    'aria-invalid': wrong,
    'aria-required': f.required,
    ...(described && { 'aria-describedby': described }),
  };
  return (
    <div class={`field ${f.shape}`}>
      <label for={id}>
        {f.name} {f.required && <span class="must">required</span>}
      </label>
      <Control field={f} text={text} change={change} own={own} />
      {f.hint && (
        <span id={`${id}-hint`} class="hint">
          {f.hint}
        </span>
      )}
      {fault && (
        <span id={`${id}-fault`} class="problem" data-testid="fault">
          {f.name} {fault}
        </span>
      )}
    </div>
  );
}

function Control({ field: f, text, change, own }: Pick<RowProps, 'field' | 'text' | 'change'> & { own: object }) {
  switch (f.shape) {
    case 'flag':
      return <input {...own} type="checkbox" checked={text === 'true'} onChange={(e) => change(String(e.currentTarget.checked))} />;
    case 'choice':
      return (
        <select {...own} value={text} onChange={(e) => change(e.currentTarget.value)}>
          {!f.initial && <option value="">{f.required ? 'choose one' : 'none'}</option>}
          {(f.schema.enum as unknown[]).map((x) => (
            <option key={JSON.stringify(x)} value={JSON.stringify(x)}>
              {typeof x === 'string' ? x : JSON.stringify(x)}
            </option>
          ))}
        </select>
      );
    case 'json':
      return <textarea {...own} rows={3} spellcheck={false} value={text} onInput={(e) => change(e.currentTarget.value)} />;
    default:
      return (
        <input
          {...own}
          inputMode={f.shape === 'integer' ? 'numeric' : f.shape === 'number' ? 'decimal' : 'text'}
          spellcheck={false}
          autocapitalize="off"
          placeholder={f.initial}
          value={text}
          onInput={(e) => change(e.currentTarget.value)}
        />
      );
  }
}
