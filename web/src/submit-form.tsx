import { useEffect, useState } from 'preact/hooks';
import { fromFields, fromJSON, toField } from './params.ts';
import type { KindForm } from './params.ts';

interface Props {
  kinds: KindForm[];
  submit: (kind: string, params: object) => void;
}

/** The form for a new task: one field for each parameter of a known kind, or any kind with JSON. */
export function SubmitForm({ kinds, submit }: Props) {
  const [chosen, choose] = useState('');
  const [problem, setProblem] = useState('');
  const form = kinds.find((k) => k.kind === chosen) ?? kinds[0]!;
  const free = chosen === '*';

  function onSubmit(e: Event) {
    e.preventDefault();
    const fields = Object.fromEntries(new FormData(e.currentTarget as HTMLFormElement)) as Record<string, string>;
    try {
      if (free) submit((fields['*kind'] ?? '').trim(), fromJSON(fields['*json'] ?? ''));
      else submit(form.kind, fromFields(form, fields));
      setProblem('');
    } catch (err) {
      setProblem((err as Error).message);
    }
  }

  return (
    <form onSubmit={onSubmit} class="submit" data-testid="submit-form" autocomplete="off">
      <h2>New task</h2>
      <label>
        Kind
        <select data-testid="kind" value={free ? '*' : form.kind} onChange={(e) => choose(e.currentTarget.value)}>
          {kinds.map((k) => (
            <option key={k.kind} value={k.kind}>
              {k.kind}
            </option>
          ))}
          <option value="*">any other, as JSON</option>
        </select>
      </label>
      {free ? <FreeFields /> : <Fields key={form.kind} form={form} />}
      {problem && (
        <p class="problem" role="alert" data-testid="form-error">
          {problem}
        </p>
      )}
      <button type="submit" class="primary" data-testid="submit">
        Submit
      </button>
    </form>
  );
}

function Fields({ form }: { form: KindForm }) {
  const [texts, setTexts] = useState<Record<string, string>>({});
  useEffect(() => setTexts({}), [form]); // other defaults have come
  return (
    <>
      {Object.entries(form.params).map(([name, value]) => (
        <label key={name}>
          {name}
          <input
            name={name}
            data-testid={`param-${name}`}
            inputMode={typeof value === 'number' ? 'numeric' : 'text'}
            spellcheck={false}
            autocapitalize="off"
            value={texts[name] ?? toField(value)}
            onInput={(e) => setTexts({ ...texts, [name]: e.currentTarget.value })}
          />
        </label>
      ))}
    </>
  );
}

function FreeFields() {
  return (
    <>
      <label>
        Kind name
        <input name="*kind" data-testid="free-kind" required spellcheck={false} autocapitalize="off" />
      </label>
      <label>
        Parameters
        <textarea name="*json" data-testid="free-json" rows={5} spellcheck={false} placeholder="{ }" />
      </label>
    </>
  );
}
