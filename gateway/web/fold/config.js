// @ts-check
/**
 * What a session is told about itself (docs/PROTOCOL.md, section 6): its config, checked field by
 * field, and the limits that it puts on roles.
 *
 * @typedef {import('../fold.js').Actor} Actor
 * @typedef {{modes: string[] | null, maxQueue: number | null, cancel: boolean}} Limit
 * @typedef {{onBusy: string, coalesce: string, maxQueue: number, approvalOnInput: string,
 *            whenUnwatched: string, unwatchedGraceMs: number, pool: string | null,
 *            roles: Record<string, Limit>}} Config
 */

export const MODES = ['auto', 'inject', 'enqueue', 'interrupt', 'rollback', 'reject'];
const MAX_ROLES = 32;
const POOL = /^[A-Za-z0-9_-]{1,64}$/;

/** @type {Config} */
export const DEFAULTS = { onBusy: 'auto', coalesce: 'none', maxQueue: 16, approvalOnInput: 'wait',
  whenUnwatched: 'continue', unwatchedGraceMs: 15_000, pool: null, roles: {} };

const oneOf = (/** @type {string[]} */ ...words) => (/** @type {any} */ value) => words.includes(value);
const within = (/** @type {number} */ low, /** @type {number} */ high) => (/** @type {any} */ value) =>
  Number.isInteger(value) && value >= low && value <= high;

/** @type {[string, (value: any) => boolean][]} */
const CHECKS = [
  ['onBusy', oneOf(...MODES)],
  ['coalesce', oneOf('none', 'merge', 'latest')],
  ['maxQueue', within(1, 64)],
  ['approvalOnInput', oneOf('wait', 'cancel')],
  ['whenUnwatched', oneOf('continue', 'pause', 'stop')],
  ['unwatchedGraceMs', within(0, 3_600_000)],
  ['pool', (value) => value === null || (typeof value === 'string' && POOL.test(value))],
  ['roles', areRoles],
];

/** @param {Config} config @param {any} changes fields that are not as they must be are left out
 * @returns {Config} */
export function configured(config, changes) {
  /** @type {any} */ const fresh = { ...config };
  if (!isObject(changes)) return fresh;
  for (const [field, isRight] of CHECKS) {
    if (!Object.hasOwn(changes, field) || !isRight(changes[field])) continue;
    fresh[field] = field === 'roles' ? wholeRoles(changes.roles) : changes[field];
  }
  return fresh;
}

/** The limits of somebody; none: everything is allowed. @param {Config} config
 * @param {Actor | null | undefined} by @returns {Limit[]} */
export function limitsOf({ roles }, by) {
  const named = (by?.roles ?? []).filter((role) => Object.hasOwn(roles, role));
  if (named.length > 0) return named.map((role) => roles[role]);
  return Object.hasOwn(roles, '*') ? [roles['*']] : [];
}

/** What one of the limits allows is allowed. @param {Limit[]} limits
 * @param {(limit: Limit) => boolean} allows @returns {boolean} */
export function isAllowed(limits, allows) {
  return limits.length === 0 || limits.some(allows);
}

/** @param {any} value @returns {boolean} whether it is an object as JSON has them */
export function isObject(value) {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** @param {any} value */
function areRoles(value) {
  return isObject(value) && Object.keys(value).length <= MAX_ROLES && Object.values(value).every(isLimit);
}

/** @param {any} value */
function isLimit(value) {
  if (!isObject(value)) return false;
  const { modes = null, maxQueue = null, cancel = true } = value;
  return (modes === null || (Array.isArray(modes) && modes.every((mode) => MODES.includes(mode))))
    && (maxQueue === null || within(0, 64)(maxQueue)) && typeof cancel === 'boolean';
}

/** @param {Record<string, any>} roles @returns {Record<string, Limit>} */
function wholeRoles(roles) {
  return Object.fromEntries(Object.entries(roles).map(
    ([role, { modes = null, maxQueue = null, cancel = true }]) => [role, { modes, maxQueue, cancel }]));
}
