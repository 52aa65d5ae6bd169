/**
 * Write-back through the server while memory is short: a file system on a loop device on a vbd, writers in a small
 * cgroup, and few dirty bytes allowed. It must not come to a stop.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import t, { type Test } from 'tap';
import { statFields } from '../../system/proc.js';
import { whyNot } from '../e2e/fixtures.js';
import { startBus } from './bus.js';

/** it takes 5 s on a quiet machine */
const WRITE_LIMIT_MS = 600_000;
t.setTimeout(2 * WRITE_LIMIT_MS);

const V1 = '/sys/fs/cgroup/memory';
const V2 = '/sys/fs/cgroup';

/** Makes a cgroup with little memory; null if this machine has no memory controller for us. */
function makeGroup(t: Test, limitBytes: number): string | null {
  const isV2 = existsSync(`${V2}/cgroup.controllers`);
  const directory = join(isV2 ? V2 : V1, `fusetap-${basename(tmpdir())}-${process.pid}-${limitBytes}`);
  try {
    if (isV2) writeFileSync(`${V2}/cgroup.subtree_control`, '+memory');
    mkdirSync(directory);
  } catch {
    return null;
  }
  // a process of the group that was just killed may still be ending
  atEnd(t, 'until rmdir "$1" 2>/dev/null; do sleep 0.1; done', directory);
  writeFileSync(join(directory, isV2 ? 'memory.max' : 'memory.limit_in_bytes'), String(limitBytes));
  return directory;
}

/**
 * Runs a shell script when the test is over, even if this process is killed before: the script runs when the pipe to its
 * shell closes. The machine must not keep what this test sets.
 */
function atEnd(t: Test, script: string, ...args: string[]): void {
  const command = ['-c', `cat >/dev/null; ${script}`, 'sh', ...args];
  // without the mark of this test's processes: the shell may end after the test
  const shell = spawn('sh', command, { env: { PATH: process.env.PATH }, stdio: ['pipe', 'ignore', 'inherit'] });
  const ended = once(shell, 'exit');
  t.teardown(async () => {
    shell.stdin.end();
    await ended;
  });
}

/** Whether the kernel lets the process write and allocate while others wait for write-back (PF_LOCAL_THROTTLE). */
function isIoFlusher(pid: number): boolean {
  const flags = Number(statFields(readFileSync(`/proc/${pid}/stat`, 'utf8'))[6]);
  return (flags & 0x100000) !== 0;
}

/** Allows only few dirty bytes on the whole machine, until the test is over. */
function allowLittleDirt(t: Test): void {
  for (const [name, bytes] of Object.entries({ dirty_bytes: 4 << 20, dirty_background_bytes: 1 << 20 })) {
    const ratio = `/proc/sys/vm/${name.replace('bytes', 'ratio')}`;
    const [oldBytes, oldRatio] = [readFileSync(`/proc/sys/vm/${name}`, 'utf8'), readFileSync(ratio, 'utf8')];
    // setting one of the two makes the other 0
    const [file, value] = oldBytes.trim() === '0' ? [ratio, oldRatio] : [`/proc/sys/vm/${name}`, oldBytes];
    atEnd(t, 'echo "$2" > "$1"', file, value.trim());
    writeFileSync(`/proc/sys/vm/${name}`, String(bytes));
  }
}

interface Case {
  readonly name: string;
  readonly limitBytes: number;
  /** the limit applies to the bus too */
  readonly withBus: boolean;
}

const CASES: readonly Case[] = [
  { name: 'the writers have little memory', limitBytes: 48 << 20, withBus: false },
  { name: 'and the bus with them', limitBytes: 256 << 20, withBus: true },
];

/** three writers at once, and then everything is flushed */
const WRITE =
  'echo $$ > "$1/cgroup.procs"; for i in 1 2 3; do dd if=/dev/zero of="$2/$i" bs=1M count=100 status=none & done; ' +
  'wait; sync -f "$2"; du -sm "$2" | cut -f1';

for (const { name, limitBytes, withBus } of CASES) {
  void t.test(`write-back: ${name}`, { skip: whyNot('losetup', 'mkfs.ext4', 'e2fsck') }, async (t) => {
    const group = makeGroup(t, limitBytes);
    if (group === null) return void t.pass('no cgroup with a memory controller can be made', { skip: true });
    const bus = await startBus(t);
    const { bench } = bus;
    const { keeperPid, serverPid } = await bus.info();
    if (withBus && !isIoFlusher(keeperPid as number)) {
      // above the limit, cgroup v1 makes a process wait for write-back, which waits for the server: docs/survival.md
      return void t.pass('PR_SET_IO_FLUSHER', { skip: 'it needs CAP_SYS_RESOURCE, which is not here' });
    }
    if (withBus) for (const pid of [keeperPid, serverPid]) writeFileSync(join(group, 'cgroup.procs'), String(pid));
    const vbd = await bus.attach({ driver: 'aio', image: await bench.image('disk.img', 512 << 20) });
    const loop = await bench.loop(vbd.path);
    const directory = await bench.makeDirectory('mnt');
    await bench.sh('mkfs.ext4 -q "$1"; mount "$1" "$2"', loop, directory);
    allowLittleDirt(t);
    const args = ['-euc', WRITE, 'sh', group, directory];
    const { status, stdout, stderr } = await bench.execute('sh', args, { timeoutMs: WRITE_LIMIT_MS });
    t.equal(status, 0, stderr);
    t.ok(Number(stdout) >= 300, `${stdout.trim()} MB were written`);
    await bus.killServer();
    await bench.sh('umount "$1"; e2fsck -fn "$2"; losetup -d "$2"', directory, loop);
    t.equal((await bus.info()).keeperPid, keeperPid);
  });
}
