import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { tempDir } from './fake-bus.js';

const module = (name: string): string => new URL(`../../cli/run/${name}.js`, import.meta.url).href;

/** Runs a command as `fusetap run` does, in a process of its own; `ready` is called with its pid at the first output. */
async function runs(cmd: string[], ready: (pid: number) => void = () => {}) {
  const script = `
    const { runCommand } = await import('${module('run-command')}');
    const { catchSignals } = await import('${module('signals')}');
    const status = await runCommand(${JSON.stringify(cmd)}, { FUSETAP_DEVICE: '/a b' },
      { signals: catchSignals(), lifeline: { tell() {} } });
    console.log('status', status);`;
  // in a session of its own there is no terminal
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], { detached: true });
  let stdout = '';
  let stderr = '';
  child.stdout.once('data', () => ready(child.pid ?? 0));
  child.stdout.on('data', (chunk) => {
    stdout += chunk;
  });
  child.stderr.on('data', (chunk) => {
    stderr += chunk;
  });
  await once(child, 'close');
  return { stdout, stderr, signal: child.signalCode };
}

t.test('the exit status is the command’s', async (t) => {
  t.match(await runs(['sh', '-c', 'echo "$FUSETAP_DEVICE"; exit 0']), { stdout: '/a b\nstatus 0\n', stderr: '' });
  t.match(await runs(['sh', '-c', 'exit 42']), { stdout: 'status 42\n' });
  t.match(await runs(['sh', '-c', 'kill -9 $$']), { stdout: 'status 137\n' });
});

t.test('126 if it cannot be run, 127 if it is not found', async (t) => {
  const file = join(tempDir(t), 'file');
  writeFileSync(file, 'exit 5\n');
  t.match(await runs([file]), { stdout: 'status 126\n', stderr: `fusetap: cannot run ${file}: EACCES\n` });
  t.match(await runs([`${file}.none`]), { stdout: 'status 127\n', stderr: /ENOENT\n$/ });
  chmodSync(file, 0o755);
  t.match(await runs([file]), { stdout: 'status 5\n' }, 'a script without #! is run by sh, as env(1) does');
  t.match(await runs(['echo', 'a\0b']), { stdout: 'status 126\n' });
});

for (const [signal, number] of [
  ['SIGINT', 2],
  ['SIGTERM', 15],
  ['SIGHUP', 1],
] as const) {
  t.test(`${signal} goes to the command, and we outlive it`, async (t) => {
    const ended = await runs(['sh', '-c', 'echo ready; exec sleep 20'], (pid) => process.kill(pid, signal));
    t.match(ended, { stdout: `ready\nstatus ${128 + number}\n`, signal: null });
  });
}

t.test('a command that ignores a signal goes on', async (t) => {
  const script = 'trap "echo caught" TERM; echo ready; for i in 1 2 3 4 5 6 7 8 9 10; do sleep 0.05; done; exit 3';
  const ended = await runs(['sh', '-c', script], (pid) => process.kill(pid, 'SIGTERM'));
  t.match(ended, { stdout: 'ready\ncaught\nstatus 3\n' });
});
