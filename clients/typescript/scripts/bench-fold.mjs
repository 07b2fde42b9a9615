/**
 * How fast the fold is: 200,000 deltas of one answer, as frames that are read, checked and folded, with a view of the
 * messages for every 1,000 (a frame of the screen). Prints medians; `--chromium` measures in Chromium, too
 * (ANTIPHON_TEST_CHROMIUM, /usr/bin/chromium by default). Needs `npm run build`.
 */
import { build } from 'esbuild';

const DELTAS = 200_000;
const RUNS = 9;

/** Runs in Node and, as text, in a page. */
function measure({ Fold, readEntry }, deltas, runs) {
  const by = { kind: 'agent', id: 'w' };
  const owner = { type: 'session.owner', lane: 'main', kind: 'agent', id: 'w' };
  const frames = [
    { seq: 1, prev: 0, id: 'own', ts: 1, lane: 'main', by, events: [owner] },
    { seq: 2, prev: 1, id: '1-1', ts: 1, lane: 'main', by, events: [{ type: 'TEXT_MESSAGE_START', messageId: 'm' }] },
  ];
  for (let n = 0; n < deltas; n += 1) {
    const event = { type: 'TEXT_MESSAGE_CONTENT', messageId: 'm', delta: 'token ' };
    frames.push({ seq: n + 3, prev: n + 2, id: `1-${n + 2}`, ts: 1, lane: 'main', off: n * 6, events: [event] });
  }
  const texts = frames.map((frame) => JSON.stringify({ op: 'entry', session: 'demo', ...frame }));
  const timed = (work) => {
    const times = [];
    for (let run = 0; run < runs; run += 1) {
      const began = performance.now();
      const length = work();
      times.push(performance.now() - began);
      if (length !== deltas * 6) throw new Error(`a text of ${length}`);
    }
    return times.sort((a, b) => a - b)[runs >> 1];
  };
  const folded = (each) => () => {
    const fold = new Fold();
    let length = 0;
    for (let n = 0; n < frames.length; n += 1) {
      fold.apply(readEntry(each(n)));
      if (n % 1000 === 0) length = fold.messages.length;
    }
    return length && fold.messages[0].text.length;
  };
  return { fold: timed(folded((n) => frames[n])), parsed: timed(folded((n) => JSON.parse(texts[n]))) };
}

function report(where, { fold, parsed }) {
  const each = ((fold / DELTAS) * 1e6).toFixed(0);
  console.log(
    `${where}: ${DELTAS} deltas in ${fold.toFixed(0)} ms (${each} ns each); with JSON.parse ${parsed.toFixed(0)} ms`,
  );
}

report(`Node ${process.version}`, measure(await import('../dist/index.js'), DELTAS, RUNS));

if (process.argv.includes('--chromium')) {
  const { chromium } = await import('playwright-core');
  const entry = new URL('../dist/index.js', import.meta.url).pathname;
  const { outputFiles } = await build({
    entryPoints: [entry],
    bundle: true,
    format: 'iife',
    globalName: 'antiphon',
    write: false,
  });
  const executablePath = process.env.ANTIPHON_TEST_CHROMIUM ?? '/usr/bin/chromium';
  const browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu'] });
  const page = await browser.newPage();
  await page.addScriptTag({ content: outputFiles[0].text });
  report(`Chromium ${browser.version()}`, await page.evaluate(`(${measure})(antiphon, ${DELTAS}, ${RUNS})`));
  await browser.close();
}
