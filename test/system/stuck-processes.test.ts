/** A process that is stuck in execve, because a file that it closes there is on a file system that hangs. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import t from 'tap';
import { eachProcess, readMountNamespaces } from '../../system/proc.js';
import { SideShell } from '../../system/side-shell.js';
import { findStuck, probeWith } from '../../system/stuck-processes.js';
import { eventually } from '../e2e/command.js';
import { whyNot } from '../e2e/fixtures.js';
import { startBus } from '../survival/bus.js';
import { abortAt, ServedImage } from '../survival/sick-disks.js';

t.setTimeout(120_000);

/** Opens the file close-on-exec, says so, and calls execve when told to. */
const PROGRAM = `
import os, sys
os.open(sys.argv[1], os.O_RDWR)
print('open', flush=True)
sys.stdin.readline()
os.execv('/bin/sleep', ['sleep', '60'])
`;

async function pids(): Promise<Set<number>> {
  const found = new Set<number>();
  for await (const pid of eachProcess()) found.add(pid);
  return found;
}

async function begin(path: string): Promise<ChildProcess & { pid: number }> {
  const child = spawn('python3', ['-c', PROGRAM, path], { stdio: ['pipe', 'pipe', 'inherit'] });
  await once(child.stdout, 'data');
  return child as typeof child & { pid: number };
}

t.test(
  'processes that are stuck in execve are left out until they go on',
  {
    skip: whyNot('qemu-storage-daemon', 'python3'),
  },
  async (t) => {
    probeWith(new SideShell());
    const { bench } = await startBus(t);
    const served = await ServedImage.begin(t, bench, 'sick.img', 1 << 20);
    t.teardown(() => abortAt(served.path));
    const children = [await begin(served.path), await begin(served.path)];
    t.teardown(() => children.map((child) => child.kill('SIGKILL')));
    const all = await pids();
    t.ok(children.every(({ pid }) => all.has(pid)));
    await served.stop();
    t.teardown(() => net.kill());
    // should this process be stopped by what it looks at, the machine goes on nevertheless
    const goOn = `import os, time; time.sleep(60); os.kill(${served.pid}, 18)`;
    const net = spawn('python3', ['-c', goOn], { stdio: 'ignore' });
    for (const child of children) child.stdin?.write('\n');
    await eventually('both are found', 30_000, async () => {
      const stuck = await findStuck();
      return children.every(({ pid }) => stuck.has(pid));
    });
    const others = await pids();
    t.ok(others.has(process.pid), 'the others are there');
    t.notOk(
      children.some(({ pid }) => others.has(pid)),
      'those are not',
    );
    t.ok((await readMountNamespaces()).length > 0, 'and nobody waits for them');
    served.goOn();
    await eventually('they are there again', 20_000, async () => {
      const again = await pids();
      return children.every(({ pid }) => again.has(pid));
    });
  },
);
