/** Attachments of a session: files, which go over HTTP, beside the WebSocket (HTTP.md). */
import { AntiphonError, refusal } from './errors.js';
import type { Host } from './host.js';
import { newId } from './ids.js';
import { asObject, asString, type JsonObject, parseObject, readAll } from './json.js';
import type { Attachment } from './model.js';
import { fullJitterMs } from './reconnect.js';
import type { Abortable } from './wait.js';

export interface UploadOptions extends Abortable {
  /** That of the `File` without; a `Blob` has none. */
  readonly name?: string;
  /** The `type` of the blob without. */
  readonly mediaType?: string;
  /** One is made without: sending again with the same one is safe. */
  readonly id?: string;
}

/** Refusals after which the same is asked again. */
const PASSING: readonly unknown[] = [
  'rate_limited',
  'unavailable',
  'internal',
  'overloaded',
  'draining',
  'upload_timeout',
  'unreachable',
];

const readAttachment = (raw: JsonObject): Attachment | null =>
  typeof raw['id'] === 'string' ? (raw as unknown as Attachment) : null;

/** The part of a session that moves files. */
export class Sharing {
  constructor(
    protected readonly host: Host,
    readonly name: string,
  ) {}

  /**
   * Stores a file in the session, for `send(…, { attachments })`. One that no message refers to is not kept for long.
   * Rejects with its refusal (`media_type_refused`, `content_too_large`, `attachments_full`, …), or `unreachable`.
   */
  async upload(blob: Blob, { name, mediaType, id = newId(), signal }: UploadOptions = {}): Promise<Attachment> {
    const called = name ?? ('name' in blob ? String(blob.name) : 'attachment');
    const headers = { 'Content-Type': mediaType || blob.type || 'application/octet-stream', 'Idempotency-Key': id };
    const path = `?name=${encodeURIComponent(called)}`;
    const { session: _, duplicate: __, ...stored } = await this.#json('POST', path, { headers, body: blob, signal });
    return stored as unknown as Attachment;
  }

  /** The content of an attachment, as a Blob of its type. */
  async download(attachment: Attachment | string, { signal }: Abortable = {}): Promise<Blob> {
    const path = `/${typeof attachment === 'string' ? attachment : attachment.id}`;
    return this.#asked('GET', path, { signal }, (response) => response.blob());
  }

  /** All attachments of the session, oldest first, also those that no message refers to. */
  async attachments({ signal }: Abortable = {}): Promise<Attachment[]> {
    return readAll((await this.#json('GET', '', { signal }))['attachments'], readAttachment);
  }

  /** Deletes one that no message refers to; an admin may delete any. */
  async deleteAttachment(attachment: Attachment | string, { signal }: Abortable = {}): Promise<void> {
    await this.#json('DELETE', `/${typeof attachment === 'string' ? attachment : attachment.id}`, { signal });
  }

  #json(method: string, path: string, init: Init): Promise<JsonObject> {
    return this.#asked(method, path, init, async (response) => parseObject(await response.text()) ?? {});
  }

  /** Asks until there is an answer, or a refusal that does not pass. */
  async #asked<T>(method: string, path: string, init: Init, read: (response: Response) => Promise<T>): Promise<T> {
    const { commandRetries, backoffBaseMs, backoffCapMs } = this.host.settings;
    for (let attempt = 0; ; attempt += 1) {
      try {
        const response = await this.host.request(`/v1/sessions/${this.name}/attachments${path}`, {
          ...init,
          method,
          signal: init.signal ?? null,
        });
        if (response.ok) return await read(response);
        const problem = parseObject(await response.text()) ?? {};
        const code = asString(problem['code']) ?? `http_${response.status}`;
        throw refusal({ ...asObject(problem['data']), ...problem, code, message: problem['detail'] });
      } catch (error) {
        init.signal?.throwIfAborted();
        const known =
          error instanceof AntiphonError ? error : new AntiphonError('unreachable', (error as Error).message, true);
        if (attempt >= commandRetries || !PASSING.includes(known.code)) throw known;
        const pauseMs = known.retryAfterMs ?? fullJitterMs(attempt, Math.random(), backoffBaseMs, backoffCapMs);
        await new Promise((resolve) => setTimeout(resolve, pauseMs));
      }
    }
  }
}

type Init = { readonly headers?: Record<string, string>; readonly body?: Blob } & Abortable;
