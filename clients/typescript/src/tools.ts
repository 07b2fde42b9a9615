/** Tools that this client executes for agents (PROTOCOL, section 7), as a program declares them. */
import type { JsonObject } from './json.js';

const MAX_TOOLS = 64;
const MAX_DECLARATION_BYTES = 65_536;

/** One call, as `execute` gets it beside the arguments. */
export interface Execution {
  readonly toolCallId: string;
  readonly runId: string;
  /** In ms since 1970 by the clock of the agent's worker; null without one. */
  readonly deadline: number | null;
  /** The call is over before `execute` has returned: its result would not count. */
  readonly signal: AbortSignal;
  /** Shows everybody in the session how far it has come. */
  progress(value: unknown): Promise<void>;
}

/** A tool whose calls are answered by hand: `Session.resolveCall`. */
export type DeclaredTool = Omit<Tool, 'execute'>;

export interface Tool {
  /** 1 to 64 of `A–Z a–z 0–9 _ . -`. */
  readonly name: string;
  readonly description?: string;
  /** JSON Schemas (2020-12); the gateway checks arguments and results against them. */
  readonly parameters?: JsonObject;
  readonly result?: JsonObject;
  /** Only of what may be executed twice: a call of which the client is lost in the middle is then offered again. */
  readonly idempotent?: boolean;
  /** The agent asks for an approval first. */
  readonly needsPermission?: boolean;
  /** Returns the result, as JSON. What it throws is the call's error: its text goes to the agent. */
  execute(args: JsonObject, execution: Execution): unknown;
}

/** What a subscription says of tools. Throws a RangeError for what may not be declared. */
export function declared(tools: readonly (Tool | DeclaredTool)[]): readonly JsonObject[] {
  const said = tools.map((each) => {
    const { execute: _, ...tool } = each as Tool;
    return {
      description: '',
      parameters: { type: 'object' },
      idempotent: false,
      needsPermission: false,
      ...tool,
    };
  });
  const names = new Set(tools.map(({ name }) => name));
  const isGood = [...names].every((name) => /^[\w.-]{1,64}$/.test(name));
  if (!isGood || names.size < tools.length) throw new RangeError('tools have names of their own, of A–Z a–z 0–9 _ . -');
  const size = new TextEncoder().encode(JSON.stringify({ tools: said })).length;
  if (names.size > MAX_TOOLS || size > MAX_DECLARATION_BYTES) {
    throw new RangeError(`at most ${MAX_TOOLS} tools in ${MAX_DECLARATION_BYTES} bytes`);
  }
  return said;
}
