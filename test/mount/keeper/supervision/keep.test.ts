/** What a driver keeps in the keeper: each attempt is answered, and a dead server keeps nothing any more. */
import { ChildProcess } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { Host } from '../../../../drivers/driver.js';
import { FusetapError } from '../../../../drivers/errors.js';
import { ServerProcess } from '../../../../mount/keeper/supervision/server-process.js';
import type { ServerMessage, ServerStart } from '../../../../mount/server/commands.js';
import { Keeping } from '../../../../mount/server/keeping.js';
import { socketPair } from '../../../../system/libc.js';
import { eventually } from '../../../e2e/command.js';

const LIBC = new URL('../../../../mount/server/passed-fds.js', import.meta.url).href;

/** A process in place of a server. @param program what it does; `pass` sends a descriptor under a number */
function start(t: Test, program: string, keep: () => void): { server: ServerProcess; happened: string[] } {
  const path = join(mkdtempSync(join(tmpdir(), 'keep-')), 'server.mjs');
  writeFileSync(
    path,
    `import { passFds } from ${JSON.stringify(LIBC)};
    const { passingFd } = JSON.parse(process.argv[2]);
    const pass = (number) => passFds(passingFd, number, [0]);
    const keep = (number) => process.send({ kind: 'keep', number, keptId: 1, node: '', facts: {} });
    process.on('message', ({ command }) => process.send({ kind: 'unable', error: { message: JSON.stringify(command) } }));
    ${program}`,
  );
  const fd = openSync('/dev/null', 'r');
  t.teardown(() => closeSync(fd));
  const fds = { ledgerFd: fd, lockFd: fd, statsFd: fd, deviceFds: [], aliveFd: null };
  const happened: string[] = [];
  const server = new ServerProcess(
    fds as unknown as ServerStart,
    {
      gone: () => {},
      died: () => void happened.push('died'),
      forgotten: () => {},
      memoryWanted: () => {},
      keep: (_, given) => {
        for (const each of given) closeSync(each);
        happened.push('keep');
        keep();
      },
      connection: () => void happened.push('connection'),
    },
    path,
  );
  t.teardown(() => server.kill());
  return { server, happened };
}

/** What the server was answered. */
async function answerOf(server: ServerProcess): Promise<unknown> {
  try {
    await server.loaded(30_000);
  } catch (error) {
    return JSON.parse((error as Error).message);
  }
}

t.test('what the keeper has is confirmed', async (t) => {
  const { server } = start(t, 'pass(7); keep(7);', () => {});
  t.same(await answerOf(server), { op: 'kept', number: 7 });
});

t.test('what did not arrive is answered with an error', async (t) => {
  const { server, happened } = start(t, 'keep(7);', () => {});
  t.match(await answerOf(server), { op: 'kept', number: 7, error: { message: /no descriptors to keep/ } });
  t.same(happened, []);
});

t.test('what the keeper refuses is answered with an error', async (t) => {
  const { server } = start(t, 'pass(7); keep(7);', () => {
    throw new FusetapError('NOT_FOUND', 'the disk is not attached any more');
  });
  t.match(await answerOf(server), { op: 'kept', number: 7, error: { code: 'NOT_FOUND' } });
});

/** Node's object for the process that is started next. */
function nextChild(): Promise<ChildProcess> {
  const { on } = ChildProcess.prototype;
  return new Promise((resolve) => {
    ChildProcess.prototype.on = function (this: ChildProcess, ...args) {
      ChildProcess.prototype.on = on;
      resolve(this);
      return Reflect.apply(on, this, args) as ChildProcess;
    };
  });
}

t.test('a message that is read after the end of its server changes nothing', async (t) => {
  const started = nextChild();
  const { server, happened } = start(t, '', () => {});
  const child = await started;
  await server.kill();
  child.emit('message', { kind: 'keep', number: 1, keptId: 1, node: '', facts: {} });
  child.emit('message', { kind: 'connection', keptId: 1, state: { is: 'connected' } });
  t.same(happened, ['died']);
});

function hostOf(sent: ServerMessage[]): { keeping: Keeping; host: Host } {
  const [ours] = socketPair(true);
  const keeping = new Keeping((message) => void sent.push(message), ours, null as never);
  return { keeping, host: keeping.hostFor({ keptId: 1, node: '', vdev: 'xvda', ledgerIndex: 0 }) };
}

t.test('a driver learns whether it was kept', async (t) => {
  const sent: ServerMessage[] = [];
  const { keeping, host } = hostOf(sent);
  const each = [host.keep({}, [0]), host.keep({}, [0]), host.keep({}, [0])];
  await eventually('they are sent', 30_000, async () => sent.length === 3);
  keeping.answered(1);
  keeping.answered(2, new FusetapError('FAILED', 'too many files').toJSON());
  await each[0];
  await t.rejects(each[1] as Promise<void>, { code: 'FAILED', message: 'too many files' });
  keeping.keeperDied();
  await each[2];
});

t.test('an older keeper does not answer a failure', async (t) => {
  const { host } = hostOf([]);
  await t.rejects(host.keep({}, [0]), { message: /within 10 s/ });
});
