/** A dialog above the page: the browser's own, which keeps the focus inside and closes with Esc. */
import { type ReactNode, useId, useLayoutEffect, useRef } from 'react';
import { Icon } from '../base/icons.js';

interface DialogProps {
  readonly title: string;
  readonly close: () => void;
  readonly children: ReactNode;
  readonly className?: string;
}

export function Dialog({ title, close, children, className = '' }: DialogProps) {
  const node = useRef<HTMLDialogElement>(null);
  const heading = useId();
  // before the effects of what is inside, which may have something of its own to focus
  useLayoutEffect(() => {
    const dialog = node.current;
    if (dialog && !dialog.open) dialog.showModal();
    return () => dialog?.close();
  }, []);
  return (
    // a click beside it closes it; the keyboard has Esc
    // biome-ignore lint/a11y/useKeyWithClickEvents: see above
    <dialog
      ref={node}
      className={`dialog ${className}`}
      aria-labelledby={heading}
      onCancel={(event) => {
        event.preventDefault();
        close();
      }}
      onClick={(event) => event.target === node.current && close()}
    >
      <div className="dialog-inner">
        <header className="dialog-head">
          <h2 id={heading}>{title}</h2>
          <button type="button" className="icon-button" aria-label="Close" onClick={close}>
            <Icon name="close" />
          </button>
        </header>
        {children}
      </div>
    </dialog>
  );
}
