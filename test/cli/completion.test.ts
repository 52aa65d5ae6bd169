import { execFile } from 'node:child_process';
import { chmodSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { completedCommands } from '../../cli/completion/words.js';
import { addCommands, COMMANDS, makeProgram } from '../../cli/program.js';
import { isInstalled } from '../e2e/command.js';
import { fusetap, tempDir } from './fake-bus.js';

const program = makeProgram();
await addCommands(program, Object.keys(COMMANDS));
const commands = completedCommands(program);

/** A directory with the script of a shell, some files, and a `fusetap` whose `ls` shows two vbds. */
async function prepare(t: Test, shell: string): Promise<string> {
  const directory = tempDir(t);
  const { status, stdout } = await fusetap(directory, ['completion', shell]);
  t.equal(status, 0);
  writeFileSync(join(directory, `completion.${shell}`), stdout);
  writeFileSync(join(directory, 'fusetap'), '#!/bin/sh\nprintf "BUS VDEV\\n7 xvda\\n7 xvdb\\n"\n');
  chmodSync(join(directory, 'fusetap'), 0o755);
  writeFileSync(join(directory, 'disk one.img'), '');
  return directory;
}

function run(directory: string, shell: string, args: string[]): Promise<{ stdout: string; stderr: string }> {
  const env = { ...process.env, PATH: `${directory}:${process.env.PATH}`, HOME: directory };
  return new Promise((resolve) => {
    execFile(shell, args, { cwd: directory, env }, (_error, stdout, stderr) => resolve({ stdout, stderr }));
  });
}

/** What bash offers for the last of the words. */
async function complete(directory: string, ...words: string[]): Promise<string[]> {
  const script = `
    source ./completion.bash
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _fusetap
    printf '%s\\n' "\${COMPREPLY[@]}"`;
  const { stdout, stderr } = await run(directory, 'bash', ['--norc', '-c', script, 'bash', 'fusetap', ...words]);
  if (stderr !== '') throw new Error(stderr);
  return stdout.split('\n').filter((word) => word !== '');
}

t.test('bash completes what there is', { skip: !isInstalled('bash') && 'bash is not installed' }, async (t) => {
  const directory = await prepare(t, 'bash');
  const all = await complete(directory, '');
  for (const name of Object.keys(COMMANDS)) t.ok(all.includes(name), name);
  t.ok(all.includes('--bus'));
  t.same(await complete(directory, 'det'), ['detach']);
  for (const { name, options } of commands) {
    t.same(
      (await complete(directory, name, '-')).sort(),
      options.flatMap(({ flags }) => flags).sort(),
      `options of ${name}`,
    );
  }
  t.same(await complete(directory, 'detach', 'xv'), ['xvda', 'xvdb']);
  t.same(await complete(directory, 'detach', '--wait', '5', 'xvda', 'xvdb'), ['xvdb'], 'again and again');
  t.same(await complete(directory, '--bus', '7', 'show', 'xvdb'), ['xvdb'], 'the value of an option is no word');
  t.same(await complete(directory, 'show', '--bus', ''), ['7']);
  t.same(await complete(directory, 'completion', ''), ['bash', 'zsh', 'fish']);
  t.same(await complete(directory, 'attach', 'disk.img', 'xvda', ''), ['r', 'w', 'w!']);
  t.same(await complete(directory, 'attach', '--passthrough', ''), ['auto', 'on', 'off']);
  t.same(await complete(directory, 'attach', 'disk'), ['disk one.img'], 'a name with a blank is one word');
  t.same(await complete(directory, 'slot', ''), []);
});

const CHECKS: Record<string, string[]> = {
  zsh: ['-fc', 'autoload -U compinit; compinit -u -D; source ./completion.zsh; print -l $_comps[fusetap]'],
  fish: ['--no-config', '-c', "source ./completion.fish; complete -C 'fusetap det'"],
};

for (const [shell, args] of Object.entries(CHECKS)) {
  t.test(`${shell} can read its script`, { skip: !isInstalled(shell) && `${shell} is not installed` }, async (t) => {
    const { stdout, stderr } = await run(await prepare(t, shell), shell, args);
    t.equal(stderr, '');
    t.match(stdout, shell === 'zsh' ? /^_fusetap$/m : /^detach\b/m);
  });
}

t.test('the scripts of zsh and fish name every command and every option', async (t) => {
  for (const shell of ['zsh', 'fish']) {
    const { stdout } = await fusetap(tempDir(t), ['completion', shell]);
    for (const { name, options } of commands) {
      t.match(stdout, shell === 'zsh' ? `        ${name}) _arguments` : `-a ${name} -d`, `${shell}: ${name}`);
      for (const flag of options.flatMap(({ flags }) => flags)) {
        t.ok(
          stdout.includes(shell === 'zsh' ? `'${flag}[` : flag.replace(/^--/, '-l ').replace(/^-(?=.$)/, '-s ')),
          flag,
        );
      }
    }
  }
});

t.test('another shell is refused', async (t) => {
  t.equal((await fusetap(tempDir(t), ['completion', 'tcsh'])).status, 2);
});
