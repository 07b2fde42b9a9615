/** The shared cases that every reader of the log must fold alike (tests/conformance/cases of the repository). */
import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { Fold } from '../../src/fold/fold.js';
import type { JsonObject } from '../../src/json.js';
import type { Message } from '../../src/model.js';
import { readEntry } from '../../src/protocol.js';

interface Case {
  readonly name: string;
  readonly entries: readonly JsonObject[];
  readonly state: JsonObject;
  readonly messages: readonly Message[];
}

const CASES = new URL('../../../../tests/conformance/cases/', import.meta.url);
const names = readdirSync(CASES).filter((name) => name.endsWith('.json'));
const cases: Case[] = names.flatMap((name) => JSON.parse(readFileSync(new URL(name, CASES), 'utf8')));

function folded(fold: Fold, entries: readonly JsonObject[]): Fold {
  for (const frame of entries) {
    const entry = readEntry(frame);
    if (entry) fold.apply(entry);
  }
  return fold;
}

const plain = (value: unknown) => JSON.parse(JSON.stringify(value));

test('there are cases', () => {
  expect(cases.length).toBeGreaterThanOrEqual(80);
});

describe.each(cases)('$name', ({ entries, state, messages }) => {
  test('folds to its state and messages', () => {
    const fold = folded(new Fold(), entries);
    expect(plain(fold.state)).toEqual(state);
    expect(plain(fold.messages)).toEqual(messages);
  });

  test('its state can be gone on from', () => {
    expect(plain(new Fold({ state }).state)).toEqual(state);
  });

  test('the state is in the records alone', () => {
    const records = entries.filter((entry) => !('off' in entry));
    expect(plain(folded(new Fold(), records).state)).toEqual(state);
  });

  test('what was seen in between does not change, and shares what stays the same', () => {
    const fold = new Fold();
    const seen: [unknown, string][] = [];
    for (const frame of entries) {
      folded(fold, [frame]);
      for (const view of [fold.state, fold.messages]) seen.push([view, JSON.stringify(view)]);
      expect(fold.state).toBe(fold.state);
      expect(fold.messages).toBe(fold.messages);
    }
    for (const [view, text] of seen) expect(JSON.stringify(view)).toBe(text);
  });
});
