/**
 * The man pages: one for each command, with all that its help has; correct roff; listed in package.json, because npm links
 * only what is listed there.
 */
import { execFile } from 'node:child_process';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import t, { type Test } from 'tap';
import { dir as temporaryDirectory } from 'tmp-promise';
import { helpEndOf } from '../../cli/options.js';
import { addCommands, COMMANDS, makeProgram } from '../../cli/program.js';
import { TAP_COMMANDS } from '../../cli/tap-ctl/commands.js';
import { driverNames } from '../../drivers/names.js';
import { VARIABLES } from '../../scripts/lib/man/environment.js';
import { blocksOf } from '../../scripts/lib/man/markdown.js';
import { makePages } from '../../scripts/lib/man/pages.js';
import { plain, write } from '../../scripts/lib/man/roff.js';
import { isInstalled } from '../e2e/command.js';

const ROOT = resolve(import.meta.dirname, '../../..');
const EDITION = { version: '1.2.3', date: new Date('2026-02-03') };
const COMMAND_SECTIONS = ['NAME', 'SYNOPSIS', 'DESCRIPTION', 'OPTIONS', 'EXIT STATUS', 'EXAMPLES', 'SEE ALSO'];

const pages = await makePages(EDITION);
const program = makeProgram();
await addCommands(program, Object.keys(COMMANDS));

/** The text of a page as it is read, without its markup. */
function textOf(path: string): string {
  const page = pages.get(path) ?? '';
  return page
    .replaceAll(/\\f[BIR]/g, '')
    .replaceAll('\\-', '-')
    .replaceAll('\\e', '\\')
    .replaceAll('\\&', '');
}

/** Which of the titles a page has, in its order. */
function sectionsOf(path: string, titles: readonly string[]): string[] {
  const all = [...textOf(path).matchAll(/^\.SH (.*)$/gm)].map(([, title]) => title ?? '');
  return all.filter((title) => titles.includes(title));
}

for (const command of program.commands) {
  t.test(`the page of ${command.name()} has what its help has`, async (t) => {
    const path = `man1/fusetap-${command.name()}.1`;
    const text = textOf(path);
    t.same(sectionsOf(path, COMMAND_SECTIONS), COMMAND_SECTIONS);
    t.ok(text.includes(`\nfusetap-${command.name()} - ${command.summary()}\n`), 'its summary');
    for (const { name, description } of command.options.map((option) => ({ ...option, name: option.long ?? '' }))) {
      t.ok(text.includes(`${name}`) && text.includes(`${description.replaceAll('…', '...')}`), name);
    }
    for (const example of helpEndOf(command)?.examples ?? []) t.ok(text.includes(`\n${example}\n`), example);
  });
}

t.test('the page of the program', async (t) => {
  const sections = [
    ...['NAME', 'SYNOPSIS', 'DESCRIPTION', 'OPTIONS', 'COMMANDS', 'EXIT STATUS', 'ENVIRONMENT', 'FILES', 'SEE ALSO'],
  ];
  t.same(sectionsOf('man1/fusetap.1', sections), sections);
  for (const command of program.commands) t.match(textOf('man1/fusetap.1'), `\nfusetap-${command.name()}(1)\n`);
  t.match(pages.get('man1/fusetap.1'), /^\.TH "FUSETAP" "1" "2026-02-03" "fusetap 1\.2\.3" "fusetap manual"\n/);
});

t.test('the pages of tap-ctl and of the drivers', async (t) => {
  for (const name of Object.keys(TAP_COMMANDS)) t.match(textOf('man8/tap-ctl.8'), `\ntap-ctl ${name}`);
  t.match(textOf('man8/tap-ctl.8'), /^EBUSY: /m, 'the table of the errnos');
  for (const name of driverNames) t.match(textOf('man7/fusetap.drivers.7'), `\n.SH DRIVER ${name.toUpperCase()}\n`);
  t.match(textOf('man7/fusetap.drivers.7'), /^--filter delay=MS$/m);
});

t.test('package.json lists them all: npm links no other page', async (t) => {
  const { man } = JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8')) as { man: string[] };
  t.same(
    man,
    [...pages.keys()].sort().map((path) => `dist/man/${path}`),
    'if not: scripts/man',
  );
});

t.test('the environment variables are those that the code reads', async (t) => {
  const found = new Set<string>();
  for (const room of ['cli', 'mount', 'drivers', 'system']) {
    for (const file of await readdir(join(ROOT, room), { recursive: true })) {
      if (!file.endsWith('.ts')) continue;
      const code = await readFile(join(ROOT, room, file), 'utf8');
      for (const [name] of code.matchAll(/\b(FUSETAP_[A-Z_]+|XDG_RUNTIME_DIR)\b/g)) found.add(name);
    }
  }
  t.same(VARIABLES.map(([name]) => name).sort(), [...found].sort());
});

t.test('help that a command adds by itself would be in no page', async (t) => {
  for (const file of await readdir(join(ROOT, 'cli/commands'))) {
    t.notMatch(await readFile(join(ROOT, 'cli/commands', file), 'utf8'), /addHelpText/, `${file}: use endHelp`);
  }
});

t.test('text that roff could mistake', async (t) => {
  const page = write(
    { name: 'x', section: 1, blocks: [{ kind: 'code', lines: ['.so /etc/passwd', "'x", 'a\\b -c é …'] }] },
    EDITION,
  );
  t.same(page.split('\n').slice(-7, -3), ['.EX', '\\&.so /etc/passwd', "\\&'x", 'a\\eb \\-c \\[u00E9] ...']);
});

t.test('Markdown', async (t) => {
  const blocks = blocksOf(
    [
      ...['A `b`', 'and **c** [d](e.md).', '- one', '  more', '- two', '1. first', '', '    code', '', '    code'],
      ...['| x | y | z |', '| - | - | - |', '| `k` | 1 | 2 |', '## Title', '```js', '# c', '```'],
    ].join('\n'),
  );
  const star = plain('*');
  t.same(blocks, [
    { kind: 'paragraph', text: 'A \\fBb\\fR and \\fBc\\fR d.' },
    { kind: 'item', term: star, text: 'one more' },
    { kind: 'item', term: star, text: 'two' },
    { kind: 'item', term: '1.', text: 'first' },
    { kind: 'code', lines: ['code', '', 'code'] },
    { kind: 'item', term: '\\fBk\\fR', text: 'y: 1; z: 2' },
    { kind: 'subsection', text: 'Title' },
    { kind: 'code', lines: ['# c'] },
  ]);
});

/** The pages as files. */
async function writeAll(t: Test): Promise<string[]> {
  const { path: root, cleanup } = await temporaryDirectory({ unsafeCleanup: true });
  t.teardown(cleanup);
  const files = [...pages].map(([path, text]) => ({ file: join(root, path), text }));
  for (const { file, text } of files) {
    await mkdir(dirname(file), { recursive: true });
    await writeFile(file, text);
  }
  return files.map(({ file }) => file);
}

/** What a program prints on both streams. */
function printed(program: string, words: readonly string[]): Promise<string> {
  return new Promise((done) => {
    const env = { ...process.env, LC_ALL: 'C.UTF-8', MANWIDTH: '80' };
    execFile(program, words, { env, maxBuffer: 1 << 26 }, (_, stdout, stderr) => done(stdout + stderr));
  });
}

const without = (program: string): string | false => (isInstalled(program) ? false : `${program} is not installed`);

t.test('mandoc finds no fault', { skip: without('mandoc') }, async (t) => {
  t.equal(await printed('mandoc', ['-T', 'lint', '-W', 'warning', ...(await writeAll(t))]), '');
});

t.test('groff has no warning', { skip: without('groff') }, async (t) => {
  // -z: no output but warnings
  t.equal(await printed('groff', ['-z', '-man', '-t', '-T', 'utf8', '-w', 'w', ...(await writeAll(t))]), '');
});
