/** Files as they are shown: those of a message, which can be fetched, and those that are chosen for the next one. */
import type { Attachment } from '@antiphon/client';
import { createContext, useContext, useRef, useState } from 'react';
import { adviceOn } from '../advice.js';
import { Icon } from '../base/icons.js';
import { bytes } from '../base/words.js';
import type { ChosenFile } from './chosen.js';

/** Fetches the content of an attachment of the session that is shown. */
export const Fetching = createContext<((attachment: Attachment) => Promise<Blob>) | null>(null);

export function MessageFiles({ attachments }: { attachments: readonly Attachment[] }) {
  return (
    <ul className="files" aria-label="Attachments">
      {attachments.map((attachment) => (
        <MessageFile key={attachment.id} attachment={attachment} />
      ))}
    </ul>
  );
}

function MessageFile({ attachment }: { attachment: Attachment }) {
  const fetchIt = useContext(Fetching);
  const [isFetching, setFetching] = useState(false);
  const [problem, setProblem] = useState('');
  const { id, name, size } = attachment;
  const save = async () => {
    if (!fetchIt) return;
    setFetching(true);
    setProblem('');
    try {
      offer(await fetchIt(attachment), name);
    } catch (error) {
      setProblem(adviceOn(error));
    } finally {
      setFetching(false);
    }
  };
  return (
    <li data-attachment={id}>
      <button type="button" className="file" disabled={!fetchIt || isFetching} onClick={() => void save()}>
        <Icon name="file" size={18} />
        <span className="name">{name}</span>
        <span className="size">{isFetching ? 'fetching' : bytes(size)}</span>
        <span className="unseen">Save it</span>
      </button>
      {problem && (
        <p className="problem" role="alert">
          {problem}
        </p>
      )}
    </li>
  );
}

/** Has the browser save it; what is in it is never shown as a page. */
function offer(content: Blob, name: string): void {
  const address = URL.createObjectURL(content);
  const link = document.createElement('a');
  link.href = address;
  link.download = name;
  link.click();
  // the browser has taken it by the next turn
  setTimeout(() => URL.revokeObjectURL(address), 0);
}

interface ChosenListProps {
  readonly files: readonly ChosenFile[];
  readonly remove: (id: string) => void;
}

export function ChosenList({ files, remove }: ChosenListProps) {
  if (!files.length) return null;
  return (
    <ul className="files" aria-label="Files to send">
      {files.map(({ id, name, size, stored, problem }) => (
        <li key={id} data-file={id} data-state={problem ? 'refused' : stored ? 'stored' : 'storing'}>
          <span className="file">
            <Icon name={problem ? 'warn' : 'file'} size={18} />
            <span className="name">{name}</span>
            <span className="size">{stored || problem ? bytes(size) : 'uploading'}</span>
            <button type="button" className="quiet" aria-label={`Leave out ${name}`} onClick={() => remove(id)}>
              <Icon name="close" size={16} />
            </button>
          </span>
          {problem && (
            <p className="problem" role="alert">
              {problem}
            </p>
          )}
        </li>
      ))}
    </ul>
  );
}

/** Lets a user choose files. */
export function FileButton({ add }: { add: (files: FileList) => void }) {
  const input = useRef<HTMLInputElement>(null);
  return (
    <>
      <input
        ref={input}
        type="file"
        multiple
        hidden
        onChange={({ target }) => {
          if (target.files) add(target.files);
          target.value = ''; // the same file may be chosen again
        }}
      />
      <button type="button" className="icon-button" aria-label="Attach files" onClick={() => input.current?.click()}>
        <Icon name="attach" />
      </button>
    </>
  );
}
