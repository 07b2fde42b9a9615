// All messages of the transcript, as a person finds them who scrolls from its beginning to its end. Those out of view may
// not be in the DOM; those before the first one may have to be loaded. `first` is the id of the first one to expect.
async (first) => {
  const log = document.querySelector('[role=log]');
  const flat = (text) => text.replace(/\s+/g, ' ').trim();
  const frame = () => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
  const isScroller = (node) => /auto|scroll/.test(getComputedStyle(node).overflowY);
  let scroller = log;
  while (!isScroller(scroller) && scroller.parentElement) scroller = scroller.parentElement;
  const before = scroller.scrollTop;
  const isFollowing = scroller.scrollHeight - before - scroller.clientHeight < 4;

  const top = (node) => node.getBoundingClientRect().top;
  const here = () => [...log.querySelectorAll('article[data-message]')];
  const end = performance.now() + 20000;
  while (first !== null && !here().some((article) => article.dataset.message === first)) {
    if (performance.now() > end) throw new Error(`the message ${first} never came`);
    scroller.scrollTop = 0;
    await frame();
  }
  scroller.scrollTop = 0;
  await frame();
  const found = new Map();
  for (let at = -1; scroller.scrollTop !== at; ) {
    at = scroller.scrollTop;
    const articles = here();
    articles.forEach((article, n) => {
      if (n && top(article) < top(articles[n - 1])) throw new Error('the DOM has another order than the screen');
    });
    const ids = articles.map((article) => article.dataset.message);
    const known = [...found.keys()];
    const places = ids.map((id) => (found.has(id) ? known.indexOf(id) : Number.POSITIVE_INFINITY));
    places.forEach((place, n) => {
      if (n && place < places[n - 1]) throw new Error(`the order changes while scrolling: ${ids}`);
    });
    for (const article of articles) {
      const { message: id, role, status } = article.dataset;
      const text = flat([...article.querySelectorAll('[data-part=text]')].map((part) => part.textContent).join(' '));
      found.set(id, { id, role, status, text });
    }
    scroller.scrollTop += Math.max(scroller.clientHeight / 2, 40);
    await frame();
  }
  scroller.scrollTop = isFollowing ? scroller.scrollHeight : before;
  await frame();
  return [...found.values()];
}
