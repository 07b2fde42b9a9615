/** The field one writes in, and how what is written goes: at once, after this, in its place. */
import type { Config, Mode, Welcome } from '@antiphon/client';
import {
  type ClipboardEvent,
  type DragEvent,
  type KeyboardEvent,
  useEffect,
  useId,
  useLayoutEffect,
  useMemo,
  useRef,
  useState,
} from 'react';
import { advice } from '../advice.js';
import { Icon } from '../base/icons.js';
import { tab } from '../base/storage.js';
import { useStore } from '../base/store.js';
import { ChosenFiles, type Keeper } from '../files/chosen.js';
import { ChosenList, FileButton } from '../files/files.js';
import { CHOICES, USUAL } from './modes.js';
import { MAX_ITEMS, type Outbox } from './outbox.js';

/** Bytes of a command around its content. */
const FRAME_SPARE_BYTES = 512;
const BYTES = new TextEncoder();
const BUSY_PLACEHOLDER = 'Write a message, it steers or waits';

interface ComposerProps {
  readonly session: string;
  /** The session, for files. */
  readonly keeper: () => Keeper;
  readonly outbox: Outbox;
  readonly welcome: Welcome | null;
  /** A run is active, so that there is a choice of what becomes of a message. */
  readonly isBusy: boolean;
  readonly canInject: boolean;
  readonly maySteer: boolean;
  readonly onBusy: Config['onBusy'];
  /** This user has the conversation: what is written stands for the agent. */
  readonly isOwn: boolean;
  /** Null: there is nothing to stop, or this user may not. */
  readonly stop: (() => void) | null;
  readonly isStopping: boolean;
  readonly wrote: (isWriting: boolean) => void;
}

/** Why a text cannot be sent; null if it can. */
function problemOf(content: string, outbox: Outbox, limits: Welcome['limits'] | undefined): string | null {
  if (outbox.items.value.length >= MAX_ITEMS) return advice('command_queue_full');
  if (!limits) return null;
  const isLong =
    BYTES.encode(content).length > limits.input_bytes ||
    BYTES.encode(JSON.stringify(content)).length > limits.frame_bytes - FRAME_SPARE_BYTES;
  return isLong ? advice('content_too_large') : null;
}

export function Composer(props: ComposerProps) {
  const { isBusy, isOwn, stop, wrote } = props;
  const [mode, setMode] = useState<Mode | null>(null);
  const { files, chosen } = useFiles(props.keeper);
  // the choice stands while there is something to choose
  const { draft, problem, isReady, write, send } = useDraft(props, isBusy ? mode : null, chosen);
  const field = useRef<HTMLTextAreaElement>(null);
  const [fieldId, hintId] = [useId(), useId()];
  useGrowing(field, draft);
  const pressed = (event: KeyboardEvent) => {
    if (event.nativeEvent.isComposing) return;
    if (event.key === 'Enter' && !event.shiftKey) {
      event.preventDefault();
      send();
    } else if (event.key === 'Escape' && stop) {
      event.preventDefault();
      stop();
    }
  };
  return (
    <form
      className="composer"
      {...dropping(chosen)}
      onSubmit={(event) => {
        event.preventDefault();
        send();
        field.current?.focus();
      }}
    >
      {problem && (
        <p className="problem" role="alert">
          {problem}
        </p>
      )}
      <div className="composer-box">
        <label htmlFor={fieldId} className="unseen">
          Message
        </label>
        <textarea
          id={fieldId}
          ref={field}
          rows={1}
          value={draft}
          enterKeyHint="send"
          placeholder={isOwn ? 'Write as the agent' : isBusy ? BUSY_PLACEHOLDER : 'Write a message'}
          aria-describedby={hintId}
          onChange={(event) => write(event.target.value)}
          onKeyDown={pressed}
          onPaste={(event) => addAll(chosen, event, event.clipboardData)}
          onBlur={() => wrote(false)}
        />
        <ChosenList files={files} remove={(id) => chosen.remove(id)} />
        <Row
          {...props}
          hintId={hintId}
          mode={mode}
          choose={setMode}
          isReady={isReady}
          add={(added) => chosen.add(added)}
        />
      </div>
    </form>
  );
}

/** The files of the next message, for as long as the composer is there. */
function useFiles(keeper: () => Keeper) {
  const chosen = useMemo(() => new ChosenFiles(keeper), [keeper]);
  useEffect(() => () => chosen.end(), [chosen]);
  return { files: useStore(chosen.all), chosen };
}

/** Takes the files of what is dropped or pasted; text goes its usual way. */
function addAll(chosen: ChosenFiles, event: ClipboardEvent | DragEvent, from: DataTransfer): void {
  if (!from.files.length) return;
  event.preventDefault();
  chosen.add(from.files);
}

const dropping = (chosen: ChosenFiles) => ({
  onDragOver: (event: DragEvent) => {
    if (event.dataTransfer.types.includes('Files')) event.preventDefault();
  },
  onDrop: (event: DragEvent) => addAll(chosen, event, event.dataTransfer),
});

/** What is being written, kept for this session in this tab; and what sends it, with the files. */
function useDraft({ session, outbox, welcome, wrote }: ComposerProps, mode: Mode | null, chosen: ChosenFiles) {
  const files = useStore(chosen.all);
  const isStoring = files.some(({ stored, problem }) => !stored && !problem);
  const key = `antiphon.draft.${session}`;
  const [draft, setDraft] = useState(() => tab.get(key) ?? '');
  const [problem, setProblem] = useState<string | null>(null);
  useEffect(() => {
    tab.set(key, draft);
  }, [key, draft]);
  const write = (text: string) => {
    setDraft(text);
    setProblem(null);
    wrote(text !== '');
  };
  const isReady = !isStoring && (draft.trim() !== '' || files.some(({ stored }) => stored));
  const send = () => {
    if (!isReady) return;
    const found = problemOf(draft, outbox, welcome?.limits);
    setProblem(found);
    if (found) return;
    outbox.add(draft.trim() ? draft : '', mode, chosen.take());
    write('');
  };
  return { draft, problem, isReady, write, send };
}

interface RowProps extends ComposerProps, Omit<ModeChoiceProps, keyof ComposerProps> {
  readonly hintId: string;
  /** There is something to send. */
  readonly isReady: boolean;
  readonly add: (files: FileList) => void;
}

/** The buttons below the field. */
function Row(props: RowProps) {
  const { isBusy, hintId, stop, isStopping, isReady, add } = props;
  return (
    <div className="composer-row">
      <FileButton add={add} />
      {isBusy && <ModeChoice {...props} />}
      <span id={hintId} className="keys">
        <kbd>Enter</kbd> sends, <kbd>Shift</kbd> <kbd>Enter</kbd> starts a new line
      </span>
      {stop && (
        <button type="button" className="stop" onClick={stop} disabled={isStopping}>
          <Icon name="stop" size={18} />
          <span>Stop</span>
        </button>
      )}
      <button type="submit" className="primary send" aria-label="Send" disabled={!isReady}>
        <Icon name="send" />
      </button>
    </div>
  );
}

/** The field is as high as its text, up to what the style allows. */
function useGrowing(field: { readonly current: HTMLTextAreaElement | null }, text: string): void {
  // biome-ignore lint/correctness/useExhaustiveDependencies: the height follows from the text
  useLayoutEffect(() => {
    const node = field.current;
    if (!node) return;
    node.style.height = 'auto';
    node.style.height = `${node.scrollHeight}px`;
  }, [field, text]);
}

type ModeChoiceProps = Pick<ComposerProps, 'canInject' | 'maySteer' | 'onBusy'> & {
  readonly mode: Mode | null;
  readonly choose: (mode: Mode | null) => void;
};

function ModeChoice({ canInject, maySteer, onBusy, mode, choose }: ModeChoiceProps) {
  const id = useId();
  return (
    <span className="mode">
      <label htmlFor={id} className="unseen">
        What becomes of it while the agent works
      </label>
      <select id={id} value={mode ?? ''} onChange={(event) => choose((event.target.value || null) as Mode | null)}>
        <option value="">Usual: {USUAL[onBusy]}</option>
        {CHOICES.map(({ mode: each, label, needsSteer }) => (
          <option key={each} value={each} disabled={(each === 'inject' && !canInject) || (needsSteer && !maySteer)}>
            {label}
          </option>
        ))}
      </select>
    </span>
  );
}
