/** The shared cases of the AI SDK's chunks (tests/conformance/cases/ui-messages of the repository). */
import { readdirSync, readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { Answer } from '../../src/ai-sdk/answer.js';
import { uiMessages } from '../../src/ai-sdk/transcript.js';
import type { JsonObject } from '../../src/json.js';
import type { Entry, Message } from '../../src/model.js';
import { readEntry } from '../../src/protocol.js';

interface Case {
  readonly name: string;
  readonly input: string;
  readonly viewer: string;
  readonly epoch: string;
  readonly entries: readonly JsonObject[];
  readonly answer: readonly JsonObject[];
}

const CASES = new URL('../../../../tests/conformance/cases/ui-messages/', import.meta.url);
const cases: Case[] = readdirSync(CASES).flatMap((name) => JSON.parse(readFileSync(new URL(name, CASES), 'utf8')));

test('there are cases', () => {
  expect(cases.length).toBeGreaterThanOrEqual(17);
});

test.each(cases)('$name', ({ input, viewer, epoch, entries, answer }) => {
  const mapped = new Answer(input, 'demo', ({ participant }) => participant === undefined || participant === viewer);
  const found = entries.map((frame) => {
    const entry = readEntry(frame, epoch) as Entry;
    return { seq: entry.seq, chunks: mapped.take(entry), waitsFor: mapped.waitsFor, isOver: mapped.isOver };
  });
  expect(found).toEqual(answer);
});

interface Transcript {
  readonly name: string;
  readonly messages: readonly Message[];
  readonly uiMessages: readonly JsonObject[];
}

const TRANSCRIPTS = new URL('../ui-transcripts/', CASES);
const transcripts: Transcript[] = readdirSync(TRANSCRIPTS).flatMap((name) =>
  JSON.parse(readFileSync(new URL(name, TRANSCRIPTS), 'utf8')),
);

test('there are transcripts', () => {
  expect(transcripts.length).toBeGreaterThanOrEqual(5);
});

test.each(transcripts)('$name', (transcript) => {
  expect(uiMessages(transcript.messages, 'demo')).toEqual(transcript.uiMessages);
});
