// Runs in each page before anything else. Keeps every text that each message has shown, and complains (`watched.faults`)
// if one ever shrinks, changes, or is there twice. A replay goes back on purpose. White space does not count: what is far
// from the window is not laid out, and has the line breaks of its source.
(() => {
  const texts = new Map();
  const faults = [];
  const tight = (text) => text.replace(/\s+/g, '');

  function look() {
    const seen = new Set();
    for (const article of document.querySelectorAll('[role=log] [data-message]')) {
      if (article.closest('[data-replay]')) continue;
      const id = article.dataset.message;
      if (seen.has(id)) faults.push(`${id} is there twice`);
      seen.add(id);
      const text = tight([...article.querySelectorAll('[data-part=text]')].map((part) => part.textContent).join(''));
      const steps = texts.get(id) ?? [];
      const before = steps.at(-1);
      if (before === text) continue;
      if (before !== undefined && !text.startsWith(before)) faults.push(`${id} was "${before}" and is "${text}"`);
      steps.push(text);
      texts.set(id, steps);
    }
  }

  new MutationObserver(look).observe(document, { childList: true, subtree: true, characterData: true });
  window.watched = { texts, faults };
  window.cspViolations = [];
  document.addEventListener('securitypolicyviolation', (event) => window.cspViolations.push(event.violatedDirective));
})();
