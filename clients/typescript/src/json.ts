/** Reading JSON that somebody else wrote: every getter answers null instead of throwing. */

export type JsonObject = { readonly [field: string]: unknown };

/** The value if it is an integer, else null. */
export const asInt = (value: unknown): number | null => (Number.isInteger(value) ? (value as number) : null);

/** The value if it is an integer >= 0, else null. */
export const asCount = (value: unknown): number | null =>
  Number.isInteger(value) && (value as number) >= 0 ? (value as number) : null;

/** The value if it is a number >= 0, at most `cap`; else null. */
export const asBounded = (value: unknown, cap: number): number | null =>
  typeof value === 'number' && value >= 0 ? Math.min(value, cap) : null;

/** The value if it is a string, else null. */
export const asString = (value: unknown): string | null => (typeof value === 'string' ? value : null);

/** The value if it is a JSON object, else null. */
export const asObject = <T = JsonObject>(value: unknown): T | null =>
  typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as T) : null;

const isObject = (value: unknown) => asObject(value) !== null;

/** The JSON objects in a JSON array, in order; anything else in it is left out. */
export const asObjects = (value: unknown): JsonObject[] =>
  Array.isArray(value) ? (value.every(isObject) ? value : value.filter(isObject)) : [];

/** The strings in a JSON array, in order; anything else in it is left out. */
export const asStrings = (value: unknown): string[] =>
  Array.isArray(value) ? value.filter((item) => typeof item === 'string') : [];

/** The JSON object that `text` is; null if it is none. */
export function parseObject(text: unknown): JsonObject | null {
  try {
    return asObject(JSON.parse(text as string));
  } catch {
    return null;
  }
}

/** What is read of each of `raws`, in order; what cannot be read is left out. */
export const readAll = <T>(raws: unknown, read: (raw: JsonObject) => T | null): T[] =>
  asObjects(raws).flatMap((raw) => read(raw) ?? []);
