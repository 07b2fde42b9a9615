/** When people see what has been folded: gateways ask for it now and then, for their operators (PROTOCOL, section 3). */

/** Calls `then` after the next frame of the screen, and not at all while nobody looks; at once where there is no screen. */
export function onceShown(then: () => void): void {
  const { document, requestAnimationFrame } = globalThis as {
    document?: Document;
    requestAnimationFrame?: typeof globalThis.requestAnimationFrame;
  };
  if (!document || !requestAnimationFrame) then();
  // what listeners draw in that frame is on the screen once it is over
  else if (document.visibilityState !== 'hidden') requestAnimationFrame(() => setTimeout(then));
}
