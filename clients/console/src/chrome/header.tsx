/** The bar above a session: what it is called, what it does, who is there, and the tools. */
import type { Participant, Status } from '@antiphon/client';
import { useCallback, useRef, useState } from 'react';
import { Icon, type IconName } from '../base/icons.js';
import { useClosing } from '../base/outside.js';
import { People } from '../people/people.js';
import { ConnectionSign, type Health } from './connection.js';
import { ThemeButton } from './theme-button.js';

/** What is opened by the buttons of the bar. */
export interface Tools {
  readonly isReplaying: boolean;
  readonly isInspecting: boolean;
  readonly openSessions: () => void;
  readonly openHelp: () => void;
  readonly toggleReplay: () => void;
  readonly toggleInspector: () => void;
}

interface HeaderProps extends Tools {
  readonly title: string;
  readonly status: string;
  readonly statusKind: Status;
  readonly health: Health;
  readonly people: readonly Participant[];
  readonly user: string | null;
  /** Takes the conversation unasked; null if this user may not. */
  readonly takeOver: (() => void) | null;
}

export function Header(props: HeaderProps) {
  const { title, status, statusKind, health, people, user } = props;
  return (
    <header className="bar">
      <button type="button" className="icon-button menu" aria-label="Show sessions" onClick={props.openSessions}>
        <Icon name="menu" />
      </button>
      <div className="heading">
        <h1>{title}</h1>
        <p className="status" role="status" data-status={statusKind}>
          {status}
        </p>
      </div>
      <ConnectionSign health={health} />
      <People people={people} user={user} />
      <ToolBar {...props} />
    </header>
  );
}

/** A row of buttons; on a phone, a menu of them. */
function ToolBar({ takeOver, isReplaying, isInspecting, toggleReplay, toggleInspector, openHelp }: HeaderProps) {
  const [isOpen, setOpen] = useState(false);
  const place = useRef<HTMLDivElement>(null);
  const close = useCallback(() => setOpen(false), []);
  useClosing(isOpen, place, close);
  const closing = (act: () => void) => () => {
    close();
    act();
  };
  return (
    <div className="tools" ref={place}>
      <button
        type="button"
        className="icon-button more-tools"
        aria-label="More"
        aria-expanded={isOpen}
        onClick={() => setOpen(!isOpen)}
      >
        <Icon name="more" />
      </button>
      <div className={isOpen ? 'tool-list open' : 'tool-list'}>
        {takeOver && (
          <button type="button" className="plain take-over" onClick={closing(takeOver)}>
            <Icon name="hand" size={18} />
            Take over
          </button>
        )}
        <ToolButton icon="replay" name="Replay" hint="R" isPressed={isReplaying} act={closing(toggleReplay)} />
        <ToolButton icon="inspect" name="Inspector" hint="I" isPressed={isInspecting} act={closing(toggleInspector)} />
        <ThemeButton />
        <ToolButton icon="keyboard" name="Keys" hint="?" act={closing(openHelp)} />
      </div>
    </div>
  );
}

interface ToolButtonProps {
  readonly icon: IconName;
  readonly name: string;
  readonly hint: string;
  readonly isPressed?: boolean;
  readonly act: () => void;
}

function ToolButton({ icon, name, hint, isPressed, act }: ToolButtonProps) {
  return (
    <button type="button" className="icon-button" title={`${name} (${hint})`} aria-pressed={isPressed} onClick={act}>
      <Icon name={icon} />
      <span className="tool-label">{name}</span>
    </button>
  );
}
