/** A plugin for the build: a file with the licences of all packages of which something is in it. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Plugin } from 'vite';

/** The directory of the package that a module is of; null of our own. */
function packageOf(id: string): string | null {
  const file = id.replace(/^\0/, '').split('?')[0] ?? '';
  if (!file.includes('/node_modules/')) return null;
  for (let at = dirname(file); at.includes('/node_modules/'); at = dirname(at)) {
    // some packages have files of that name inside, without a version
    const path = join(at, 'package.json');
    if (existsSync(path) && JSON.parse(readFileSync(path, 'utf8')).version) return at;
  }
  return null;
}

function licenseOf(directory: string): string {
  const { name, version, license } = JSON.parse(readFileSync(join(directory, 'package.json'), 'utf8'));
  const file = readdirSync(directory).find((each) => /^licen[cs]e/i.test(each));
  if (!file) throw new Error(`${name} has no file with its licence`);
  return `${name} ${version} (${license})\n\n${readFileSync(join(directory, file), 'utf8').trim()}\n`;
}

export const licenses = (): Plugin => ({
  name: 'licenses',
  apply: 'build',
  generateBundle() {
    const found = new Set([...this.getModuleIds()].map(packageOf).filter((each) => each !== null));
    const texts = [...found].map(licenseOf).sort();
    this.emitFile({ type: 'asset', name: 'licenses.txt', source: texts.join(`\n${'-'.repeat(80)}\n\n`) });
  },
});
