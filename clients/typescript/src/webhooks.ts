/**
 * For who receives webhooks of Antiphon: is a request genuine, and what does it say? Stands alone, on WebCrypto: for Node,
 * workers at the edge, Deno and Bun.
 *
 * The format is that of Standard Webhooks 1.0, so any library for it does as well.
 */
import { AntiphonError } from './errors.js';
import { asObject, asString, type JsonObject, parseObject } from './json.js';

/**
 * A request that is not to be believed: answer 400. `code` says why: `headers_missing`, `timestamp_invalid`,
 * `timestamp_too_old` and `timestamp_too_new` (a replay, or a clock that is wrong), `signature_invalid` (somebody else sent
 * it, or another body), `body_invalid` (it is signed, and is no event).
 */
export class WebhookInvalid extends AntiphonError {
  override readonly name = 'WebhookInvalid';
}

/** What happened. `id` is the same each time that this is sent; `timestamp` is when it happened (RFC 3339). */
export interface Webhook {
  readonly id: string;
  readonly type: string;
  readonly timestamp: string;
  readonly data: JsonObject;
}

/** Of the Fetch API, of Node (`request.headers`), or a plain object. */
export type WebhookHeaders = Headers | Readonly<Record<string, string | readonly string[] | undefined>>;

export interface VerifyOptions {
  /** Seconds by which the clocks of sender and receiver may differ, travel included: 300. */
  readonly toleranceS?: number;
  /** Milliseconds since 1970; the clock's. */
  readonly now?: number;
}

const PREFIX = 'whsec_';
const VERSION = 'v1,';
const encoder = new TextEncoder();

/**
 * What a request says, if one of the secrets (`whsec_…`) has signed it. `body` must be as it came: parsed and written
 * again, it is another one. Rejects with WebhookInvalid, and with a TypeError for a secret that is none.
 */
export async function verify(
  headers: WebhookHeaders,
  body: string | Uint8Array,
  secret: string | readonly string[],
  { toleranceS = 300, now = Date.now() }: VerifyOptions = {},
): Promise<Webhook> {
  const id = header(headers, 'webhook-id');
  const stamp = header(headers, 'webhook-timestamp');
  const signatures = header(headers, 'webhook-signature');
  if (!id || !stamp || !signatures) {
    throw new WebhookInvalid('headers_missing', 'webhook-id, webhook-timestamp and webhook-signature are needed');
  }
  checkTime(stamp, toleranceS, now / 1000);
  const raw = typeof body === 'string' ? encoder.encode(body) : body;
  const signed = joined(encoder.encode(`${id}.${stamp}.`), raw);
  const secrets = typeof secret === 'string' ? [secret] : secret;
  const keys = await Promise.all(secrets.map(keyOf));
  const given = signatures
    .split(' ')
    .filter((part) => part.startsWith(VERSION))
    .map((part) => decoded(part.slice(VERSION.length)))
    .filter((bytes) => bytes !== null);
  for (const key of keys) {
    for (const signature of given) {
      if (await crypto.subtle.verify('HMAC', key, signature, signed)) return webhook(id, raw);
    }
  }
  throw new WebhookInvalid('signature_invalid', 'no signature is by one of the secrets');
}

function header(headers: WebhookHeaders, name: string): string {
  if (typeof Headers !== 'undefined' && headers instanceof Headers) return headers.get(name) ?? '';
  for (const [key, value] of Object.entries(headers)) {
    if (key.toLowerCase() === name) return typeof value === 'string' ? value : (value?.[0] ?? '');
  }
  return '';
}

function checkTime(stamp: string, toleranceS: number, now: number): void {
  if (!/^[0-9]{1,15}$/.test(stamp)) {
    throw new WebhookInvalid('timestamp_invalid', 'webhook-timestamp must be seconds since 1970');
  }
  if (Number(stamp) < now - toleranceS) {
    throw new WebhookInvalid('timestamp_too_old', 'the request was signed too long ago');
  }
  if (Number(stamp) > now + toleranceS) {
    throw new WebhookInvalid('timestamp_too_new', 'the request was signed in the future');
  }
}

async function keyOf(secret: string): Promise<CryptoKey> {
  const bytes = decoded(secret.startsWith(PREFIX) ? secret.slice(PREFIX.length) : secret);
  if (bytes === null || bytes.length === 0) throw new TypeError(`a secret must be ${PREFIX} and Base64`);
  return crypto.subtle.importKey('raw', bytes, { name: 'HMAC', hash: 'SHA-256' }, false, ['verify']);
}

/** The bytes of Base64; null for what is none. */
function decoded(base64: string): Uint8Array<ArrayBuffer> | null {
  try {
    const binary = atob(base64);
    const bytes = new Uint8Array(binary.length);
    for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
    return bytes;
  } catch {
    return null;
  }
}

function joined(first: Uint8Array, second: Uint8Array): Uint8Array<ArrayBuffer> {
  const all = new Uint8Array(first.length + second.length);
  all.set(first);
  all.set(second, first.length);
  return all;
}

function webhook(id: string, raw: Uint8Array): Webhook {
  const event = parseObject(utf8(raw));
  const [type, timestamp, data] = [
    asString(event?.['type']),
    asString(event?.['timestamp']),
    asObject(event?.['data']),
  ];
  if (type !== null && timestamp !== null && data !== null) return { id, type, timestamp, data };
  throw new WebhookInvalid('body_invalid', 'the body is no event: {type, timestamp, data}');
}

/** The text that the bytes are; null if they are none. */
function utf8(bytes: Uint8Array): string | null {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    return null;
  }
}
