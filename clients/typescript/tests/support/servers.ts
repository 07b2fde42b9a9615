/** Real gateways, workers and a nats-server, started by the repository's own test support (tests/support/served.py). */
import { type ChildProcess, spawn } from 'node:child_process';
import { createServer, connect as dial, type Server, type Socket } from 'node:net';
import { createInterface, type Interface } from 'node:readline';

export interface Started {
  readonly number: number;
  readonly url: string;
}

const REPOSITORY = new URL('../../../../', import.meta.url).pathname;

/** Needs the repository's `.venv` (`make env`). */
export class Servers {
  readonly #process: ChildProcess;
  readonly #lines: AsyncIterator<string>;
  #last: Promise<unknown> = Promise.resolve();

  constructor(pools: readonly string[] = ['default', 'picking', 'approving', 'desk']) {
    const command = ['-m', 'tests.support.served', ...pools];
    this.#process = spawn(`${REPOSITORY}.venv/bin/python`, command, {
      cwd: REPOSITORY,
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    const lines: Interface = createInterface({ input: this.#process.stdout as NodeJS.ReadableStream });
    this.#lines = lines[Symbol.asyncIterator]();
  }

  /** One command after another. */
  ask<T = Record<string, never>>(command: Record<string, unknown>): Promise<T> {
    const answer = this.#last.then(async () => {
      this.#process.stdin?.write(`${JSON.stringify(command)}\n`);
      const line = await this.#lines.next();
      if (line.done) throw new Error(`the servers have ended at ${JSON.stringify(command)}`);
      return JSON.parse(line.value) as T;
    });
    this.#last = answer.catch(() => {});
    return answer;
  }

  gateway(env: Record<string, string> = {}): Promise<Started> {
    return this.ask({ gateway: env });
  }

  worker(agent = 'echo', pool = 'default'): Promise<Started> {
    return this.ask({ worker: agent, pool });
  }

  /** Several at once: gateways, and workers of these agents with their pools. */
  async start(gateways: number, workers: readonly (readonly [agent: string, pool: string])[]): Promise<Started[]> {
    const commands = [...Array(gateways).fill({ gateway: {} }), ...workers.map(([worker, pool]) => ({ worker, pool }))];
    return (await this.ask<{ started: Started[] }>({ start: commands })).started;
  }

  async terminate(started: Started): Promise<void> {
    await this.ask({ terminate: started.number });
  }

  async kill(started: Started): Promise<void> {
    await this.ask({ kill: started.number });
  }

  async token(claims: Record<string, unknown> = {}, ttlS = 3600): Promise<string> {
    return (await this.ask<{ token: string }>({ token: claims, ttl_s: ttlS })).token;
  }

  async output(started: Started): Promise<string> {
    return (await this.ask<{ text: string }>({ output: started.number })).text;
  }

  async end(): Promise<void> {
    const gone = new Promise((resolve) => this.#process.once('exit', resolve));
    this.#process.stdin?.end();
    await gone;
  }
}

/** A TCP proxy before gateways, that can be cut at any byte, and stopped as if the network were gone. */
export class Line {
  cuts = 0;
  /** Bytes to the client after which the present connections are cut; infinite: never. */
  cutAfter = Number.POSITIVE_INFINITY;
  readonly #server: Server;
  readonly #pairs = new Set<Socket>();
  #isGone = false;
  #passed = 0;
  #next = 0;

  constructor(readonly targets: readonly Started[]) {
    this.#server = createServer({ noDelay: true }, (socket) => this.#accept(socket));
  }

  async listen(): Promise<string> {
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve));
    const address = this.#server.address();
    return `http://127.0.0.1:${typeof address === 'object' ? address?.port : address}`;
  }

  #accept(socket: Socket): void {
    this.#pairs.add(socket);
    socket.on('close', () => this.#pairs.delete(socket)).on('error', () => {});
    if (this.#isGone) return; // a packet that nobody answers
    const target = new URL(this.targets[this.#next++ % this.targets.length]?.url ?? '');
    const back = dial({ host: target.hostname, port: Number(target.port), noDelay: true });
    this.#pairs.add(back);
    back.on('close', () => {
      this.#pairs.delete(back);
      if (!this.#isGone) socket.destroy();
    });
    back.on('error', () => {});
    socket.on('close', () => back.destroy());
    socket.on('data', (data) => this.#isGone || back.write(data));
    back.on('data', (data) => {
      if (this.#isGone) return;
      this.#passed += data.length;
      if (this.#passed < this.cutAfter) {
        socket.write(data);
        return;
      }
      const rest = this.cutAfter - (this.#passed - data.length);
      socket.write(data.subarray(0, Math.max(0, rest)), () => this.cut());
    });
  }

  /** Resets every connection there is. */
  cut(): void {
    this.cuts += 1;
    this.#passed = 0;
    this.cutAfter = Number.POSITIVE_INFINITY;
    for (const socket of [...this.#pairs]) socket.resetAndDestroy();
  }

  /** Nothing comes through any more, and nobody is told; or it does again, for new connections. */
  set isGone(isGone: boolean) {
    this.#isGone = isGone;
  }

  close(): void {
    this.cut();
    this.#server.close();
  }
}
