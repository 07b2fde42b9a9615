/** The frames of the wire protocol, version 1, that a gateway sends (PROTOCOL, sections 1, 3 and 4). Pure. */
import {
  asBounded,
  asCount,
  asInt,
  asObject,
  asObjects,
  asString,
  asStrings,
  type JsonObject,
  readAll,
} from './json.js';
import type { Actor, Entry, LogEvent } from './model.js';

export const SUBPROTOCOL = 'antiphon.v1';
export const CONNECT_PATH = '/v1/connect';

/** A heartbeat, or a pause that a gateway asks for, is honoured up to here: a wrong number must not park a client. */
const MAX_HEARTBEAT_MS = 3_600_000;
const MAX_PAUSE_MS = 300_000;

/** A place in a session's log: just after the entry `seq` of the log `epoch`. */
export interface Cursor {
  readonly epoch: string;
  readonly seq: number;
}

export const cursorText = ({ epoch, seq }: Cursor): string => `${epoch}:${seq}`;

/** Reads `<epoch>:<seq>`; null for what is none. */
export function readCursor(text: string): Cursor | null {
  const match = /^([^:\s]{1,64}):(\d{1,19})$/.exec(text);
  return match && { epoch: match[1] as string, seq: Number(match[2]) };
}

/** Reads an `entry` frame; null if it has no usable place in the log. */
export function readEntry(frame: JsonObject, epoch = ''): Entry | null {
  const seq = asCount(frame['seq']);
  const prev = asInt(frame['prev']);
  if (seq === null || prev === null) return null;
  return {
    type: 'entry',
    cursor: `${epoch}:${seq}`,
    seq,
    prev,
    id: asString(frame['id']) ?? '',
    ts: asInt(frame['ts']) ?? 0,
    lane: asString(frame['lane']),
    run: asString(frame['run']),
    by: asObject<Actor>(frame['by']),
    off: asCount(frame['off']),
    merged: asCount(frame['merged']),
    events: asObjects(frame['events']) as readonly JsonObject[] as readonly LogEvent[],
  };
}

/**
 * What a gateway allows: PROTOCOL, section 1, says of what each is a limit. Of connections, and of what a tenant may have,
 * 0 is no limit.
 */
export interface Limits {
  readonly frame_bytes: number;
  readonly input_bytes: number;
  readonly subscriptions: number;
  readonly commands_per_second: number;
  readonly commands_burst: number;
  readonly command_queue: number;
  readonly bytes_per_second: number;
  readonly bytes_burst: number;
  readonly inputs_per_second: number;
  readonly inputs_burst: number;
  readonly joins_per_second: number;
  readonly joins_burst: number;
  readonly requests_per_second: number;
  readonly requests_burst: number;
  readonly user_connections: number;
  readonly address_connections: number;
  readonly tenant_sessions: number;
  readonly tenant_bytes: number;
  /** What may be scheduled in a session; 0: the gateway cannot send later. */
  readonly scheduled_inputs: number;
  readonly scheduled_bytes: number;
  readonly schedule_ahead_s: number;
}

/** The gateway's answer to `hello`. */
export interface Welcome {
  readonly gateway: string;
  readonly connection: string;
  readonly server: string;
  readonly user: { readonly id: string; readonly name: string };
  /** Seconds since 1970; null if the gateway does not say. */
  readonly tokenExpiresAt: number | null;
  readonly heartbeatMs: number;
  readonly limits: Limits;
}

const LIMITS: Limits = {
  frame_bytes: 131_072,
  input_bytes: 65_536,
  subscriptions: 64,
  commands_per_second: 50,
  commands_burst: 100,
  command_queue: 64,
  bytes_per_second: 2_097_152,
  bytes_burst: 8_388_608,
  inputs_per_second: 50,
  inputs_burst: 100,
  joins_per_second: 100,
  joins_burst: 1000,
  requests_per_second: 50,
  requests_burst: 100,
  user_connections: 0,
  address_connections: 0,
  tenant_sessions: 0,
  tenant_bytes: 0,
  scheduled_inputs: 0,
  scheduled_bytes: 0,
  schedule_ahead_s: 0,
};

/** Reads a `welcome`; every field that it lacks gets a default. */
export function readWelcome(frame: JsonObject): Welcome {
  const user = asObject(frame['user']);
  const limits = asObject(frame['limits']);
  const known = Object.entries(LIMITS).map(([name, usual]) => [name, asCount(limits?.[name]) || usual]);
  return {
    gateway: asString(frame['gateway']) ?? '',
    connection: asString(frame['connection']) ?? '',
    server: asString(frame['server']) ?? '',
    user: { id: asString(user?.['id']) ?? '', name: asString(user?.['name']) ?? '' },
    tokenExpiresAt: readExpiry(frame),
    heartbeatMs: asBounded(frame['heartbeat_ms'], MAX_HEARTBEAT_MS) || 25_000,
    limits: Object.fromEntries(known),
  };
}

/** `token_expires_at` of a `welcome` or of the reply to `auth.refresh`, in seconds since 1970. */
export const readExpiry = (frame: JsonObject): number | null => asBounded(frame['token_expires_at'], 1e12);

/** `retry_after_ms` of a refusal or of a close reason. */
export const readPause = (body: JsonObject | null): number | null => asBounded(body?.['retry_after_ms'], MAX_PAUSE_MS);

// ---- presence

export type PresenceState = 'typing' | 'active' | 'idle' | 'away';

/** One device or tab of a participant, and the tools that it executes. */
export interface Device {
  readonly device: string;
  readonly state: string;
  readonly tools: readonly string[];
}

/** One user, however many devices; `state` is that of the liveliest. */
export interface Participant {
  readonly kind: string;
  readonly id: string;
  readonly name: string;
  readonly roles: readonly string[];
  readonly state: string;
  readonly devices: readonly Device[];
}

/** Who was there when the gateway last said so. `isStale`: the subscription has been lost since. */
export interface Presence {
  readonly participants: readonly Participant[];
  /** Devices beyond those listed. */
  readonly more: number;
  readonly isStale: boolean;
}

export const readPresence = (frame: JsonObject): Presence => ({
  participants: readAll(frame['participants'], readParticipant),
  more: asCount(frame['more']) ?? 0,
  isStale: false,
});

function readParticipant(raw: JsonObject): Participant | null {
  const kind = asString(raw['kind']);
  const id = asString(raw['id']);
  if (kind === null || id === null) return null;
  return {
    kind,
    id,
    name: asString(raw['name']) ?? '',
    roles: asStrings(raw['roles']),
    state: asString(raw['state']) || 'active',
    devices: readAll(raw['devices'], readDevice),
  };
}

function readDevice(raw: JsonObject): Device | null {
  const device = asString(raw['device']);
  if (device === null) return null;
  return { device, state: asString(raw['state']) || 'active', tools: asStrings(raw['tools']) };
}
