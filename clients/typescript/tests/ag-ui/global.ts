/** A stack for the tests of AG-UI: a gateway, and a worker of an agent that does whatever AG-UI has events for. */
import type { TestProject } from 'vitest/node';
import { Servers } from '../support/servers.js';

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const servers = new Servers(['default', 'helper']);
  const [gateway] = await servers.start(1, [
    ['tests.support.agents_agui:everything', 'default'],
    ['tests.support.agents_agui:helper', 'helper'],
  ]);
  project.provide('url', gateway?.url ?? '');
  project.provide('token', await servers.token());
  return () => servers.end();
}
