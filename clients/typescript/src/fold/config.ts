/** What a session is told about itself: its config (PROTOCOL, section 6, Config). */
import { asObject, asStrings, type JsonObject } from '../json.js';
import type { Actor, Config, Mode, RoleLimits } from '../model.js';

const MODES: readonly unknown[] = ['auto', 'inject', 'enqueue', 'interrupt', 'rollback', 'reject'];
const MAX_ROLES = 32;
const MAX_QUEUE = 64;
const MAX_GRACE_MS = 3_600_000;

export const DEFAULT_CONFIG: Config = {
  onBusy: 'auto',
  coalesce: 'none',
  maxQueue: 16,
  approvalOnInput: 'wait',
  whenUnwatched: 'continue',
  unwatchedGraceMs: 15_000,
  pool: null,
  roles: {},
};

export const isMode = (value: unknown): value is Mode => MODES.includes(value);

const between = (low: number, high: number) => (value: unknown) =>
  Number.isInteger(value) && (value as number) >= low && (value as number) <= high;
const oneOf =
  (...words: unknown[]) =>
  (value: unknown) =>
    words.includes(value);

const GOOD: { readonly [field: string]: (value: unknown) => boolean } = {
  onBusy: isMode,
  coalesce: oneOf('none', 'merge', 'latest'),
  maxQueue: between(1, MAX_QUEUE),
  approvalOnInput: oneOf('wait', 'cancel'),
  whenUnwatched: oneOf('continue', 'pause', 'stop'),
  unwatchedGraceMs: between(0, MAX_GRACE_MS),
  priority: oneOf('high', 'normal', 'low'),
  pool: (value) => value === null || (typeof value === 'string' && /^[\w-]{1,64}$/.test(value)),
};

type Sent = Omit<Config, 'priority'> & { readonly priority?: 'high' | 'normal' | 'low' };

/** The config with the fields of `raw` that are as they must be; the others stay. */
export function configured(config: Config, raw: unknown): Config {
  const given = asObject(raw) ?? {};
  const found = Object.entries(given).filter(([name, value]) => Object.hasOwn(GOOD, name) && GOOD[name]?.(value));
  const roles = readRoles(given['roles']);
  const { priority, ...updated } = { ...config, ...Object.fromEntries(found), ...(roles && { roles }) } as Sent;
  // As in a snapshot, which does not name the normal one.
  return priority === undefined || priority === 'normal' ? updated : { ...updated, priority };
}

/** `roles` if all of it is as it must be, else null. */
function readRoles(raw: unknown): Config['roles'] | null {
  const named = Object.entries(asObject(raw) ?? { '': null }).map(([role, limits]) => [role, readLimits(limits)]);
  return named.length > MAX_ROLES || named.some(([, limits]) => limits === null) ? null : Object.fromEntries(named);
}

function readLimits(raw: unknown): RoleLimits | null {
  const limits: JsonObject | null = asObject(raw);
  if (limits === null) return null;
  const { modes = null, maxQueue = null, cancel = true } = limits;
  if (modes !== null && !(Array.isArray(modes) && modes.every(isMode))) return null;
  if (maxQueue !== null && !between(0, MAX_QUEUE)(maxQueue)) return null;
  if (typeof cancel !== 'boolean') return null;
  return { modes: modes as Mode[] | null, maxQueue: maxQueue as number | null, cancel };
}

/** The limits of somebody, of which any one suffices; none at all: no limit. */
function limitsOf(config: Config, by: Actor | null): RoleLimits[] {
  const has = asStrings(by?.roles);
  const all = Object.entries(config.roles);
  const named = all.filter(([role]) => has.includes(role));
  return (named.length ? named : all.filter(([role]) => role === '*')).map(([, limits]) => limits);
}

/** Whether somebody may send in this mode. */
export function allowsMode(config: Config, by: Actor | null, mode: Mode): boolean {
  const limits = limitsOf(config, by);
  return !limits.length || limits.some(({ modes }) => modes === null || modes.includes(mode));
}

/** Whether somebody may cancel runs. */
export function allowsCancel(config: Config, by: Actor | null): boolean {
  const limits = limitsOf(config, by);
  return !limits.length || limits.some(({ cancel }) => cancel);
}

/** How many inputs of somebody may wait. */
export function queueOf(config: Config, by: Actor | null): number {
  const limits = limitsOf(config, by);
  return limits.length
    ? Math.max(...limits.map(({ maxQueue }) => maxQueue ?? Number.POSITIVE_INFINITY))
    : Number.POSITIVE_INFINITY;
}
