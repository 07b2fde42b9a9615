/** A stack for all integration tests: a gateway, and workers of the agents that they need. */
import type { TestProject } from 'vitest/node';
import { Servers, type Started } from '../support/servers.js';

declare module 'vitest' {
  export interface ProvidedContext {
    /** The major version of React that a project of vitest.config.ts is about. */
    readonly react: string;
    readonly url: string;
    readonly token: string;
    readonly people: { readonly [user: string]: string };
  }
}

const PEOPLE: Record<string, Record<string, unknown>> = {
  'user-2': {},
  expert: { roles: ['support'] },
  reader: { sessions: { '*': ['read'] } },
};

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const servers = new Servers();
  const gateway: Started = await servers.gateway();
  await servers.worker();
  await servers.worker('tests.support.agents_people:picking', 'picking');
  await servers.worker('tests.support.agents_people:approving', 'approving');
  await servers.worker('tests.support.agents_people:desk', 'desk');
  const people = await Promise.all(
    Object.entries(PEOPLE).map(async ([sub, claims]) => [sub, await servers.token({ sub, ...claims })] as const),
  );
  project.provide('url', gateway.url);
  project.provide('token', await servers.token());
  project.provide('people', Object.fromEntries(people));
  return () => servers.end();
}
