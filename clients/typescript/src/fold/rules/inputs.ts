/** Rules 2 to 7: lanes and their owners, and inputs, of participants and of runs that ask other agents. */
import { asString, asStrings } from '../../json.js';
import type { Input, LogEvent, Mode } from '../../model.js';
import { allowsMode, isMode, queueOf } from '../config.js';
import { type Ledger, MAIN } from '../ledger.js';
import { readAttachments, readScheduled } from '../read.js';
import { stop, withdraw } from './cancelling.js';
import { type Rule, sameSender } from './names.js';

/** Inputs that a session may have in its life. It bounds the ids kept here, too. */
const MAX_INPUTS = 50_000;

const MAX_SCHEDULED = 64;
const MAX_SCHEDULED_BYTES = 262_144;

const isUrgent = (mode: string) => mode === 'interrupt' || mode === 'rollback';

/** Rule 2. A human who takes a lane takes what waits in it, too. */
export const owner: Rule = (ledger, entry, event) => {
  const name = asString(event['lane']) || entry.lane;
  const kind = asString(event['kind']);
  if (name === null || kind === null) return;
  const { run = null, paused = null } = ledger.lanes.get(name) ?? {};
  const owns = kind === 'none' ? null : { kind, id: asString(event['id']) };
  ledger.lanes.set(name, { owner: owns, fence: entry.seq, run, can: asStrings(event['can']), paused });
  ledger.written.delete(name);
  if (ledger.humanIn(name) === undefined) return;
  for (const [id, handoff] of [...ledger.handoffs]) if (handoff.lane === name) ledger.handoffs.delete(id);
  for (const waiting of ledger.waitingIn(name)) {
    ledger.queue.delete(waiting.inputId);
    speak(ledger, waiting);
  }
};

/** Rule 3: the lane is nobody's; a note is the agent's next input. */
const returned: Rule = (ledger, { seq, ts, by }, event) => {
  const name = asString(event['lane']) ?? '';
  const lane = ledger.lanes.get(name);
  const human = ledger.humanIn(name);
  if (!lane || human === undefined || human !== by?.id) return;
  ledger.lanes.set(name, { ...lane, owner: null });
  const inputId = asString(event['inputId']);
  const content = asString(event['note']);
  if (!content || inputId === null || ledger.seen.has(inputId)) return;
  ledger.seen.add(inputId);
  ledger.queue.set(inputId, { inputId, seq, ts, by, content, mode: 'enqueue', lane: name, parent: null });
};

/** Rule 4. */
const sent: Rule = (ledger, { seq, ts, by }, event) => {
  const inputId = asString(event['inputId']);
  const content = asString(event['content']);
  if (inputId === null || content === null) return;
  const planned = ledger.scheduled.get(inputId);
  const isDue = planned !== undefined && planned.at === event['at'];
  if (!isDue && ledger.seen.has(inputId)) return;
  const asked = isMode(event['mode']) ? event['mode'] : ledger.config.onBusy;
  const mode = modeOf(ledger, asked);
  const coming = { inputId, seq, ts, by, content, mode, lane: MAIN, parent: null, ...readAttachments(event) };
  const superseded = supersededBy(ledger, coming);
  const code = refusal(ledger, coming, asked, superseded, !isDue);
  if (isDue && (code === 'session_closed' || code === 'queue_full')) return; // it is tried again
  ledger.seen.add(inputId);
  if (ledger.scheduled.delete(inputId)) ledger.changes.push({ kind: 'due', inputId });
  if (code) refuse(ledger, inputId, code);
  else take(ledger, coming, superseded);
};

/** Rule 5: the mode that an input gets. */
function modeOf(ledger: Ledger, asked: Mode): string {
  if (isUrgent(asked)) return asked;
  const joins = (asked === 'auto' || asked === 'inject') && ledger.runIn(MAIN)?.cancel === null;
  return joins && ledger.lanes.get(MAIN)?.can.includes('inject') ? 'inject' : 'enqueue';
}

/** Rule 6: what the input takes away. */
function supersededBy(ledger: Ledger, coming: Input): Input[] {
  if (ledger.config.coalesce !== 'latest' || isUrgent(coming.mode)) return [];
  return ledger.waitingIn(MAIN).filter((each) => each.mode === 'enqueue' && sameSender(each.by, coming.by));
}

/** Rule 4: the code of the first reason to refuse. */
function refusal(ledger: Ledger, { by }: Input, asked: Mode, superseded: Input[], isNew: boolean): string | false {
  const { config } = ledger;
  const code = refusalOfAny(ledger, isNew);
  if (code) return code;
  if (ledger.humanIn(MAIN) !== undefined) return false;
  const isRunning = ledger.runIn(MAIN) !== undefined;
  const waiting = ledger.waitingIn(MAIN).filter((each) => !superseded.includes(each));
  const own = waiting.filter((each) => sameSender(each.by, by)).length;
  if (!allowsMode(config, by, asked)) return 'mode_not_allowed';
  if (waiting.length >= config.maxQueue || own >= queueOf(config, by)) return 'queue_full';
  if (asked === 'reject' && (isRunning || waiting.length > 0)) return 'busy';
  const cannot = asked === 'inject' && isRunning && !ledger.lanes.get(MAIN)?.can.includes('inject');
  return cannot && 'cannot_inject';
}

/** What keeps a session from taking inputs, now or later. */
const refusalOfAny = ({ seen, closed }: Ledger, isNew: boolean) =>
  isNew && seen.size >= MAX_INPUTS ? 'session_full' : closed && 'session_closed';

/** Rule 20: an input that is sent later. */
const scheduled: Rule = (ledger, { seq, ts, by }, event) => {
  const planned = readScheduled({ ...event, seq, ts, by });
  if (!planned || ledger.seen.has(planned.inputId)) return;
  const all = [...ledger.scheduled.values(), planned];
  const size = new TextEncoder().encode(all.map(({ content }) => content).join('')).length;
  const isFull = all.length > MAX_SCHEDULED || size > MAX_SCHEDULED_BYTES;
  const code = refusalOfAny(ledger, true) || (isFull && 'schedule_full');
  ledger.seen.add(planned.inputId);
  if (code) refuse(ledger, planned.inputId, code);
  else ledger.plan(planned);
};

/** Rule 21: the agent takes it back. */
const unscheduled: Rule = (ledger, entry, event) => {
  const inputId = asString(event['inputId']) ?? '';
  if (ledger.scheduled.has(inputId)) withdraw(ledger, inputId, entry.by, 'cancelled');
};

/** Rules 5 and 6. */
function take(ledger: Ledger, coming: Input, superseded: Input[]): void {
  if (ledger.config.approvalOnInput === 'cancel') {
    for (const [id, approval] of [...ledger.approvals]) if (approval.lane === MAIN) ledger.approvals.delete(id);
  }
  if (ledger.humanIn(MAIN) !== undefined) {
    speak(ledger, coming);
    return;
  }
  for (const each of superseded) withdraw(ledger, each.inputId, coming.by, 'superseded');
  if (!isUrgent(coming.mode)) {
    ledger.queue.set(coming.inputId, coming);
    return;
  }
  const waiting = [...ledger.queue.values()];
  waiting.splice(waiting.filter((each) => isUrgent(each.mode)).length, 0, coming);
  ledger.queue = new Map(waiting.map((each) => [each.inputId, each]));
  stop(ledger, ledger.runIn(MAIN), 'immediate', coming.by, coming.mode);
}

/** The input is a message at once; who has the lane stands for the agent. */
function speak(ledger: Ledger, source: Input): void {
  const { inputId, by, lane } = source;
  ledger.end(inputId);
  const isOwner = by?.kind === 'user' && by.id === ledger.humanIn(lane);
  ledger.changes.push({ kind: 'spoken', inputId, source, role: isOwner ? 'assistant' : 'user' });
}

function refuse(ledger: Ledger, inputId: string, code: string): void {
  ledger.end(inputId);
  ledger.changes.push({ kind: 'dropped', inputId, code });
}

function pop(ledger: Ledger, event: LogEvent): { inputId: string; source: Input | null } | null {
  const inputId = asString(event['inputId']);
  if (inputId === null) return null;
  const source = ledger.queue.get(inputId) ?? null;
  if (ledger.queue.delete(inputId)) ledger.end(inputId);
  return { inputId, source };
}

/** Rule 7. */
const applied: Rule = (ledger, entry, event) => {
  const popped = pop(ledger, event);
  const runId = asString(event['runId']) || entry.run;
  if (popped) ledger.changes.push({ kind: 'applied', ...popped, runId, messageId: asString(event['messageId']) });
};

/** Rule 7. */
const failed: Rule = (ledger, _entry, event) => {
  const inputId = pop(ledger, event)?.inputId;
  if (inputId !== undefined)
    ledger.changes.push({ kind: 'dropped', inputId, code: asString(event['code']) || 'failed' });
};

/** Rule 7: a run asks another agent. */
const requested: Rule = (ledger, { seq, ts, by, lane: from }, event) => {
  const inputId = asString(event['inputId']);
  const content = asString(event['content']);
  const lane = asString(event['childLane']);
  const parent = ledger.runs.get(asString(event['parentRunId']) ?? '');
  if (inputId === null || content === null || lane === null || ledger.seen.has(inputId)) return;
  if (!parent || parent.lane !== from || lane === from) return;
  ledger.seen.add(inputId);
  const isDetached = event['detached'] === true;
  if (parent.cancel && !isDetached) return refuse(ledger, inputId, 'parent_cancelled');
  if (ledger.humanIn(lane) !== undefined || ledger.waitingIn(lane).length >= ledger.config.maxQueue) {
    return refuse(ledger, inputId, 'queue_full');
  }
  ledger.queue.set(inputId, { inputId, seq, ts, by, content, mode: 'enqueue', lane, parent: parent.runId });
  const agent = asString(event['agent']);
  if (agent !== null) ledger.agents.set(inputId, agent);
  if (isDetached) ledger.detached.add(inputId);
};

/** Rule 7. */
const cancelRequested: Rule = (ledger, entry, event) =>
  withdraw(ledger, asString(event['inputId']), entry.by, 'cancelled');

export const OF_ANYBODY: { readonly [type: string]: Rule } = {
  'input.sent': sent,
  'input.scheduled': scheduled,
  'input.cancel.requested': cancelRequested,
  'handoff.returned': returned,
};

export const OF_OWNERS: { readonly [type: string]: Rule } = {
  'input.applied': applied,
  'input.failed': failed,
  'input.scheduled': scheduled,
  'input.unscheduled': unscheduled,
  'run.requested': requested,
};
