/** The transport and its helpers have the types of version 6. Nothing of it is run. */
import { Chat, useChat } from '@ai-sdk/react';
import type { ChatTransport, UIMessage } from 'ai';
import { AntiphonChatTransport, AntiphonClient, keepInStep, useInStep } from '../support/ai-sdk.js';

type Mine = UIMessage<{ runId: string; cursor?: string }, { run: { status: string } }>;

export const transport: ChatTransport<UIMessage> = new AntiphonChatTransport({
  client: new AntiphonClient({ token: '' }),
});

export function Page({ mine }: { mine: AntiphonChatTransport }) {
  const chat = useChat<Mine>({ id: 'demo', transport: mine, resume: true });
  const { stop } = useInStep(mine, chat);
  keepInStep(mine, 'demo', () => chat);
  void stop();
  return new Chat<UIMessage>({ transport: mine }).id;
}

export const messages = (mine: AntiphonChatTransport): Promise<UIMessage[]> => mine.messages<UIMessage>('demo');
