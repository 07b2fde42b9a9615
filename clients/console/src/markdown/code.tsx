import { useEffect, useState } from 'react';
import { Icon } from '../base/icons.js';

const SHOWN_MS = 2000;

interface CopyButtonProps {
  readonly text: () => string;
  readonly label?: string;
  /** The label is only said. */
  readonly isIcon?: boolean;
}

/** A button that copies, and says that it has. */
export function CopyButton({ text, label = 'Copy', isIcon = false }: CopyButtonProps) {
  const [hasCopied, setCopied] = useState(false);
  useEffect(() => {
    if (!hasCopied) return;
    const timer = setTimeout(() => setCopied(false), SHOWN_MS);
    return () => clearTimeout(timer);
  }, [hasCopied]);
  if (!navigator.clipboard) return null; // not a secure context
  return (
    <button
      type="button"
      className="quiet copy"
      onClick={() =>
        navigator.clipboard.writeText(text()).then(
          () => setCopied(true),
          () => setCopied(false),
        )
      }
    >
      <Icon name={hasCopied ? 'check' : 'copy'} size={16} />
      <span className={isIcon ? 'unseen' : undefined}>{hasCopied ? 'Copied' : label}</span>
    </button>
  );
}

export function CodeBlock({ text, language }: { text: string; language: string }) {
  const name = language.split(/\s/)[0] ?? '';
  return (
    <figure className="code">
      <figcaption>
        <span>{name}</span>
        <CopyButton text={() => text} />
      </figcaption>
      {/* it scrolls sideways: reachable by keyboard */}
      <pre tabIndex={0}>
        <code>{text}</code>
      </pre>
    </figure>
  );
}
