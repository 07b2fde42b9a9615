/** `useChat` in step with its session. */
import { useCallback, useEffect, useRef } from 'react';
import type { UIMessageLike } from './chunks.js';
import { type ChatHandle, type InStep, keepInStep } from './in-step.js';
import type { AntiphonChatTransport } from './transport.js';

/**
 * Shows in the chat what others do in its session, from its history on; see `keepInStep`. Beside `useChat`:
 *
 *     const chat = useChat({ id, transport, resume: true });
 *     const { stop } = useInStep(transport, chat);
 *
 * `stop` stops the run (the chat's own `stop` only ends the reading of it).
 */
export function useInStep<M extends UIMessageLike>(transport: AntiphonChatTransport, chat: ChatHandle<M>) {
  const latest = useRef(chat);
  const step = useRef<InStep>(null);
  useEffect(() => {
    latest.current = chat;
  });
  const { id, status } = chat;
  useEffect(() => {
    const inStep = keepInStep(transport, id, () => latest.current);
    step.current = inStep;
    return inStep.end;
  }, [transport, id]);
  // biome-ignore lint/correctness/useExhaustiveDependencies: it looks again whenever the status has changed
  useEffect(() => step.current?.look(), [status]);
  return { stop: useCallback(() => transport.stop(id), [transport, id]) };
}
