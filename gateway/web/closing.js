// @ts-check
/** What the end of a socket means: docs/PROTOCOL.md, section 8. Pure. */

const BACKOFF_MS = 250;
const MAX_BACKOFF_MS = 30_000;

/** Full jitter. @param {number} attempt from 0 @param {number} random in [0, 1)
 * @returns {number} milliseconds to wait */
export function backoffMs(attempt, random) {
  return random * Math.min(MAX_BACKOFF_MS, BACKOFF_MS * 2 ** attempt);
}

/** @param {number} code @param {string} reason @param {number} attempt @param {number} random
 * @returns {{next: 'reconnect', delayMs: number} | {next: 'refused' | 'expired' | 'closed', why: string}} */
export function afterClose(code, reason, attempt, random) {
  const { code: why = String(code), retry_after_ms: pacedMs } = parsed(reason);
  if (code === 1000 || code === 1001) return { next: 'closed', why };
  if (code >= 4400 && code < 4500) return { next: 'refused', why };
  if (code >= 4300 && code < 4400) return { next: 'expired', why };
  const waitMs = backoffMs(attempt, random);
  const isPaced = code >= 4200 && code < 4300 && Number.isFinite(pacedMs);
  return { next: 'reconnect', delayMs: isPaced ? Math.min(Math.max(0, pacedMs), MAX_BACKOFF_MS) : waitMs };
}

/** @param {string} reason @returns {{code?: string, retry_after_ms?: any}} */
function parsed(reason) {
  try {
    return Object(JSON.parse(reason));
  } catch {
    return {};
  }
}
