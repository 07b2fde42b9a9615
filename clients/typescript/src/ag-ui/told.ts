/** What the reader of a stream has of the session's messages, and the snapshots that tell it the rest. */
import type { Message } from '../model.js';
import { inPlace, lacks, olderThan, type Reader, resultsOf, type Shown, shownId, snapshot } from './messages.js';
import type { Stream } from './stream.js';

/** Of one stream. Says its snapshots, and knows when one is due. */
export class Told {
  readonly #stream: Stream;
  /** Messages that the application has, whole. */
  readonly #known = new Set<string>();
  /** What a snapshot must hold beside the log's messages, before and after. */
  #own: readonly Shown[] = [];
  #fresh: readonly Shown[] = [];
  /** What the application has from before what is known here. */
  #before: readonly Shown[] = [];
  /** Messages have been told whose attachments have not: only a snapshot can tell of those. */
  #filesDue = false;

  constructor(
    public reader: Reader,
    stream: Stream,
  ) {
    this.#stream = stream;
  }

  has(message: Message): boolean {
    return this.#known.has(shownId(message));
  }

  lacks(client: readonly Shown[], shown: readonly Shown[]): boolean {
    return lacks(client, shown, this.reader.session);
  }

  /** The application has these messages, and is about to send the `fresh` ones. */
  expect(client: readonly Shown[], fresh: readonly Shown[]): void {
    this.reader = { ...this.reader, results: resultsOf(client) };
    this.#own = client;
    this.#fresh = fresh;
    this.noteAll(client);
  }

  /** Snapshots, if the application lacks something of what is shown, or has it otherwise. */
  begin(shown: readonly Shown[]): void {
    if (this.lacks(this.#own, shown)) this.show(shown, this.#own);
    else this.#before = olderThan(this.#own, shown);
  }

  note(message: Message): void {
    this.#known.add(shownId(message));
  }

  noteAll(shown: readonly Shown[]): void {
    for (const { id } of shown) this.#known.add(id);
  }

  /** A snapshot; two, if `client` is what the application has, and one alone would leave it in another order. */
  show(shown: readonly Shown[], client: readonly Shown[] = []): void {
    this.noteAll(shown);
    this.#filesDue = false;
    const there = new Set(shown.map(({ id }) => id));
    const isElsewhere = ({ id }: Shown) => !there.has(id);
    const whole = [...this.#before.filter(isElsewhere), ...shown];
    const messages = snapshot(this.#own, whole, this.#fresh.filter(isElsewhere));
    const left = inPlace(client, messages);
    if (left) this.#stream.say({ type: 'MESSAGES_SNAPSHOT', messages: left });
    this.#stream.say({ type: 'MESSAGES_SNAPSHOT', messages });
  }

  /** Tells of attachments that are due, when all else is told: the messages then are as they are shown. */
  tellFiles(shown: () => readonly Shown[]): void {
    if (this.#filesDue) this.show(shown());
  }

  /** What is attached to a message that the application has just been told of. */
  noteFiles({ role, attachments }: Message): void {
    if (attachments?.length && (role === 'user' || this.reader.isModern)) this.#filesDue = true;
  }
}
