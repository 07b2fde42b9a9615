/** The shared conversations of a client with a gateway: tests/conformance/cases/connection, whose README says what steps mean. */
import { readdirSync, readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { AntiphonClient, type AntiphonError, type SessionEvent } from '../../src/index.js';
import type { JsonObject } from '../../src/json.js';
import { type Frame, Network, type Peer } from '../support/network.js';

interface Step {
  readonly accept?: { readonly token: string; readonly welcome?: JsonObject };
  readonly welcome?: JsonObject;
  readonly not_before_ms?: number;
  readonly expect?: JsonObject & { readonly op: string };
  readonly reply?: JsonObject;
  readonly refuse?: JsonObject & { readonly code: string };
  readonly send?: readonly JsonObject[];
  readonly do?: { readonly send: { readonly inputId: string; readonly content: string } };
  readonly close?: { readonly code: number; readonly reason: JsonObject };
  readonly cut?: true;
}

interface Case {
  readonly name: string;
  readonly cursor?: string;
  readonly tokens?: readonly string[];
  readonly steps: readonly Step[];
  readonly events: readonly string[];
  readonly results?: { readonly [inputId: string]: string };
  readonly error?: string;
  readonly end?: string;
}

const CASES = new URL('../../../../tests/conformance/cases/connection/', import.meta.url);
const names = readdirSync(CASES).filter((name) => name.endsWith('.json'));
const cases: Case[] = names.map((name) => JSON.parse(readFileSync(new URL(name, CASES), 'utf8')));

test('there are cases', () => {
  expect(cases.length).toBeGreaterThanOrEqual(30);
});

function said(event: SessionEvent): string {
  switch (event.type) {
    case 'snapshot':
      return `snapshot ${event.asOf}`;
    case 'entry':
      return `entry ${event.seq}`;
    case 'caught_up':
      return `caught_up ${event.seq}`;
    case 'gap':
      return `gap ${event.from} ${event.to}`;
    case 'reset':
      return `reset ${event.reason}`;
  }
}

/** Plays a case; notes what the program sees. */
class Conversation {
  readonly network = new Network();
  readonly events: string[] = [];
  readonly results: Record<string, string> = {};
  error: string | undefined;
  readonly client: AntiphonClient;
  #peer: Peer | null = null;
  #asked: Frame = {};
  #endedAt = Number.NEGATIVE_INFINITY;

  constructor(readonly script: Case) {
    const tokens = script.tokens?.values();
    const token = tokens ? () => tokens.next().value ?? Promise.reject(new Error('no more tokens')) : 't1';
    this.client = new AntiphonClient({
      url: 'http://gateway',
      token,
      WebSocket: this.network.WebSocket,
      random: () => 0,
    });
  }

  get session() {
    return this.client.session('demo');
  }

  async read(): Promise<void> {
    const session = this.client.session('demo', { cursor: this.script.cursor });
    try {
      for await (const event of session.events()) this.events.push(said(event));
    } catch (error) {
      this.error = (error as AntiphonError).code;
    }
  }

  async step(step: Step): Promise<void> {
    if (step.accept) this.#peer = await this.#accept(step.accept, step);
    const peer = this.#peer as Peer;
    if (step.expect) this.#asked = await peer.expect(step.expect.op, step.expect);
    if (step.reply) peer.ok(this.#asked, step.reply);
    if (step.refuse && !step.accept) peer.error(this.#asked, step.refuse.code, step.refuse);
    if (step.send) peer.send(...step.send);
    if (step.do) void this.#send(step.do.send.inputId, step.do.send.content);
    if (step.close || step.cut) this.#endedAt = performance.now();
    if (step.close) peer.close(step.close.code, step.close.reason);
    if (step.cut) peer.cut();
  }

  async #accept({ token, welcome = {} }: NonNullable<Step['accept']>, step: Step): Promise<Peer> {
    const peer = await this.network.accept();
    expect(performance.now() - this.#endedAt).toBeGreaterThanOrEqual(step.not_before_ms ?? 0);
    if (step.refuse) peer.error(await peer.expect('hello', { token }), step.refuse.code, step.refuse);
    else await peer.welcome(token, { ...welcome, ...step.welcome });
    return peer;
  }

  async #send(inputId: string, content: string): Promise<void> {
    try {
      await this.session.send(content, { inputId });
      this.results[inputId] = 'stored';
    } catch (error) {
      this.results[inputId] = (error as AntiphonError).code;
    }
  }
}

test.each(cases)('$name', async (script) => {
  const talk = new Conversation(script);
  const reading = talk.read();
  for (const step of script.steps) await talk.step(step);
  await expect
    .poll(() => ({ events: talk.events, results: talk.results, error: talk.error }))
    .toEqual({ events: script.events, results: script.results ?? {}, error: script.end ?? script.error });
  expect(talk.client.status.phase).toBe(script.end ? 'stopped' : 'open');
  expect(talk.network.peers.length).toBe(script.steps.filter((step) => step.accept).length);
  expect(talk.network.peers.every((peer) => peer.isQuiet)).toBe(true);
  await talk.client.close();
  await reading;
});
