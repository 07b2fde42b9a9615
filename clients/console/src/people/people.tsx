/** Who is there: avatars, what each is doing, and on which devices. */
import type { Participant } from '@antiphon/client';
import { useCallback, useRef, useState } from 'react';
import { useClosing } from '../base/outside.js';
import { nameOf } from '../base/words.js';
import { Avatar } from './avatar.js';

const MAX_SHOWN = 5;

interface PeopleProps {
  readonly people: readonly Participant[];
  readonly user: string | null;
}

export function People({ people, user }: PeopleProps) {
  const [isOpen, setOpen] = useState(false);
  const place = useRef<HTMLDivElement>(null);
  const close = useCallback(() => setOpen(false), []);
  useClosing(isOpen, place, close);
  if (!people.length) return null;
  return (
    <div className="people" ref={place}>
      <ul className="faces" role="list" aria-label="People">
        {people.map((person, at) => (
          <li
            key={person.id}
            data-person={person.id}
            data-state={person.state}
            data-devices={person.devices.length}
            className={at < MAX_SHOWN ? undefined : 'unseen'}
            title={describe(person, user)}
          >
            <Avatar name={nameOf(person)} state={person.state} />
            <span className="unseen">{describe(person, user)}</span>
          </li>
        ))}
      </ul>
      <button type="button" className="quiet people-button" aria-expanded={isOpen} onClick={() => setOpen(!isOpen)}>
        {people.length} <span className="wide">here</span>
        <span className="unseen">: show who</span>
      </button>
      {isOpen && (
        <section className="popover" aria-label="Who is here">
          <h2>Who is here</h2>
          {people.map((person) => (
            <div key={person.id} className="person">
              <Avatar name={nameOf(person)} state={person.state} />
              <div>
                <p>
                  {nameOf(person)}
                  {person.id === user && <span className="tag">you</span>}
                </p>
                <p className="hint">
                  {person.state}
                  {person.roles.length > 0 && `, ${person.roles.join(', ')}`}
                </p>
                <ul className="devices">
                  {person.devices.map(({ device, state, tools }) => (
                    <li key={device}>
                      {deviceName(device)}: {state}
                      {tools.length > 0 && `, can execute ${tools.join(', ')}`}
                    </li>
                  ))}
                </ul>
              </div>
            </div>
          ))}
        </section>
      )}
    </div>
  );
}

function deviceName(device: string): string {
  return device.length > 16 ? `${device.slice(0, 12)}…` : device;
}

function describe(person: Participant, user: string | null): string {
  const { devices, state } = person;
  const tools = [...new Set(devices.flatMap((device) => device.tools))];
  return [
    `${nameOf(person)}${person.id === user ? ' (you)' : ''}, ${state}`,
    ...(devices.length > 1 ? [`on ${devices.length} devices`] : []),
    ...(tools.length ? [`can execute ${tools.join(', ')}`] : []),
  ].join(', ');
}

/** Who is writing just now, besides this user. */
export function Typing({ people, user }: PeopleProps) {
  const typing = people.filter(({ id, state }) => id !== user && state === 'typing').map(nameOf);
  if (!typing.length) return null;
  const who = typing.length > 2 ? `${typing.length} people` : typing.join(' and ');
  return (
    <p className="typing">
      {who} {typing.length > 1 ? 'are' : 'is'} typing
    </p>
  );
}
