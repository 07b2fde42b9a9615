/** Rules 11 to 13: calls of tools. */
import { asString } from '../../json.js';
import type { Call, Entry, LogEvent } from '../../model.js';
import type { Ledger, Past } from '../ledger.js';
import { readCall, readClaim } from '../read.js';
import { type Rule, sameId } from './names.js';

/** Calls (or approvals) that may be open in a session, and that the running runs may have had. */
const MAX_OPEN = 64;
const MAX_HAD = 1000;

/** Whether one more may be open, and none had this id before. */
export function isNew(ledger: Ledger, open: number, had: (past: Past) => Set<string>, id: string): boolean {
  const every = [...ledger.past.values()].map(had);
  const count = every.reduce((sum, ids) => sum + ids.size, 0);
  return open < MAX_OPEN && count < MAX_HAD && !every.some((ids) => ids.has(id));
}

/** Rule 11. */
const requested: Rule = (ledger, { lane }, event) => {
  const run = ledger.runIn(lane);
  const call = run && readCall(event, run);
  if (call && isNew(ledger, ledger.calls.size, (past) => past.calls, call.toolCallId)) ledger.addCall(call);
};

/** Rule 12. */
const claimed: Rule = (ledger, entry, event) => {
  const call = openCall(ledger, event);
  const claim = readClaim(event, entry.by);
  if (!entry.by || !call || call.executor !== 'client' || !claim || isLate(call, entry)) return;
  const held = call.claim;
  const renews = held?.claimId === claim.claimId && sameId(held.by, entry.by);
  const isFree = !held || (held.expiresAt < entry.ts && call.idempotent);
  if (renews || (isFree && isTarget(call, entry, claim.device))) setClaim(ledger, { ...call, claim });
};

/** Rule 13. */
const released: Rule = (ledger, entry, event) => {
  const call = claimedBy(ledger, entry, event);
  if (call) setClaim(ledger, { ...call, claim: null });
};

/** Rule 13. */
const resolved: Rule = (ledger, entry, event) => {
  const call = claimedBy(ledger, entry, event);
  if (call) ledger.calls.delete(call.toolCallId);
};

/** Rule 13: a claim has run out. */
const lapsed: Rule = (ledger, entry, event) => {
  const call = openCall(ledger, event);
  if (!call?.idempotent || call.claim?.claimId !== event['claimId']) return;
  if ((call.claim?.expiresAt ?? entry.ts) < entry.ts) setClaim(ledger, { ...call, claim: null });
};

/** Rule 13: the call's lane ends it, with a result or without. */
const ended: Rule = (ledger, entry, event) => {
  const call = openCall(ledger, event);
  if (call && call.lane === entry.lane) ledger.calls.delete(call.toolCallId);
};

const setClaim = (ledger: Ledger, call: Call) => void ledger.calls.set(call.toolCallId, call);

const openCall = (ledger: Ledger, event: LogEvent) => ledger.calls.get(asString(event['toolCallId']) ?? '');

const isLate = (call: Call, entry: Entry) => call.deadline !== null && entry.ts > call.deadline;

/** The open call, if the claim that counts is that of the entry, in time. */
function claimedBy(ledger: Ledger, entry: Entry, event: LogEvent): Call | null {
  const call = openCall(ledger, event);
  if (!call?.claim || isLate(call, entry)) return null;
  return call.claim.claimId === event['claimId'] && sameId(call.claim.by, entry.by) ? call : null;
}

function isTarget(call: Call, entry: Entry, device: string | null): boolean {
  if (call.anyAfter !== null && entry.ts >= call.anyAfter) return true;
  const isParticipant = call.participant === null || entry.by?.id === call.participant;
  return isParticipant && (call.device === null || device === call.device);
}

export const OF_ANYBODY: { readonly [type: string]: Rule } = {
  'tool.claimed': claimed,
  'tool.released': released,
  'tool.resolved': resolved,
};

export const OF_OWNERS: { readonly [type: string]: Rule } = {
  'tool.requested': requested,
  'tool.failed': ended,
  'tool.lapsed': lapsed,
  TOOL_CALL_RESULT: ended,
};
