/** Icons, drawn here: 24 by 24, in the colour of the text. They are never the only name of a button. */
import type { ReactNode } from 'react';

const PATHS = {
  send: <path d="M12 19V5m-6 6 6-6 6 6" />,
  stop: <rect x="7" y="7" width="10" height="10" rx="2" fill="currentColor" />,
  menu: <path d="M4 7h16M4 12h16M4 17h16" />,
  more: <path d="M5 12h.01M12 12h.01M19 12h.01" strokeWidth="3" />,
  close: <path d="m6 6 12 12M18 6 6 18" />,
  down: <path d="M12 5v14m-6-6 6 6 6-6" />,
  chevron: <path d="m9 6 6 6-6 6" />,
  plus: <path d="M12 5v14M5 12h14" />,
  search: <path d="M11 4a7 7 0 1 0 0 14 7 7 0 0 0 0-14Zm5 12 4 4" />,
  replay: <path d="M4 12a8 8 0 1 0 2.5-5.8M4 4v4h4m4 0v4l3 2" />,
  inspect: <path d="m8 8-4 4 4 4m8-8 4 4-4 4M13.5 5l-3 14" />,
  sun: (
    <path d="M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8Zm0-5v2m0 14v2M3 12h2m14 0h2M5.6 5.6 7 7m10 10 1.4 1.4M5.6 18.4 7 17M17 7l1.4-1.4" />
  ),
  moon: <path d="M20 14.5A8 8 0 0 1 9.5 4a8 8 0 1 0 10.5 10.5Z" />,
  auto: <path d="M12 4a8 8 0 1 0 0 16 8 8 0 0 0 0-16Zm0 0v16m0-16a8 8 0 0 1 0 16" />,
  keyboard: (
    <path d="M4 6h16a1 1 0 0 1 1 1v10a1 1 0 0 1-1 1H4a1 1 0 0 1-1-1V7a1 1 0 0 1 1-1Zm3 4h.01M11 10h.01M15 10h.01M8 14h8" />
  ),
  tool: <path d="M14.5 6.5a4 4 0 0 0-5.3 5.1L4 16.8 7.2 20l5.2-5.2a4 4 0 0 0 5.1-5.3L15 12l-3-3 2.5-2.5Z" />,
  thought: <path d="M9 18h6m-5 3h4M8 14.5A6 6 0 1 1 16 14.5c-.8.7-1 1.5-1 2.5H9c0-1-.2-1.8-1-2.5Z" />,
  copy: <path d="M9 9h10v11H9zM5 15V4h10" />,
  check: <path d="m5 13 4.5 4.5L19 7" />,
  hand: <path d="M4 12h13m-5-5 5 5-5 5M20 5v14" />,
  play: <path d="M8 5.5v13l10.5-6.5Z" fill="currentColor" />,
  pause: <path d="M8 6v12M16 6v12" />,
  next: <path d="M6 6v12l9-6Zm12 0v12" fill="currentColor" />,
  back: <path d="M18 6v12L9 12ZM6 6v12" fill="currentColor" />,
  clock: <path d="M12 4a8 8 0 1 0 0 16 8 8 0 0 0 0-16Zm0 4v4l3 2" />,
  warn: <path d="M12 4 3 19.5h18L12 4Zm0 6v4.5m0 2.5v.01" />,
  file: <path d="M7 3h7l4 4v14H7ZM14 3v4h4" />,
  attach: <path d="m8 12.5 6.2-6.2a3 3 0 0 1 4.3 4.3l-8 8a5 5 0 0 1-7-7l7.5-7.6" />,
  link: (
    <path d="M10 14a4 4 0 0 0 6 0l3-3a4 4 0 0 0-5.7-5.7L12 6.5M14 10a4 4 0 0 0-6 0l-3 3a4 4 0 0 0 5.7 5.7L12 17.5" />
  ),
} satisfies Record<string, ReactNode>;

export type IconName = keyof typeof PATHS;

export function Icon({ name, size = 20 }: { name: IconName; size?: number }) {
  return (
    <svg className="icon" width={size} height={size} viewBox="0 0 24 24" aria-hidden="true" focusable="false">
      {PATHS[name]}
    </svg>
  );
}

/** The page's own sign. */
export function Mark() {
  return (
    <svg className="mark" width="26" height="26" viewBox="0 0 24 24" aria-hidden="true" focusable="false">
      <path d="M10 4.5C5.4 5.7 3 8.4 3 12s2.4 6.3 7 7.5" />
      <path d="M14 4.5c4.6 1.2 7 3.9 7 7.5s-2.4 6.3-7 7.5" className="answer" />
    </svg>
  );
}
