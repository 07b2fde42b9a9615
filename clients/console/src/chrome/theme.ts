/** Light, dark, or as the system says. */
import { browser } from '../base/storage.js';
import { Store } from '../base/store.js';

export type Theme = 'system' | 'light' | 'dark';

const KEY = 'antiphon.theme';
const isTheme = (text: string | null): text is Theme => text === 'light' || text === 'dark' || text === 'system';

const kept = browser.get(KEY);
export const theme = new Store<Theme>(isTheme(kept) ? kept : 'system');

export function choose(next: Theme): void {
  browser.set(KEY, next);
  theme.set(next);
  applyTheme();
}

export function applyTheme(): void {
  document.documentElement.dataset['theme'] = theme.value;
}
