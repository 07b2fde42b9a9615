/** Whether a webhook is genuine, held to the reference implementation of Standard Webhooks in both directions. */
import { Webhook } from 'standardwebhooks';
import { expect, test } from 'vitest';
import { type VerifyOptions, verify, WebhookInvalid } from '../../src/webhooks.js';

const SECRET = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw';
const OTHER = 'whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD';
const NOW = 1_614_265_330_000;
const ID = 'msg_p5jXN8AQM9LWM0D4loKWxJek';
const BODY = JSON.stringify({
  type: 'run.finished',
  timestamp: '2026-01-02T03:04:05Z',
  data: { session: 's', text: 'ß😀' },
});

/** Headers by the reference implementation. */
function signed(body: string, secret = SECRET, now = NOW) {
  const signature = new Webhook(secret).sign(ID, new Date(now), body);
  return { 'webhook-id': ID, 'webhook-timestamp': String(now / 1000), 'webhook-signature': signature };
}

async function refused(headers: Record<string, string>, body = BODY, options: VerifyOptions = { now: NOW }) {
  const error = await verify(headers, body, SECRET, options).catch((caught: unknown) => caught);
  expect(error).toBeInstanceOf(WebhookInvalid);
  return (error as WebhookInvalid).code;
}

test('the published vector', async () => {
  const body = '{"test": 2432232314}';
  expect(signed(body)['webhook-signature']).toBe('v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=');
  // it is signed as it must be, and only then seen to be no event of ours
  expect(await refused(signed(body), body)).toBe('body_invalid');
});

test('what is genuine is read, whatever the headers come as', async () => {
  const headers = signed(BODY);
  const capital = Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toUpperCase(), [value]]));
  for (const given of [headers, capital, new Headers(headers)]) {
    for (const body of [BODY, new TextEncoder().encode(BODY)]) {
      expect(await verify(given, body, SECRET, { now: NOW })).toEqual({
        id: ID,
        type: 'run.finished',
        timestamp: '2026-01-02T03:04:05Z',
        data: { session: 's', text: 'ß😀' },
      });
    }
  }
});

test('two secrets while one takes the place of the other', async () => {
  const old = signed(BODY, OTHER);
  const both = {
    ...old,
    'webhook-signature': `v1a,xyz ${old['webhook-signature']} ${signed(BODY)['webhook-signature']}`,
  };
  expect((await verify(both, BODY, SECRET, { now: NOW })).id).toBe(ID);
  expect((await verify(old, BODY, [SECRET, OTHER], { now: NOW })).id).toBe(ID);
  expect(await refused(old)).toBe('signature_invalid');
});

test('what is not genuine is refused, and why', async () => {
  const headers = signed(BODY);
  for (const name of Object.keys(headers)) expect(await refused({ ...headers, [name]: '' })).toBe('headers_missing');
  expect(await refused(headers, `${BODY} `)).toBe('signature_invalid');
  expect(await refused({ ...headers, 'webhook-id': 'msg_2' })).toBe('signature_invalid');
  expect(await refused({ ...headers, 'webhook-signature': 'v1,not base64' })).toBe('signature_invalid');
  expect(await refused({ ...headers, 'webhook-signature': 'v1' })).toBe('signature_invalid');
  expect(await refused({ ...headers, 'webhook-timestamp': '1e9' })).toBe('timestamp_invalid');
  expect(await refused(headers, BODY, { now: NOW + 301_000 })).toBe('timestamp_too_old');
  expect(await refused(headers, BODY, { now: NOW - 301_000 })).toBe('timestamp_too_new');
  expect((await verify(headers, BODY, SECRET, { now: NOW + 301_000, toleranceS: 400 })).id).toBe(ID);
});

test('a secret that is none is a mistake of the program', async () => {
  for (const secret of ['', 'whsec_', 'whsec_%%%']) {
    await expect(verify(signed(BODY), BODY, secret, { now: NOW })).rejects.toThrow(TypeError);
  }
});

test('both implementations agree', async () => {
  for (let n = 1; n <= 64; n++) {
    const key = crypto.getRandomValues(new Uint8Array(n));
    const secret = `whsec_${btoa(String.fromCharCode(...key))}`;
    const now = Math.floor(Date.now() / 1000) * 1000;
    const body = JSON.stringify({ type: 't', timestamp: 'now', data: { n, text: '\u0000ü\ud83d\ude00'.repeat(n) } });
    const headers = signed(body, secret, now);
    expect((await verify(headers, body, secret)).data).toEqual(
      (new Webhook(secret).verify(body, headers) as { data: object }).data,
    );
  }
});
