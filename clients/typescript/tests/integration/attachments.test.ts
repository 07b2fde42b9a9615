/** Attachments against a real gateway: in, in a message, out again, and refused. */
import { randomUUID } from 'node:crypto';
import { afterEach, expect, inject, test } from 'vitest';
import { WebSocket } from 'ws';
import { AntiphonClient, type WebSocketConstructor } from '../../src/index.js';

const opened: AntiphonClient[] = [];

function client(token: string | (() => string) = inject('token')): AntiphonClient {
  const made = new AntiphonClient({
    url: inject('url'),
    token,
    WebSocket: WebSocket as unknown as WebSocketConstructor,
  });
  opened.push(made);
  return made;
}

afterEach(async () => {
  await Promise.all(opened.splice(0).map((each) => each.close()));
});

const fresh = () => `s-${randomUUID()}`;

test('a file goes up, into a message, and comes down', async () => {
  const session = client(() => inject('token')).session(fresh());
  const text = 'name,price\nchair,40\n'.repeat(20_000);
  const file = new File([text], 'Preise für Stühle.csv', { type: 'text/csv' });
  const stored = await session.upload(file, { id: 'prices' });
  expect(stored).toMatchObject({
    id: 'prices',
    name: 'Preise für Stühle.csv',
    mediaType: 'text/csv',
    size: text.length,
  });
  expect((await session.upload(file, { id: 'prices' })).sha256).toBe(stored.sha256);
  const receipt = await session.send('', { attachments: [stored] });
  await receipt.finished();
  const [message] = session.messages;
  const { id, name, mediaType, size, sha256 } = stored;
  expect(message?.attachments).toEqual([{ id, name, mediaType, size, sha256 }]);
  const blob = await client()
    .session(session.name)
    .download(message?.attachments?.[0] ?? '');
  expect([blob.type, await blob.text()]).toEqual(['text/csv;charset=utf-8', text]);
  expect(await session.attachments()).toMatchObject([{ id: 'prices' }]);
});

test('what may not be there is refused, by its code', async () => {
  const session = client().session(fresh());
  const page = new Blob(['<html>'], { type: 'text/html' });
  await expect(session.upload(page)).rejects.toMatchObject({ code: 'media_type_refused' });
  await expect(session.download('none')).rejects.toMatchObject({ code: 'attachment_not_found' });
  await expect(session.send('look', { attachments: ['none'] })).rejects.toMatchObject({ code: 'attachment_not_found' });
  const loose = await session.upload(new Blob(['x'], { type: 'text/plain' }), { name: 'x.txt' });
  const reader = client(inject('people')['reader'] ?? '').session(session.name);
  await expect(reader.deleteAttachment(loose)).rejects.toMatchObject({ code: 'not_allowed' });
  await session.deleteAttachment(loose);
  expect(await session.attachments()).toEqual([]);
  await expect(session.upload(new Blob(['x']), { signal: AbortSignal.abort() })).rejects.toThrow();
  await expect(() => session.send('')).rejects.toThrow(RangeError);
});
