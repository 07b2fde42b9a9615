import { Mark } from '../base/icons.js';
import { hueOf, initials } from '../base/words.js';

const HUES = 12;

/** The sign of a person or an agent; beside it stands the name, or it is said. */
export function Avatar({ name, isAgent = false, state }: { name: string; isAgent?: boolean; state?: string }) {
  const hue = Math.floor((hueOf(name) / 360) * HUES);
  return (
    <span className={isAgent ? 'avatar agent' : `avatar hue-${hue}`} data-state={state} aria-hidden="true">
      {isAgent ? <Mark /> : initials(name)}
    </span>
  );
}
