/**
 * A field for a value, by its JSON Schema: text, number, a choice; JSON for all else. Only the form is seen to here:
 * whether the value is right, the server says.
 */
import { useId } from 'react';

interface Schema {
  readonly type?: string | readonly string[];
  readonly enum?: readonly unknown[];
  readonly properties?: { readonly [name: string]: unknown };
}

export interface Form {
  readonly kind: 'text' | 'number' | 'choice' | 'json';
  readonly choices: readonly { readonly value: string; readonly label: string }[];
  readonly outline: string;
}

export type Read = { readonly value: unknown } | { readonly problem: string };

const labelOf = (value: unknown): string => (typeof value === 'string' ? value : JSON.stringify(value));
const choice = (value: unknown, label = labelOf(value)) => ({ value: JSON.stringify(value), label });

/** What a value of that schema is written in; any text will do without one. */
export function formFor(schema: unknown): Form {
  const { type, enum: values, properties } = (Object(schema) ?? {}) as Schema;
  const [first] = [type ?? (properties ? 'object' : 'string')].flat();
  if (Array.isArray(values)) return { kind: 'choice', choices: values.map((value) => choice(value)), outline: '' };
  if (first === 'boolean') return { kind: 'choice', choices: [choice(true, 'Yes'), choice(false, 'No')], outline: '' };
  if (first === 'string') return { kind: 'text', choices: [], outline: '' };
  if (first === 'number' || first === 'integer') return { kind: 'number', choices: [], outline: '' };
  const names = Object.keys(properties ?? {}).map((name) => [name, null]);
  const outline = first === 'array' ? '[]' : JSON.stringify(Object.fromEntries(names));
  return { kind: 'json', choices: [], outline };
}

/** What stands in the field at first. */
export function written({ kind, choices }: Form, value: unknown): string {
  if (value === undefined) return choices[0]?.value ?? '';
  if (kind === 'json') return JSON.stringify(value, null, 2);
  return kind === 'choice' ? JSON.stringify(value) : String(value);
}

/** The value that is written in a field, or why it is none. */
export function readField({ kind }: Form, text: string): Read {
  if (kind === 'text') return { value: text };
  if (kind === 'number') {
    const value = Number(text.trim() || Number.NaN);
    return Number.isFinite(value) ? { value } : { problem: 'This must be a number.' };
  }
  try {
    return { value: JSON.parse(text) };
  } catch {
    return { problem: 'This must be JSON.' };
  }
}

interface FieldProps {
  readonly form: Form;
  readonly label: string;
  readonly text: string;
  readonly change: (text: string) => void;
}

export function Field({ form, label, text, change }: FieldProps) {
  const id = useId();
  const shared = { id, value: text, onChange: (event: { target: { value: string } }) => change(event.target.value) };
  return (
    <div className="field">
      <label htmlFor={id}>{label}</label>
      {form.kind === 'choice' && (
        <select {...shared}>
          {form.choices.map(({ value, label: name }) => (
            <option key={value} value={value}>
              {name}
            </option>
          ))}
        </select>
      )}
      {form.kind === 'number' && <input {...shared} inputMode="decimal" />}
      {form.kind === 'text' && <textarea {...shared} rows={2} />}
      {form.kind === 'json' && (
        <textarea {...shared} rows={4} className="json" spellCheck={false} placeholder={form.outline} />
      )}
    </div>
  );
}
