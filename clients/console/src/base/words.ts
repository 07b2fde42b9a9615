/** Names and times as people read them. */
import type { Actor } from '@antiphon/client';

export function nameOf(who: { kind?: string; id?: string | null; name?: string | undefined } | null): string {
  if (!who) return 'Somebody';
  if (who.name) return who.name;
  if (who.kind === 'agent') return 'Agent';
  if (who.kind === 'system') return 'System';
  return who.id || 'Somebody';
}

/** The name of who speaks: agents are called by the lane they speak in, which is what tells them apart. */
export function speaker(by: Actor | null, lane: string | null, role: string): string {
  if (by?.name || by?.kind === 'user') return nameOf(by);
  if (role === 'user') return by ? nameOf(by) : 'Somebody';
  if (lane !== null && lane !== 'main') return lane;
  return nameOf(by ?? { kind: 'agent' });
}

export function initials(name: string): string {
  const words = name.split(/[\s_.-]+/).filter(Boolean);
  const letters = words.length > 1 ? [words[0], words.at(-1)] : [words[0]];
  return letters.map((word) => [...(word ?? '?')][0]?.toUpperCase() ?? '').join('') || '?';
}

/** A colour that is always the same for a name, as a hue. */
export function hueOf(name: string): number {
  let hash = 0x811c9dc5; // FNV-1a, mixed once more: names that differ in one letter are far apart
  for (const char of name) hash = Math.imul(hash ^ (char.codePointAt(0) ?? 0), 0x01000193);
  return ((Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d) >>> 8) % 3600) / 10;
}

const CLOCK = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit' });
const DATED = new Intl.DateTimeFormat(undefined, {
  month: 'short',
  day: 'numeric',
  hour: '2-digit',
  minute: '2-digit',
});
const PRECISE = new Intl.DateTimeFormat(undefined, {
  month: 'short',
  day: 'numeric',
  hour: '2-digit',
  minute: '2-digit',
  second: '2-digit',
  fractionalSecondDigits: 3,
});
const DAY_MS = 86_400_000;

/** A time of day, with its date unless it is near. */
export function timeOf(ms: number): string {
  return (Math.abs(ms - Date.now()) < DAY_MS / 2 ? CLOCK : DATED).format(ms);
}

const AGO: readonly [number, string][] = [
  [60_000, 'now'],
  [3_600_000, 'min'],
  [DAY_MS, 'h'],
  [7 * DAY_MS, 'd'],
];

/** How long ago, in one short word. */
export function ago(ms: number, now: number): string {
  const past = Math.max(0, now - ms);
  const at = AGO.findIndex(([limit]) => past < limit);
  if (at === 0) return 'now';
  if (at < 0) return new Intl.DateTimeFormat(undefined, { month: 'short', day: 'numeric' }).format(ms);
  return `${Math.floor(past / (AGO[at - 1]?.[0] ?? 1))} ${AGO[at]?.[1]}`;
}

/** To the millisecond. */
export const preciseTime = (ms: number): string => PRECISE.format(ms);

const SIZES = new Intl.NumberFormat(undefined, { maximumFractionDigits: 1 });

/** A size as files have it. */
export function bytes(count: number): string {
  const power = count < 1000 ? 0 : Math.min(3, Math.floor(Math.log10(count) / 3));
  return `${SIZES.format(count / 1000 ** power)} ${['B', 'kB', 'MB', 'GB'][power]}`;
}

export function plural(count: number, one: string, many = `${one}s`): string {
  return `${count} ${count === 1 ? one : many}`;
}
