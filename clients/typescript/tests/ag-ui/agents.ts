/** What the tests run: unmodified HttpAgents against the gateway, and agents of this package over its client. */
import { randomUUID } from 'node:crypto';
import { type AbstractAgent, type AgentSubscriber, type BaseEvent, HttpAgent, type Message } from '@ag-ui/client';
import { inject, vi } from 'vitest';
import { WebSocket } from 'ws';
import { AntiphonAgent } from '../../src/ag-ui/index.js';
import { CoreClient } from '../../src/core.js';
import type { WebSocketConstructor } from '../../src/options.js';

declare module 'vitest' {
  export interface ProvidedContext {
    /** The project of vitest.config.ts: which `@ag-ui/client` this is. */
    readonly agui: string;
  }
}

export const isModern = () => inject('agui') === 'ag-ui 1.0';
export const fresh = () => `s-${randomUUID()}`;
export const opened: { close(): Promise<void> }[] = [];

export function coreClient(url: string | readonly string[] = inject('url'), token = inject('token')): CoreClient {
  const client = new CoreClient({ url, token, WebSocket: WebSocket as unknown as WebSocketConstructor });
  opened.push(client);
  return client;
}

export interface Kind {
  readonly kind: string;
  make(threadId: string, url?: string, token?: string): AbstractAgent;
  /** Joins what runs now. */
  join(agent: AbstractAgent, subscriber?: AgentSubscriber): Promise<unknown>;
}

export const HTTP: Kind = {
  kind: 'HttpAgent',
  make: (threadId, url = inject('url'), token = inject('token')) =>
    new HttpAgent({ url: `${url}/v1/ag-ui`, headers: { Authorization: `Bearer ${token}` }, threadId }),
  join: (agent, subscriber) => agent.runAgent({}, subscriber),
};

export const SOCKET: Kind = {
  kind: 'AntiphonAgent',
  make: (threadId, url, token) => new AntiphonAgent({ client: coreClient(url, token), threadId }),
  join: (agent, subscriber) => agent.connectAgent({}, subscriber),
};

/** One agent, and all that comes of it. A stream that the verifier does not accept makes the run reject. */
export class Seen {
  readonly events: BaseEvent[] = [];
  readonly errors: unknown[] = [];

  constructor(readonly agent: AbstractAgent) {
    agent.subscribe({
      onEvent: ({ event }) => void this.events.push(structuredClone(event)),
      onRunFailed: ({ error }) => void this.errors.push(error),
    });
  }

  get types(): string[] {
    return this.events.map(({ type }) => type);
  }

  /** Says something, and runs until the stream ends. */
  async say(content: string, parameters: Parameters<AbstractAgent['runAgent']>[0] = {}): Promise<Message[]> {
    this.events.length = 0;
    this.agent.addMessage({ id: randomUUID(), role: 'user', content });
    return (await this.agent.runAgent(parameters)).newMessages;
  }

  async go(parameters: Parameters<AbstractAgent['runAgent']>[0] = {}): Promise<Message[]> {
    this.events.length = 0;
    return (await this.agent.runAgent(parameters)).newMessages;
  }

  get last(): BaseEvent {
    return this.events.at(-1) as BaseEvent;
  }

  get outcome(): string | undefined {
    return (this.last['outcome'] as { type?: string } | undefined)?.type;
  }

  get texts(): (readonly [string, unknown])[] {
    return this.agent.messages.map(({ role, content }) => [role, content] as const);
  }
}

/** Anything that a client removes or does not understand is told on the console. */
export function quietly(): () => void {
  const warned = vi.spyOn(console, 'warn');
  return () => {
    const said = warned.mock.calls.map((call) => String(call[0]));
    warned.mockRestore();
    const bad = said.filter((text) => /ag-ui|state patch|TOOL_CALL|MESSAGE|activity/i.test(text));
    if (bad.length) throw new Error(`the client warned: ${bad.join('; ')}`);
  };
}
