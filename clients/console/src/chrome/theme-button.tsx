import { Icon, type IconName } from '../base/icons.js';
import { useStore } from '../base/store.js';
import { choose, type Theme, theme } from './theme.js';

const THEMES: Readonly<Record<Theme, { readonly next: Theme; readonly icon: IconName; readonly name: string }>> = {
  system: { next: 'light', icon: 'auto', name: 'as the system' },
  light: { next: 'dark', icon: 'sun', name: 'light' },
  dark: { next: 'system', icon: 'moon', name: 'dark' },
};

/** Light, dark, as the system: the next one with each click. */
export function ThemeButton() {
  const { next, icon, name } = THEMES[useStore(theme)];
  return (
    <button type="button" className="icon-button" title={`Appearance: ${name}`} onClick={() => choose(next)}>
      <Icon name={icon} />
      <span className="tool-label">Appearance: {name}</span>
    </button>
  );
}
