/** Parts of the page in a DOM: what is typed and clicked, and what comes of it. */
import {
  AntiphonError,
  type Approval,
  type Attachment,
  type Input,
  type Scheduled,
  type Welcome,
} from '@antiphon/client';
import { act, cleanup, fireEvent, render, screen, within } from '@testing-library/react';
import type { ComponentProps } from 'react';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { healthOf } from '../src/chrome/connection.js';
import { Composer } from '../src/composer/composer.js';
import { Outbox } from '../src/composer/outbox.js';
import { Later, Queue } from '../src/composer/queue.js';
import { ToolCall } from '../src/transcript/tool.js';
import { ApprovalCard } from '../src/waits/cards.js';

beforeEach(() => sessionStorage.clear());
afterEach(cleanup);

const LIMITS = { frame_bytes: 2000, input_bytes: 1000, subscriptions: 1, commands_per_second: 1, commands_burst: 1 };

const attachmentOf = ({ name, size }: File): Attachment => ({
  id: `att-${name}`,
  name,
  mediaType: 'text/plain',
  size,
  sha256: '0'.repeat(64),
});

describe('the composer', () => {
  const upload = vi.fn(async (blob: Blob) => attachmentOf(blob as File));
  const keeper = () => ({ upload });
  beforeEach(() => {
    upload.mockReset();
    upload.mockImplementation(async (blob) => attachmentOf(blob as File));
  });

  function composer(more: Partial<ComponentProps<typeof Composer>> = {}) {
    const outbox = new Outbox('demo', 'user-1');
    const written: string[] = [];
    outbox.use({
      send: (content: string, { mode, attachments }: { mode?: string; attachments?: readonly Attachment[] }) => {
        const files = attachments?.map(({ name }) => ` [${name}]`).join('') ?? '';
        written.push(`${content}${files}${mode ? ` (${mode})` : ''}`);
        return new Promise(() => {});
      },
    } as unknown as Parameters<Outbox['use']>[0]);
    const view = render(
      <Composer
        session="demo"
        keeper={keeper}
        outbox={outbox}
        welcome={{ limits: LIMITS } as Welcome}
        isBusy={false}
        canInject={false}
        maySteer
        onBusy="auto"
        isOwn={false}
        stop={null}
        isStopping={false}
        wrote={() => {}}
        {...more}
      />,
    );
    const field = () => screen.getByRole<HTMLTextAreaElement>('textbox', { name: 'Message' });
    return { outbox, written, field, ...view };
  }

  const type = (field: HTMLElement, value: string) => fireEvent.change(field, { target: { value } });

  test('Enter sends, Shift+Enter and an unfinished composition do not', () => {
    const { field, written } = composer();
    type(field(), 'hello');
    fireEvent.keyDown(field(), { key: 'Enter', shiftKey: true });
    fireEvent.keyDown(field(), { key: 'Enter', isComposing: true });
    expect(written).toEqual([]);
    fireEvent.keyDown(field(), { key: 'Enter' });
    expect(written).toEqual(['hello']);
    expect(field().value).toBe('');
  });

  test('spaces alone are not sent, by the button neither', () => {
    const { field, written } = composer();
    expect(screen.getByRole<HTMLButtonElement>('button', { name: 'Send' }).disabled).toBe(true);
    type(field(), '  \n ');
    fireEvent.keyDown(field(), { key: 'Enter' });
    expect(written).toEqual([]);
    type(field(), ' x ');
    fireEvent.click(screen.getByRole('button', { name: 'Send' }));
    expect(written).toEqual([' x ']);
  });

  test.each([
    ['too long', 'a'.repeat(1001)],
    ['too long in bytes', 'é'.repeat(501)],
    ['too long as JSON', '\u0001'.repeat(300)],
  ])('what is %s stays, with the reason', (_why, text) => {
    const { field, written } = composer();
    type(field(), text);
    fireEvent.keyDown(field(), { key: 'Enter' });
    expect(written).toEqual([]);
    expect(field().value).toBe(text);
    expect(screen.getByRole('alert').textContent).toContain('too long');
  });

  test('while a run is active there is a choice, of what this agent and this user can do', () => {
    const { field, written } = composer({ isBusy: true });
    const choice = screen.getByRole<HTMLSelectElement>('combobox');
    const disabled = [...choice.options].filter((option) => option.disabled).map(({ value }) => value);
    expect(disabled).toEqual(['inject']);
    fireEvent.change(choice, { target: { value: 'interrupt' } });
    type(field(), 'stop that');
    fireEvent.keyDown(field(), { key: 'Enter' });
    expect(written).toEqual(['stop that (interrupt)']);
  });

  test('Esc stops what runs', () => {
    const stop = vi.fn();
    const { field } = composer({ isBusy: true, stop });
    fireEvent.keyDown(field(), { key: 'Escape' });
    fireEvent.click(screen.getByRole('button', { name: 'Stop' }));
    expect(stop).toHaveBeenCalledTimes(2);
  });

  const choose = (container: HTMLElement, ...names: string[]) => {
    const input = container.querySelector('input[type=file]') as HTMLInputElement;
    const files = names.map((name) => new File(['content'], name, { type: 'text/plain' }));
    fireEvent.change(input, { target: { files } });
  };
  const sendButton = () => screen.getByRole<HTMLButtonElement>('button', { name: 'Send' });

  test('files are stored when they are chosen, and go with the message, which needs no text', async () => {
    const { container, written } = composer();
    choose(container, 'a.txt', 'b.txt');
    expect(sendButton().disabled, 'nothing is stored yet').toBe(true);
    await screen.findAllByText('7 B');
    fireEvent.click(screen.getByRole('button', { name: 'Leave out a.txt' }));
    fireEvent.click(sendButton());
    expect(written).toEqual([' [b.txt]']);
    expect(screen.queryByRole('list', { name: 'Files to send' })).toBeNull();
  });

  test('a file that is refused says why, and stays behind', async () => {
    upload.mockRejectedValueOnce(new AntiphonError('content_too_large', 'content_too_large: 9 of 8 bytes', false));
    const { container, field, written } = composer();
    choose(container, 'big.bin');
    expect((await screen.findByRole('alert')).textContent).toBe('This file is too large.');
    type(field(), 'without it');
    fireEvent.click(sendButton());
    expect(written).toEqual(['without it']);
    expect(screen.getByText('big.bin')).toBeTruthy();
  });

  test('files that are pasted or dropped are taken, and text is left alone', async () => {
    const { container, field } = composer();
    const files = [new File(['x'], 'shot.png', { type: 'image/png' })];
    expect(fireEvent.paste(field(), { clipboardData: { files: [], types: ['text/plain'] } })).toBe(true);
    expect(fireEvent.paste(field(), { clipboardData: { files } })).toBe(false);
    const form = container.querySelector('form') as HTMLFormElement;
    expect(fireEvent.drop(form, { dataTransfer: { files, types: ['Files'] } })).toBe(false);
    expect(await screen.findAllByText('1 B')).toHaveLength(2);
  });

  test('a file that is left out while it is on its way is not stored any more', () => {
    let asked: AbortSignal | undefined;
    upload.mockImplementation((_blob: Blob, options?: { signal?: AbortSignal }) => {
      asked = options?.signal;
      return new Promise(() => {});
    });
    const { container } = composer();
    choose(container, 'slow.txt');
    expect(sendButton().disabled).toBe(true);
    fireEvent.click(screen.getByRole('button', { name: 'Leave out slow.txt' }));
    expect(asked?.aborted).toBe(true);
  });

  test('a draft survives a reload', () => {
    const first = composer();
    type(first.field(), 'half a thought');
    first.unmount();
    expect(composer().field().value).toBe('half a thought');
  });
});

describe('an approval', () => {
  const approval: Approval = {
    approvalId: 'apr_1',
    kind: 'approval',
    lane: 'main',
    runId: 'r',
    message: 'Delete 3 files?',
    options: ['allow_once', 'reject_once'],
    default: null,
    expiresAt: null,
    toolCallId: null,
    key: null,
    roles: [],
    quorum: 1,
    responseSchema: null,
    details: null,
    votes: [],
  };
  const card = (more: Partial<ComponentProps<typeof ApprovalCard>> = {}) => {
    const respond = vi.fn();
    const usual = { approval, args: null, from: '', user: 'user-1', barred: null, error: '', respond };
    render(<ApprovalCard {...usual} {...more} />);
    // not by the role alone: `details` have it, too
    const group = document.querySelector<HTMLElement>('[role=group]') as HTMLElement;
    return { respond, node: group, group: within(group) };
  };

  test('has a button for each option', () => {
    const { respond, node, group } = card();
    expect(node.dataset['approval']).toBe('apr_1');
    fireEvent.click(group.getByRole('button', { name: 'Reject' }));
    expect(respond).toHaveBeenCalledWith('reject_once');
  });

  test('goes on with edited arguments, and without any if they were left alone', () => {
    const schema = { type: 'object', properties: { files: {} } };
    const { respond, group } = card({ approval: { ...approval, responseSchema: schema }, args: { files: ['a'] } });
    fireEvent.click(group.getByRole('button', { name: 'Allow' }));
    expect(respond).toHaveBeenLastCalledWith('allow_once', undefined);
    fireEvent.change(group.getByLabelText('Arguments to go on with'), { target: { value: '{"files": []}' } });
    fireEvent.click(group.getByRole('button', { name: 'Allow' }));
    expect(respond).toHaveBeenLastCalledWith('allow_once', { files: [] });
    fireEvent.change(group.getByLabelText('Arguments to go on with'), { target: { value: '{' } });
    fireEvent.click(group.getByRole('button', { name: 'Allow' }));
    expect(respond).toHaveBeenCalledTimes(2);
    expect(group.getByRole('alert').textContent).toBe('This must be JSON.');
  });

  test('who has voted, or may not, cannot', () => {
    const votes = [{ by: { kind: 'user', id: 'user-1', name: 'A user' }, option: 'allow_once' }];
    const { group } = card({ approval: { ...approval, quorum: 2, votes } });
    expect(group.getByText(/1 of 2 have decided \(A user: Allow\)/)).toBeTruthy();
    for (const button of group.getAllByRole<HTMLButtonElement>('button')) expect(button.disabled).toBe(true);
    cleanup();
    card({ barred: 'Somebody else decides.' });
    for (const button of screen.getAllByRole<HTMLButtonElement>('button')) expect(button.disabled).toBe(true);
    expect(screen.getByText('Somebody else decides.')).toBeTruthy();
  });

  test('a question takes an answer', () => {
    const question = {
      ...approval,
      kind: 'question',
      options: ['answer', 'decline'],
      responseSchema: { type: 'number' },
    };
    const { respond, group } = card({ approval: question });
    fireEvent.change(group.getByLabelText('Your answer'), { target: { value: '42' } });
    fireEvent.click(group.getByRole('button', { name: 'Answer' }));
    expect(respond).toHaveBeenCalledWith('answer', 42);
  });
});

describe('the queue', () => {
  const input = (inputId: string, user: string): Input => ({
    inputId,
    seq: 1,
    ts: 1,
    by: { kind: 'user', id: user },
    content: `of ${user}`,
    mode: 'enqueue',
    lane: 'main',
    parent: null,
  });
  const shown = (more: Partial<ComponentProps<typeof Queue>> = {}) => {
    const outbox = new Outbox('demo', 'user-1');
    const takeBack = vi.fn();
    const usual = { queue: [], outbox, user: 'user-1', isOnline: true, isAdmin: false, takeBack, errors: new Map() };
    render(<Queue {...usual} {...more} />);
    return { outbox, takeBack };
  };

  test('is nothing while nothing waits', () => {
    shown();
    expect(screen.queryByRole('list')).toBeNull();
  });

  test('one’s own may be taken back, those of others by an admin', () => {
    const queue = [input('a', 'user-1'), input('b', 'user-2')];
    const { takeBack } = shown({ queue });
    const list = within(screen.getByRole('list', { name: 'Queue' }));
    expect(list.getAllByRole('listitem').map((item) => item.dataset['input'])).toEqual(['a', 'b']);
    fireEvent.click(list.getByRole('button', { name: 'Take back' }));
    expect(takeBack).toHaveBeenCalledWith('a');
    cleanup();
    shown({ queue, isAdmin: true });
    expect(screen.getAllByRole('button', { name: 'Take back' })).toHaveLength(2);
  });

  test('what is on its way says why it waits; in the log it is there once', () => {
    const { outbox } = shown({ isOnline: false, queue: [input('x', 'user-2')] });
    act(() => outbox.add('written offline', null));
    expect(screen.getByText('waits for the connection')).toBeTruthy();
    const [{ inputId } = { inputId: '' }] = outbox.items.value;
    cleanup();
    shown({ outbox, queue: [input(inputId, 'user-1')] });
    expect(screen.getAllByRole('listitem')).toHaveLength(1);
  });
});

describe('what is sent later', () => {
  const at = Date.UTC(2030, 0, 2, 9, 30);
  const planned = (inputId: string, kind: string, id: string): Scheduled => ({
    inputId,
    seq: 1,
    ts: 1,
    by: { kind, id, name: id },
    content: `of ${id}`,
    at,
    mode: null,
  });
  const scheduled = [planned('a', 'user', 'user-1'), planned('b', 'user', 'user-2'), planned('c', 'agent', 'echo')];
  const shown = (more: Partial<ComponentProps<typeof Later>> = {}) => {
    const takeBack = vi.fn();
    const usual = { scheduled, user: 'user-1', isOnline: true, isAdmin: false, maySend: true, takeBack };
    render(<Later {...usual} errors={new Map([['b', 'too late']])} {...more} />);
    return { takeBack };
  };

  test('has its time, and is taken back', () => {
    const { takeBack } = shown();
    const items = within(screen.getByRole('list', { name: 'Scheduled' })).getAllByRole('listitem');
    expect(items.map((item) => item.dataset['input'])).toEqual(['a', 'b', 'c']);
    expect(items[0]?.querySelector('time')?.dateTime).toBe('2030-01-02T09:30:00.000Z');
    expect(items[0]?.querySelector('time')?.textContent).toBeTruthy();
    expect(screen.getByText('too late')).toBeTruthy();
    // their own, and what an agent has scheduled
    const buttons = screen.getAllByRole('button', { name: 'Take back' });
    expect(buttons).toHaveLength(2);
    for (const button of buttons) fireEvent.click(button);
    expect(takeBack.mock.calls).toEqual([['a'], ['c']]);
  });

  test.each([
    [{ isAdmin: true }, 3],
    [{ maySend: false }, 1],
    [{ isOnline: false }, 0],
  ])('who may take it back: %o', (more, count) => {
    shown(more);
    expect(screen.queryAllByRole('button', { name: 'Take back' })).toHaveLength(count);
  });

  test('is nothing while nothing is scheduled', () => {
    shown({ scheduled: [] });
    expect(screen.queryByRole('list')).toBeNull();
  });
});

test('a call says who executes it, and how it ended', () => {
  const message = {
    id: 'c',
    role: 'tool_call',
    by: null,
    lane: 'main',
    run: 'r',
    text: '{"a":1}',
    status: 'done' as const,
    reason: 'complete',
    name: 'look',
  };
  const row = { key: 'c', kind: 'tool' as const, message, result: null, isFirst: true };
  const call = { executor: 'client', claim: null, participant: 'user-2' } as Parameters<typeof ToolCall>[0]['call'];
  const state = () => screen.getByText('look').closest('details')?.dataset['state'];
  const { rerender } = render(<ToolCall row={row} call={call} note={null} />);
  expect(state()).toBe('waiting');
  expect(screen.getByText('waits for user-2 to execute it')).toBeTruthy();
  rerender(<ToolCall row={row} call={null} note={{ end: 'deadline', by: null }} />);
  expect(state()).toBe('failed');
  expect(screen.getByText('not finished in time')).toBeTruthy();
  rerender(<ToolCall row={{ ...row, result: { ...message, text: '{"hits":3}' } }} call={null} note={null} />);
  expect(state()).toBe('done');
  expect(screen.getByText(/"hits": 3/)).toBeTruthy();
});

test('how the connection is doing', () => {
  const status = { phase: 'open' as const, retryAt: null, isLogAway: false, error: null };
  expect(healthOf(status, true, false)).toBe('online');
  expect(healthOf(status, false, false)).toBe('catching-up');
  expect(healthOf({ ...status, isLogAway: true }, true, false)).toBe('log-away');
  expect(healthOf(status, false, true)).toBe('refused');
  expect(healthOf({ ...status, phase: 'waiting' }, true, false)).toBe('offline');
  expect(healthOf({ ...status, phase: 'idle' }, false, false)).toBe('connecting');
  expect(healthOf({ ...status, phase: 'stopped' }, true, true)).toBe('stopped');
});
