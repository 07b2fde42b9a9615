/** Approvals and questions as the interrupts of AG-UI, and an application's answers as decisions. */
import { asObject, asString, type JsonObject } from '../json.js';
import type { Approval, Call, State } from '../model.js';
import { subagentOf } from './messages.js';

/** Who a stream is for: a user, its roles, whether it may decide, and the tools that the page executes. */
export interface Page {
  readonly user: string;
  readonly roles: readonly string[];
  readonly approves: boolean;
  readonly tools: ReadonlySet<string>;
}

/** What a run waits for that the page can give. `nextAt`: when there may be more, without any entry (ms since 1970). */
export interface Waiting {
  readonly approvals: readonly Approval[];
  readonly calls: readonly Call[];
  readonly nextAt: number | null;
}

export function waitingFor(state: State, page: Page, now: number): Waiting {
  const open = state.calls.filter(
    ({ executor, name, claim }) => executor === 'client' && page.tools.has(name) && claim === null,
  );
  const isFor = ({ device, participant, anyAfter }: Call) =>
    (device === null && (participant === null || participant === page.user)) || (anyAfter !== null && anyAfter <= now);
  const later = open.flatMap(({ anyAfter }) => (anyAfter !== null && anyAfter > now ? anyAfter : []));
  return {
    approvals: state.approvals.filter((approval) => decides(page, approval)),
    calls: open.filter(isFor),
    nextAt: later.length ? Math.min(...later) : null,
  };
}

/** Whether the user can answer it now. What somebody else must decide is waited for, and is no interrupt. */
const decides = ({ approves, roles, user }: Page, approval: Approval): boolean =>
  approves &&
  (!approval.roles.length || approval.roles.some((role) => roles.includes(role))) &&
  approval.votes.every(({ by }) => by?.id !== user);

/** When it expires is told beside it: an application refuses to answer what has expired by its own clock, for ever. */
export function interruptOf(approval: Approval): JsonObject & { readonly id: string } {
  const { approvalId: id, kind, message, options, expiresAt, details, toolCallId, lane, runId } = approval;
  const tag = subagentOf(lane, runId);
  const reason = kind === 'question' ? 'input_required' : toolCallId === null ? 'confirmation' : 'tool_call';
  const told = {
    kind,
    options,
    default: approval.default ?? '',
    ...(expiresAt !== null && { expiresAt }),
    ...(details !== null && { details }),
  };
  return {
    id,
    reason,
    message,
    ...(toolCallId !== null && { toolCallId }),
    ...(tag !== null && { subagentRunId: tag }),
    responseSchema: responseSchema(approval),
    metadata: { antiphon: told },
  };
}

function responseSchema({ kind, options, responseSchema }: Approval): JsonObject {
  const own = asObject(responseSchema) ?? {};
  if (kind === 'question') return own;
  const properties = {
    approved: { type: 'boolean' },
    option: { type: 'string', enum: options },
    editedArgs: own,
  };
  return { type: 'object', properties, anyOf: [{ required: ['approved'] }, { required: ['option'] }] };
}

/** The option that a resume entry chooses, and its payload; null if it says neither. */
export function decision(
  { kind, options }: Approval,
  { status, payload }: { readonly status: string; readonly payload?: unknown },
): { readonly option: string; readonly payload?: unknown } | null {
  const isResolved = status === 'resolved';
  if (kind === 'question') return isResolved ? { option: 'answer', payload } : { option: 'decline' };
  if (!isResolved) return { option: first(options, 'reject') };
  if (typeof payload === 'boolean') return { option: first(options, payload ? 'allow' : 'reject') };
  const said = asObject(payload);
  const option = asString(said?.['option']);
  const edited = said?.['editedArgs'] === undefined ? {} : { payload: said['editedArgs'] };
  if (option !== null) return { option, ...edited };
  if (typeof said?.['approved'] !== 'boolean') return null;
  return said['approved'] ? { option: first(options, 'allow'), ...edited } : { option: first(options, 'reject') };
}

/** The option for once, if there is one; what is not offered is refused by the gateway. */
function first(options: readonly string[], word: string): string {
  const offered = options.filter((option) => option.startsWith(word));
  const once = `${word}_once`;
  return offered.includes(once) ? once : (offered[0] ?? once);
}
