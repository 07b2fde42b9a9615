/**
 * How fast the fold is: 200,000 deltas, in one answer and in a hundred, with a view of the messages for every 1,000 (a
 * frame of the screen), whose newest text is read as a page reads it. Three figures of each, in ms:
 *
 * - `fold`: entries that were parsed before, read and folded;
 * - `parsed`: with the parsing of their JSON;
 * - `client`: all that a page's client does, from the socket's message on: parsing, chain, fold, view.
 *
 * The median of the runs, the least and the greatest; `first` is the first run of all, before anything was compiled.
 * `--chromium` measures there instead of in Node (ANTIPHON_TEST_CHROMIUM, /usr/bin/chromium by default); `--json`
 * prints JSON; `--runs N` (default 9). Needs `npm run build`.
 */
import { cpus } from 'node:os';
import { parseArgs } from 'node:util';
import { build } from 'esbuild';

const DELTAS = 200_000;
const { values: options } = parseArgs({
  options: { chromium: { type: 'boolean' }, json: { type: 'boolean' }, runs: { type: 'string', default: '9' } },
});

/** Runs in Node and, as text, in a page. */
async function measure({ AntiphonClient, Fold, readEntry }, deltas, runs) {
  const by = { kind: 'agent', id: 'w' };
  const PER_VIEW = 1000;

  /** The log of a session with so many answers. */
  function logged(answers) {
    const frames = [];
    const write = (events, more) => {
      const seq = frames.length + 1;
      const id = seq === 1 ? 'own' : `1-${seq - 1}`;
      frames.push({ op: 'entry', session: 'demo', seq, prev: seq - 1, id, ts: 1, lane: 'main', ...more, events });
    };
    write([{ type: 'session.owner', lane: 'main', kind: 'agent', id: 'w' }], { by });
    for (let answer = 0; answer < answers; answer += 1) {
      const messageId = `m${answer}`;
      write([{ type: 'TEXT_MESSAGE_START', messageId, role: 'assistant' }], { by });
      for (let n = 0; n < deltas / answers; n += 1) {
        write([{ type: 'TEXT_MESSAGE_CONTENT', messageId, delta: 'token ' }], { off: n * 6 });
      }
      write([{ type: 'TEXT_MESSAGE_END', messageId }], { by });
    }
    return frames;
  }

  /** What a page does with a view: it reads the text that is growing. */
  const look = (messages) => messages.at(-1)?.text.charCodeAt(0);
  const lengthOf = (messages) => messages.reduce((sum, { text }) => sum + text.length, 0);

  function folded(frames, each) {
    const fold = new Fold();
    for (let n = 0; n < frames.length; n += 1) {
      fold.apply(readEntry(each(n), 'e'));
      if (n % PER_VIEW === 0) look(fold.messages);
    }
    return lengthOf(fold.messages);
  }

  /** A socket that answers what opens a session, and into which the log is put by hand. */
  class Line {
    static last;

    constructor() {
      Line.last = this;
      queueMicrotask(() => this.onopen({}));
    }

    send(text) {
      const { op, id, session } = JSON.parse(text);
      if (op === 'hello') {
        const limits = { frame_bytes: 131072, input_bytes: 65536, subscriptions: 64 };
        this.say({ op: 'welcome', id, protocol: 1, user: { id: 'u' }, limits, heartbeat_ms: 25000 });
      } else if (op === 'subscribe') {
        this.say({ op: 'ok', id, session, epoch: 'e', head: 0 });
        this.say({ op: 'session.snapshot', session, asOf: 0, messagesBefore: 0, state: {} });
        this.say({ op: 'session.caught_up', session, seq: 0, cursor: 'e:0' });
      }
    }

    say(frame) {
      queueMicrotask(() => this.onmessage({ data: JSON.stringify(frame) }));
    }

    close() {}
  }

  /** A client that has the session open, and its socket. */
  async function opened() {
    const client = new AntiphonClient({ url: 'http://localhost', token: 'token', WebSocket: Line });
    const session = client.session('demo');
    session.follow();
    let end;
    await new Promise((resolve) => {
      end = session.subscribe(() => session.view.isCaughtUp && resolve());
    });
    end();
    return { client, session, line: Line.last };
  }

  async function timed(work, prepare = async () => {}, end = async () => {}) {
    const times = [];
    for (let run = 0; run < runs; run += 1) {
      const prepared = await prepare();
      const began = performance.now();
      const length = work(prepared);
      times.push(performance.now() - began);
      if (length !== deltas * 6) throw new Error(`a text of ${length}`);
      await end(prepared);
    }
    const first = times[0];
    times.sort((a, b) => a - b);
    return { median: times[runs >> 1], least: times[0], greatest: times[runs - 1], first };
  }

  const figures = {};
  for (const answers of [1, 100]) {
    const frames = logged(answers);
    const texts = frames.map((frame) => JSON.stringify(frame));
    const received = ({ session, line }) => {
      for (let n = 0; n < texts.length; n += 1) {
        line.onmessage({ data: texts[n] });
        if (n % PER_VIEW === 0) look(session.view.messages);
      }
      return lengthOf(session.view.messages);
    };
    const of = (what) => `${what}_${answers}_answer${answers > 1 ? 's' : ''}_ms`;
    figures[of('client')] = await timed(received, opened, ({ client }) => client.close());
    figures[of('parsed')] = await timed(() => folded(frames, (n) => JSON.parse(texts[n])));
    figures[of('fold')] = await timed(() => folded(frames, (n) => frames[n]));
  }
  return figures;
}

async function measureInChromium(runs) {
  const { chromium } = await import('playwright-core');
  const bundle = await build({
    entryPoints: [new URL('../dist/index.js', import.meta.url).pathname],
    bundle: true,
    format: 'iife',
    globalName: 'antiphon',
    write: false,
  });
  const executablePath = process.env.ANTIPHON_TEST_CHROMIUM ?? '/usr/bin/chromium';
  const browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu'] });
  try {
    const page = await browser.newPage();
    await page.addScriptTag({ content: bundle.outputFiles[0].text });
    const figures = await page.evaluate(`(${measure})(antiphon, ${DELTAS}, ${runs})`);
    return { where: `Chromium ${browser.version()}`, figures };
  } finally {
    await browser.close();
  }
}

async function measureHere(runs) {
  const figures = await measure(await import('../dist/index.js'), DELTAS, runs);
  return { where: `Node ${process.version}`, figures };
}

const runs = Number(options.runs);
const { where, figures } = await (options.chromium ? measureInChromium(runs) : measureHere(runs));
const machine = { cpu: cpus()[0]?.model ?? '', cores: cpus().length };
if (options.json) {
  console.log(JSON.stringify({ name: 'fold', where, deltas: DELTAS, runs, figures, machine }, null, 2));
} else {
  console.log(`fold: ${DELTAS} deltas in ${where}, median of ${runs} runs (least to greatest; the first)`);
  for (const [name, { median, least, greatest, first }] of Object.entries(figures)) {
    const [a, b, c, d] = [median, least, greatest, first].map((ms) => ms.toFixed(0));
    console.log(`  ${name.padEnd(24)} ${a.padStart(6)} (${b} to ${c}; ${d})`);
  }
}
