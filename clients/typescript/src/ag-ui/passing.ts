/**
 * Events of the log that go to AG-UI as they are, if they are as AG-UI says. One malformed field is fatal to a whole run,
 * and an agent may put what it likes into its own events: so only the fields that AG-UI knows are passed on, and an event
 * that would not be accepted is left out.
 */
import { asObject, type JsonObject } from '../json.js';
import type { LogEvent } from '../model.js';

type Check = (value: unknown) => boolean;

const text: Check = (value) => typeof value === 'string';
const object: Check = (value) => asObject(value) !== null;
const anything: Check = () => true;
/** RFC 6901. */
const pointer: Check = (value) => typeof value === 'string' && /^(\/([^/~]|~[01])*)*$/.test(value);
/** RFC 6902. */
const patch: Check = (value) => Array.isArray(value) && value.every(operation);

function operation(value: unknown): boolean {
  const of = asObject(value);
  if (!of || !pointer(of['path'])) return false;
  switch (of['op']) {
    case 'add':
    case 'replace':
    case 'test':
      return 'value' in of;
    case 'move':
    case 'copy':
      return pointer(of['from']);
    default:
      return of['op'] === 'remove';
  }
}

/** By type: the fields that an event must have, and those that it may have. */
const PASSED_ON = new Map<string, readonly [Record<string, Check>, Record<string, Check>]>([
  ['CUSTOM', [{ name: text, value: anything }, {}]],
  ['RAW', [{ event: anything }, { source: text }]],
  ['STATE_SNAPSHOT', [{ snapshot: anything }, {}]],
  ['STATE_DELTA', [{ delta: patch }, {}]],
  [
    'ACTIVITY_SNAPSHOT',
    [{ messageId: text, activityType: text, content: object }, { replace: (value) => typeof value === 'boolean' }],
  ],
  ['ACTIVITY_DELTA', [{ messageId: text, activityType: text, patch }, {}]],
  [
    'REASONING_ENCRYPTED_VALUE',
    [{ subtype: (value) => value === 'tool-call' || value === 'message', entityId: text, encryptedValue: text }, {}],
  ],
]);

/** The event as it is passed on; null: not at all. */
export function passedOn(event: LogEvent): (JsonObject & { readonly type: string }) | null {
  const [required, optional] = PASSED_ON.get(event.type) ?? [];
  if (!required || !optional) return null;
  const holds = ([name, check]: [string, Check]) => name in event && check(event[name]);
  if (!Object.entries(required).every(holds)) return null;
  const names = [
    ...Object.keys(required),
    ...Object.entries(optional)
      .filter(holds)
      .map(([name]) => name),
  ];
  return { type: event.type, ...Object.fromEntries(names.map((name) => [name, event[name]])) };
}
