/** An agent of AG-UI (`@ag-ui/client`, which an application brings along with `rxjs`) over a client of sessions. */
import { AbstractAgent, type AgentConfig, type BaseEvent, type RunAgentInput } from '@ag-ui/client';
import { Observable } from 'rxjs';
import type { CoreClient } from '../core-client.js';
import type { Asked } from './request.js';
import { Running } from './running.js';

export interface AntiphonAgentConfig extends AgentConfig {
  /** Of this agent and its clones alone: a session can be read once on a connection. Close it when they are done. */
  readonly client: CoreClient;
  /** The user's roles, as the token has them: what only others may decide is waited for, and is no interrupt. */
  readonly roles?: readonly string[];
}

/**
 * A session as an agent: `threadId` is its name. Works with `@ag-ui/client` from 0.0.59 to 1.x, and speaks the version
 * that its runs ask for.
 *
 * `runAgent` sends what the session does not have of the messages, and streams until the run is over or waits for the
 * page. `connectAgent` joins what runs now, and brings the messages. `abortRun` stops the session's run, for everybody;
 * to be gone (`detachActiveRun`, a closed page) stops nothing.
 */
export class AntiphonAgent extends AbstractAgent {
  // what clones need is no #private: they are made without a constructor
  protected client: CoreClient;
  protected roles: readonly string[];
  protected running: Running | null = null;
  protected left: { last: Promise<unknown> } = { last: Promise.resolve() };

  constructor({ client, roles = [], ...config }: AntiphonAgentConfig) {
    super(config);
    this.client = client;
    this.roles = roles;
  }

  override run(input: RunAgentInput): Observable<BaseEvent> {
    return this.streamed(input, false);
  }

  protected override connect(input: RunAgentInput): Observable<BaseEvent> {
    return this.streamed(input, true);
  }

  override abortRun(): void {
    this.running?.cancel();
  }

  override clone(): this {
    const clone = super.clone() as this;
    clone.client = this.client;
    clone.roles = this.roles;
    clone.left = this.left;
    clone.running = null;
    return clone;
  }

  protected streamed(input: RunAgentInput, onlyJoins: boolean): Observable<BaseEvent> {
    const { client, roles, left } = this;
    return new Observable<BaseEvent>((reader) => {
      const emit = (event: object) => reader.next(event as BaseEvent);
      const running = new Running(input as Asked, { client, roles, onlyJoins }, emit);
      this.running = running;
      // the one before has closed the session first
      const done = left.last.then(() => running.run());
      left.last = done.catch(() => {});
      done.then(
        () => reader.complete(),
        (error: unknown) => reader.error(error),
      );
      return () => running.leave();
    });
  }
}
