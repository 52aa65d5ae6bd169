/** Callers in odd surroundings: no working directory, no room on stdout, another mount namespace; buses on buses. */
import t, { type Test } from 'tap';
import { type Bench, onDefaultTransport, openBench } from './fixtures.js';

t.setTimeout(300_000);

const MIB = 1 << 20;

const STORIES: Record<string, (t: Test, bench: Bench) => Promise<void>> = {
  'a working directory that was deleted': callFromDeleted,
  'a path that cannot be printed': printToFull,
  'a bus of another mount namespace': attachElsewhere,
  'a bus on a vbd of another': stackBuses,
};

onDefaultTransport(t, ['unshare', 'nsenter'], async (t, transport) => {
  for (const [name, story] of Object.entries(STORIES)) {
    await t.test(name, async (t) => story(t, await openBench(t, transport)));
  }
});

/** fusetap, run by a shell that does something before. */
function shell(bench: Bench, script: string, ...words: string[]) {
  return bench.execute('sh', ['-c', script, process.execPath, bench.program, ...words]);
}

async function callFromDeleted(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('disk.img', MIB);
  const fromDeleted = (...words: string[]) =>
    shell(bench, 'mkdir gone; cd gone; rmdir ../gone; exec "$0" "$@"', ...words);
  t.match(await fromDeleted('attach', image), { status: 0, stdout: /xvda\n$/, stderr: '' });
  await bench.detach('xvda');
  t.match(await fromDeleted('run', image, '--', 'test', '-d', '/'), { status: 0, stderr: '' });

  const line = /^fusetap: the working directory was deleted[^\n]*absolute[^\n]*\n$/;
  const relative = [
    ['attach', 'disk.img'],
    ['attach', '--driver', './mine.js', '--image', image],
    ['attach', '--filter', 'error=read@flag', image],
    ['mount', image, 'mnt'],
    ['ls', '--bus', './bus'],
  ];
  for (const words of relative) t.match(await fromDeleted(...words), { status: 3, stderr: line }, words.join(' '));
  t.match(await fromDeleted('run', 'disk.img', '--', 'true'), { status: 125, stderr: line });
  t.same(await bench.traces(), []);
}

async function printToFull(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('disk.img', MIB);
  const { status, stderr } = await shell(bench, '"$0" "$@" > /dev/full', 'attach', image);
  t.equal(status, 1, 'a script has no path to go on with');
  t.match(stderr, /^fusetap: cannot write to stdout: ENOSPC: xvda of bus 0 is attached; to undo this: [^\n]+\n$/);
  const [, undo = ''] = /to undo this: fusetap (detach .*)/.exec(stderr) ?? [];
  t.match(await bench.list(), [{ vdev: 'xvda' }]);
  await bench.succeed(undo.split(' '));
  t.same(await bench.traces(), [], 'what it said undoes it');
}

async function attachElsewhere(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('disk.img', MIB);
  const first = await bench.image('first.img', MIB);
  const there = ['--mount', process.execPath, bench.program];
  t.match(await bench.execute('unshare', [...there, 'attach', '--bus', 'hidden', first]), { status: 0 });
  try {
    const { stderr, status } = await bench.fusetap(['attach', '--bus', 'hidden', image]);
    t.equal(status, 1);
    t.match(stderr, /^fusetap: bus hidden is mounted in the mount namespace of pid \d+, not in this one: [^\n]*\n$/);
    t.match(await bench.list(), [{ image: first }], 'the bus goes on, with what it had');
    const [, pid = ''] = /--target (\d+)/.exec(stderr) ?? [];
    const entered = ['--mount', '--target', pid, process.execPath, bench.program];
    t.match(await bench.execute('nsenter', [...entered, 'attach', '--bus', 'hidden', image]), { status: 0 });
  } finally {
    await bench.fusetap(['stop', '--bus', 'hidden']);
  }
  t.same(await bench.busProcesses(), []);
}

async function stackBuses(t: Test, bench: Bench): Promise<void> {
  // names in the order in which they would fail
  const below = await bench.attach('--bus', 'a', await bench.image('disk.img', MIB));
  await bench.sh('ln -s "$1" link', below);
  const between = await bench.attach('--bus', 'b', bench.path('link'));
  await bench.attach('--bus', 'c', between);
  for (const force of [[], ['--force']]) {
    const busy = await bench.fusetap(['detach', '--bus', 'a', 'xvda']);
    t.match(busy, { status: 4, stderr: /in use by bus b as xvda: / }, 'the bus is named, not its processes');
    t.match(await bench.fusetap(['stop', '--all', ...force]), { status: 0, stderr: '' }, `all ${force}`);
    t.same(await bench.traces(), []);
    if (force.length > 0) return;
    await bench.attach('--bus', 'a', bench.path('disk.img'));
    await bench.attach('--bus', 'b', bench.path('link'));
    await bench.attach('--bus', 'c', between);
  }
}
