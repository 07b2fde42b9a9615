/** The machine alone, with times that no clock gives: what has happened goes in, what is to be done comes out. */
import { beforeEach, expect, test } from 'vitest';
import type { Action } from '../../src/actions.js';
import { ConnectionClosed } from '../../src/errors.js';
import { Machine } from '../../src/machine.js';
import { DEFAULT_SETTINGS } from '../../src/settings.js';
import { Subscription } from '../../src/subscription.js';

let machine: Machine;

beforeEach(() => {
  machine = new Machine({
    urls: ['ws://one', 'ws://two'],
    token: 't1',
    isRenewable: false,
    client: 'test',
    device: 'd',
    settings: DEFAULT_SETTINGS,
    rand: () => 0.5,
    skewMs: 0,
  });
});

/** What is to be done, with what is sent as JSON. */
const todo = (now: number) =>
  machine
    .take(now)
    .filter((action) => action.do !== 'changed')
    .map((action) => (action.do === 'send' ? JSON.parse(action.text) : action));

function opened(now: number): void {
  machine.start(now);
  machine.opened();
  machine.frame('{"op":"welcome","id":1,"heartbeat_ms":10000}', now);
  machine.take(now);
}

test('from the first wish to the welcome', () => {
  expect(machine.dueAt(0)).toBe(Number.POSITIVE_INFINITY);
  machine.start(100);
  expect(todo(100)).toEqual([{ do: 'open', url: 'ws://one' }]);
  expect(machine.dueAt(100)).toBe(10_100);
  machine.opened();
  expect(todo(200)).toEqual([{ op: 'hello', id: 1, token: 't1', client: 'test', device: 'd' }]);
  machine.frame('{"op":"welcome","id":1,"heartbeat_ms":10000}', 300);
  expect(machine.phase).toBe('open');
  expect(machine.dueAt(300)).toBe(10_300);
});

test('an attempt that takes too long is given up, and the next one goes elsewhere', () => {
  machine.start(0);
  machine.take(0);
  machine.tick(9999);
  expect(todo(9999)).toEqual([]);
  machine.tick(10_000);
  expect(todo(10_000)).toEqual([{ do: 'drop' }]);
  expect(machine).toMatchObject({ phase: 'waiting', retryAt: 10_125 });
  machine.tick(10_125);
  expect(todo(10_125)).toEqual([{ do: 'open', url: 'ws://two' }]);
});

test('silence: asked after one heartbeat, left after two', () => {
  opened(0);
  machine.tick(10_000);
  expect(todo(10_000)).toEqual([{ op: 'ping', id: 2 }]);
  expect(machine.dueAt(10_000)).toBe(20_000);
  machine.tick(20_000);
  expect(todo(20_000)).toEqual([{ do: 'drop' }]);
});

test('a call that comes much too late is no proof of silence: it is asked first, and has time to answer', () => {
  opened(0);
  machine.tick(3_600_000);
  expect(todo(3_600_000)).toEqual([{ op: 'ping', id: 2 }]);
  expect(machine.dueAt(3_600_000)).toBe(3_604_000);
  machine.frame('{"op":"pong","id":2,"ts":1}', 3_603_000);
  machine.tick(3_604_000);
  expect(todo(3_604_000)).toEqual([]);
  // also when it was being asked as the sleep began
  machine.tick(3_613_000);
  todo(3_613_000);
  machine.tick(9_000_000);
  expect(todo(9_000_000)).toEqual([{ op: 'ping', id: 4 }]);
  machine.tick(9_004_000);
  expect(todo(9_004_000)).toEqual([{ do: 'drop' }]);
});

test('waking up while waiting: at once, unless the gateway said when', () => {
  opened(0);
  machine.closed(1006, '', 1000);
  machine.take(1000);
  machine.wake(1001);
  expect(todo(1001)).toEqual([{ do: 'open', url: 'ws://two' }]);
  machine.closed(4200, '{"code":"draining","retry_after_ms":5000}', 2000);
  machine.take(2000);
  machine.wake(2001);
  expect(todo(2001)).toEqual([]);
  expect(machine.retryAt).toBe(7000);
});

test('a wrong retry_after_ms parks nobody', () => {
  opened(0);
  machine.closed(4200, '{"code":"draining","retry_after_ms":1e12}', 0);
  expect(machine.retryAt).toBe(300_000);
  machine.tick(300_000);
  machine.closed(4200, 'not JSON', 300_000);
  expect(machine.retryAt).toBeLessThan(330_000);
});

test('frames that make no sense are passed over', () => {
  opened(0);
  machine.follow(new Subscription('demo', null, {}, 8));
  for (const frame of [
    '{}',
    '{"op":1}',
    '{"op":"ok"}',
    '{"op":"ok","id":"x"}',
    '{"op":"entry","session":7}',
    '{"op":"pong","ts":"x"}',
  ]) {
    machine.frame(frame, 1);
  }
  expect(machine.phase).toBe('open');
  expect(todo(1)).toEqual([]);
});

test('once it has stopped, it stays so', () => {
  opened(0);
  const id = machine.commands.call({ op: 'history', session: 'demo' }, null);
  const error = new ConnectionClosed('closed');
  machine.stop(error);
  machine.stop(new ConnectionClosed('another'));
  const actions: Action[] = machine.take(1);
  expect(actions).toContainEqual({ do: 'answer', id, error });
  expect(actions).toContainEqual({ do: 'drop' });
  machine.closed(1006, '', 2);
  machine.wake(3);
  machine.start(4);
  expect(todo(5)).toEqual([]);
  expect(machine).toMatchObject({ phase: 'stopped', failure: error });
});
