/** Phrases that readers of the documentation and of messages had to read twice, and that came up again and again. */
import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import t from 'tap';

const ROOT = resolve(import.meta.dirname, '../../..');

/** Each phrase, and what to write instead. */
const HARD: readonly (readonly [phrase: RegExp, instead: string])[] = [
  [/\bfor who (has|have|wants?|works?|runs?|may|is)\b/i, 'for people who …'],
  [/\bleave (it|them|--[a-z]+) away\b/i, 'omit it'],
  [/\b(his|those) who runs?\b/i, 'the owner of the bus'],
  [/\bwhere this (begins|starts)\b/i, 'if this command starts the bus'],
  [/\bmay come in, where\b/i, 'let other users use …'],
  [/\bwhat is held\b/i, 'a vbd in use'],
  [/\bis mounted for by\b/i, '… mounts for this user'],
  [/\bOf (an image|one that|a bus|a vbd|files|each) \b/, 'subject, verb, object'],
];

/** Files that users read, or whose strings they see. */
function texts(): string[] {
  const below = (folder: string, end: string): string[] =>
    readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })
      .filter((name) => name.endsWith(end) && !name.endsWith('.d.ts'))
      .map((name) => `${folder}/${name}`);
  const code = ['cli', 'mount', 'drivers'].flatMap((folder) => below(folder, '.ts'));
  return ['README.md', 'CONTRIBUTING.md', 'CHANGELOG.md', ...below('docs', '.md'), ...below('drivers', '.md'), ...code];
}

for (const [phrase, instead] of HARD) {
  t.test(`${phrase.source}: write ${instead}`, async (t) => {
    const found = texts().filter((path) => phrase.test(readFileSync(join(ROOT, path), 'utf8')));
    t.same(found, []);
  });
}
