/** Rules 14 to 16: approvals and questions, and an agent that asks for a human. */
import { asString, asStrings } from '../../json.js';
import type { Approval, Entry, LogEvent, Vote } from '../../model.js';
import type { Ledger } from '../ledger.js';
import { readApproval, readHandoff } from '../read.js';
import { type Rule, sameId } from './names.js';
import { isNew } from './tools.js';

const AT_ONCE: readonly string[] = ['reject_once', 'reject_always', 'decline'];
const ALWAYS = '_always';

/** Rule 14. */
const requested: Rule = (ledger, { lane }, event) => {
  const run = ledger.runIn(lane);
  const approval = run && readApproval(event, run);
  if (approval && isNew(ledger, ledger.approvals.size, (past) => past.approvals, approval.approvalId)) {
    ledger.addApproval(approval);
  }
};

/** Rule 15: a vote, which may decide. */
const responded: Rule = (ledger, entry, event) => {
  const pending = pendingApproval(ledger, event);
  const option = asString(event['option']);
  if (!pending || option === null || !pending.options.includes(option) || !mayVote(pending, entry)) return;
  const approval = { ...pending, votes: [...pending.votes, { by: entry.by, option }] };
  const decision = decide(approval);
  if (!decision) return void ledger.approvals.set(approval.approvalId, approval);
  ledger.approvals.delete(approval.approvalId);
  const isForAlways = decision.option === 'allow_always' || decision.option === 'reject_always';
  if (isForAlways && approval.key !== null) ledger.remember(approval.key, decision);
};

function mayVote({ expiresAt, roles, votes }: Approval, { by, ts }: Entry): boolean {
  if (!by || (expiresAt !== null && ts > expiresAt)) return false;
  const has = asStrings(by.roles);
  if (roles.length && !roles.some((role) => has.includes(role))) return false;
  return !votes.some((vote) => sameId(vote.by, by));
}

/** The vote that decides; undefined while more are needed. */
function decide({ votes, quorum }: Approval): Vote | undefined {
  const last = votes.at(-1);
  if (last && AT_ONCE.includes(last.option)) return last;
  if (votes.length < quorum) return undefined;
  const once = votes.find((vote) => !vote.option.endsWith(ALWAYS));
  return once ?? last;
}

/** Rule 15: what was decided for always is asked again. */
const revoked: Rule = (ledger, _entry, event) => void ledger.remembered.delete(asString(event['key']) ?? '');

/** Rule 15: nobody decided. */
const expired: Rule = (ledger, entry, event) => {
  const approval = pendingApproval(ledger, event);
  if (approval && approval.lane === entry.lane) ledger.approvals.delete(approval.approvalId);
};

const pendingApproval = (ledger: Ledger, event: LogEvent) => ledger.approvals.get(asString(event['approvalId']) ?? '');

/** Rule 16. */
const handoffRequested: Rule = (ledger, { lane }, event) => {
  const run = ledger.runIn(lane);
  const handoff = run && readHandoff(event, run);
  if (!handoff || [...ledger.handoffs.values()].some((each) => each.lane === handoff.lane)) return;
  if ([...ledger.past.values()].some((past) => past.handoffs.has(handoff.handoffId))) return;
  ledger.addHandoff(handoff);
};

/** Rule 16. */
const handoffExpired: Rule = (ledger, entry, event) => {
  const handoff = ledger.handoffs.get(asString(event['handoffId']) ?? '');
  if (handoff && handoff.lane === entry.lane) ledger.handoffs.delete(handoff.handoffId);
};

export const OF_ANYBODY: { readonly [type: string]: Rule } = {
  'approval.responded': responded,
  'approval.revoked': revoked,
};

export const OF_OWNERS: { readonly [type: string]: Rule } = {
  'approval.requested': requested,
  'approval.resolved': expired,
  'handoff.requested': handoffRequested,
  'handoff.expired': handoffExpired,
};
