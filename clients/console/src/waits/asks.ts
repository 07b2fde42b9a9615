/** The one tool that this page executes, if the link says so: it puts a question to who sits before the browser. */
import type { Execution, JsonObject, Tool } from '@antiphon/client';
import { Store } from '../base/store.js';

export interface Ask {
  readonly toolCallId: string;
  readonly question: string;
  readonly answer: (text: string) => void;
  readonly decline: () => void;
}

/** The questions that stand here. */
export const asks = new Store<readonly Ask[]>([]);

function execute(args: JsonObject, { toolCallId, signal }: Execution): Promise<JsonObject> {
  return new Promise<JsonObject>((resolve, reject) => {
    const gone = () => asks.set(asks.value.filter((ask) => ask.toolCallId !== toolCallId));
    const end = (how: () => void) => {
      signal.removeEventListener('abort', over);
      gone();
      how();
    };
    const over = () => end(() => reject(signal.reason));
    if (signal.aborted) return over();
    signal.addEventListener('abort', over);
    const ask: Ask = {
      toolCallId,
      question: String(args['question'] ?? ''),
      answer: (text) => end(() => resolve({ answer: text })),
      decline: () => end(() => reject(new Error('The person declined to answer.'))),
    };
    asks.set([...asks.value, ask]);
  });
}

export const TOOLS: readonly Tool[] = [
  {
    name: 'ask_browser',
    description: 'Asks the person before the browser, and gives their answer back',
    parameters: { type: 'object', properties: { question: { type: 'string' } }, required: ['question'] },
    result: { type: 'object', properties: { answer: { type: 'string' } }, required: ['answer'] },
    execute,
  },
];

export const NO_TOOLS: readonly Tool[] = [];
