/** mount/runtime/lifeline.ts: the keeper waits for the command too, also if nobody told its pid. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer, type Socket, connect as to } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { awaitAbandoned, Lifeline } from '../../../mount/runtime/lifeline.js';
import { tempDir } from '../../cli/fake-bus.js';

/** A lifeline, and the descriptor of its other end. */
async function connected(t: Test): Promise<{ own: Socket; fd: number }> {
  const path = join(tempDir(t), 's');
  const server = createServer({ pauseOnConnect: true }).listen(path);
  await once(server, 'listening');
  const own = to(path);
  const [other] = (await once(server, 'connection')) as [Socket & { _handle: { fd: number } }];
  t.teardown(() => {
    own.destroy();
    server.close();
  });
  return { own, fd: other._handle.fd };
}

function command(t: Test, device: string) {
  const child = spawn('sleep', ['600'], { env: { FUSETAP_DEVICE: device } });
  t.teardown(() => child.kill('SIGKILL'));
  return child;
}

for (const isTold of [true, false]) {
  t.test(`a command whose pid was ${isTold ? 'told' : 'not told'}`, async (t) => {
    const { own, fd } = await connected(t);
    const [child, other] = [command(t, '/a/bus/xvda'), command(t, '/a/bus2/xvda')];
    let isOver = false;
    const over = awaitAbandoned(fd, '/a/bus').then(() => {
      isOver = true;
    });
    const lifeline = new Lifeline();
    lifeline.hold(own);
    if (isTold) lifeline.tell(child.pid as number);
    own.end();
    await delay(1_000);
    t.notOk(isOver, 'it is waited for');
    child.kill('SIGKILL');
    await over;
    t.equal(other.exitCode ?? other.signalCode, null, 'a command of another bus is not');
  });
}

t.test('no command', async (t) => {
  const { own, fd } = await connected(t);
  own.end();
  await awaitAbandoned(fd, '/a/bus');
  t.pass('it resolves');
});
