import { readdirSync } from 'node:fs';
import t from 'tap';
import { addCommands, makeProgram } from '../../cli/program.js';
import { EXIT_CODES } from '../../drivers/errors.js';
import { VERSION } from '../../mount/version.js';
import { fusetap, tempDir } from './fake-bus.js';

const COMMANDS = readdirSync(new URL('../../cli/commands', import.meta.url)).flatMap(
  (file) => /^(.+)\.js$/.exec(file)?.[1] ?? [],
);

/** commands with exit codes of their own */
const OWN_EXITS: Readonly<Record<string, string[]>> = {
  run: ['125', '126', '127', '128+N'],
  check: ['0', '1', '2', '3', '63'],
};

t.test('the help of the program names every command', async (t) => {
  const { status, stdout, stderr } = await fusetap(tempDir(t), ['--help']);
  t.equal(status, 0);
  t.equal(stderr, '');
  for (const command of COMMANDS) t.match(stdout, new RegExp(`^  ${command}\\b`, 'm'), command);
});

for (const command of COMMANDS) {
  t.test(`the help of ${command} ends with examples and the exit codes`, async (t) => {
    const { status, stdout } = await fusetap(tempDir(t), [command, '--help']);
    t.equal(status, 0);
    t.match(stdout, new RegExp(`^Usage: fusetap ${command}\\b`));
    const end = stdout.slice(stdout.indexOf('\nExamples:\n'));
    t.match(end, new RegExp(`^\nExamples:\n  .*fusetap ${command}\\b`));
    const exits = OWN_EXITS[command] ?? ['0', ...Object.values(EXIT_CODES).map(String)];
    const listed = [...end.slice(end.indexOf('\nExit codes:\n')).matchAll(/^ {2}(\d[\d+N]*) {2,}\S/gm)].map(
      (m) => m[1],
    );
    t.same(listed, exits);
    t.match(stdout, /--json/, 'the shared options are in it');
  });
}

t.test('--version, on either side', async (t) => {
  for (const args of [['--version'], ['ls', '--version']]) {
    t.same(await fusetap(tempDir(t), args), { status: 0, stdout: `${VERSION}\n`, stderr: '' });
  }
});

t.test('the lines of a help text fill the terminal, also a narrow one', async (t) => {
  for (const helpWidth of [60, 80, 120]) {
    const program = makeProgram();
    program.configureHelp({ ...program.configureHelp(), helpWidth });
    await addCommands(program, COMMANDS);
    for (const command of program.commands) {
      t.notMatch(command.description(), /\n/, `${command.name()}: commander breaks the lines`);
      const [, ...lines] = command.helpInformation().split('\n');
      // a word is never broken
      const long = lines.filter((line) => line.length > helpWidth && / \S+ +\S+ \S+$/.test(line));
      t.same(long, [], `${command.name()} at ${helpWidth} columns`);
    }
  }
});
