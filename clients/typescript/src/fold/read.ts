/** The parts of the state, read from snapshots and from the events that begin them; null for what has no place there. */
import { asCount, asInt, asObject, asObjects, asString, asStrings, type JsonObject, readAll } from '../json.js';
import type {
  Actor,
  Approval,
  Attachment,
  Call,
  Cancel,
  Claim,
  Handoff,
  Input,
  Lane,
  Run,
  Scheduled,
  Vote,
} from '../model.js';

export function readLane(raw: JsonObject): Lane | null {
  const fence = asCount(raw['fence']);
  if (fence === null) return null;
  const { owner, run, can, paused } = raw;
  return {
    owner: asObject<NonNullable<Lane['owner']>>(owner),
    fence,
    run: asString(run),
    can: asStrings(can),
    paused: asString(paused),
  };
}

export function readRun(raw: JsonObject): Run | null {
  const runId = asString(raw['runId']);
  const lane = asString(raw['lane']);
  if (runId === null || lane === null) return null;
  return {
    runId,
    lane,
    inputId: asString(raw['inputId']),
    attempt: asCount(raw['attempt']) || 1,
    cancel: asObject<Cancel>(raw['cancel']),
    parent: asString(raw['parent']),
    agent: asString(raw['agent']),
  };
}

function readSaid(raw: JsonObject) {
  const inputId = asString(raw['inputId']);
  const content = asString(raw['content']);
  if (inputId === null || content === null) return null;
  return {
    inputId,
    seq: asCount(raw['seq']) ?? 0,
    ts: asInt(raw['ts']) ?? 0,
    by: asObject<Actor>(raw['by']),
    content,
    ...readAttachments(raw),
  };
}

export function readInput(raw: JsonObject): Input | null {
  const said = readSaid(raw);
  const mode = asString(raw['mode']) || 'enqueue';
  return said && { ...said, mode, lane: asString(raw['lane']) || 'main', parent: asString(raw['parent']) };
}

/** Of a snapshot, or of `input.scheduled` with what its entry says. */
export function readScheduled(raw: JsonObject): Scheduled | null {
  const said = readSaid(raw);
  const at = asInt(raw['at']);
  return said && at !== null ? { ...said, at, mode: asString(raw['mode']) } : null;
}

/** The attachments that an input or a message says it has, as a field of it; none where there are none. */
export function readAttachments(raw: JsonObject): { attachments?: readonly Attachment[] } {
  const attachments = asObjects(raw['attachments']) as unknown as readonly Attachment[];
  return attachments.length ? { attachments } : {};
}

export function readClaim(raw: JsonObject, by: unknown = raw['by']): Claim | null {
  const claimId = asString(raw['claimId']);
  const expiresAt = asInt(raw['expiresAt']);
  if (claimId === null || expiresAt === null) return null;
  return { claimId, by: asObject<Actor>(by), device: asString(raw['device']), expiresAt };
}

/** Of a snapshot, or (with the run) of `tool.requested`. */
export function readCall(raw: JsonObject, run?: Run): Call | null {
  const toolCallId = asString(raw['toolCallId']);
  const lane = run ? run.lane : asString(raw['lane']);
  const runId = run ? run.runId : asString(raw['runId']);
  const name = asString(raw['name']);
  const executor = asString(raw['executor']);
  if (toolCallId === null || lane === null || runId === null || name === null || executor === null) return null;
  return {
    toolCallId,
    lane,
    runId,
    name,
    args: raw['args'] ?? null,
    executor,
    idempotent: raw['idempotent'] === true,
    participant: asString(raw['participant']),
    device: asString(raw['device']),
    anyAfter: asInt(raw['anyAfter']),
    deadline: asInt(raw['deadline']),
    claim: run ? null : readClaim(asObject(raw['claim']) ?? {}),
  };
}

export function readVote(raw: JsonObject): Vote | null {
  const option = asString(raw['option']);
  return option === null ? null : { by: asObject<Actor>(raw['by']), option };
}

/** Of a snapshot, or (with the run) of `approval.requested`. */
export function readApproval(raw: JsonObject, run?: Run): Approval | null {
  const approvalId = asString(raw['approvalId']);
  const lane = run ? run.lane : asString(raw['lane']);
  const runId = run ? run.runId : asString(raw['runId']);
  if (approvalId === null || lane === null || runId === null) return null;
  return {
    approvalId,
    kind: asString(raw['kind']) || 'approval',
    lane,
    runId,
    message: asString(raw['message']) ?? '',
    options: asStrings(raw['options']),
    default: asString(raw['default']),
    expiresAt: asInt(raw['expiresAt']),
    toolCallId: asString(raw['toolCallId']),
    key: asString(raw['key']),
    roles: asStrings(raw['roles']),
    quorum: asCount(raw['quorum']) || 1,
    responseSchema: raw['responseSchema'] ?? null,
    details: raw['details'] ?? null,
    votes: run ? [] : readAll(raw['votes'], readVote),
  };
}

/** Of a snapshot, or (with the run) of `handoff.requested`. */
export function readHandoff(raw: JsonObject, run?: Run): Handoff | null {
  const handoffId = asString(raw['handoffId']);
  const lane = run ? run.lane : asString(raw['lane']);
  const runId = run ? run.runId : asString(raw['runId']);
  if (handoffId === null || lane === null || runId === null) return null;
  return {
    handoffId,
    lane,
    runId,
    to: asString(raw['to']) ?? '',
    reason: asString(raw['reason']) ?? '',
    summary: asString(raw['summary']) ?? '',
    expiresAt: asInt(raw['expiresAt']),
  };
}
