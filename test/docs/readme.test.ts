/** The sessions of README.md, typed in their order, do what the page says. */
import t, { type Test } from 'tap';
import { eventually } from '../e2e/command.js';
import { type Bench, onDefaultTransport, openBench } from '../e2e/fixtures.js';
import { playSession, readPage, readScripts, readSteps, runScript } from './session.js';

onDefaultTransport(t, ['bash', 'mkfs.ext4', 'e2label'], async (t, transport) => {
  await t.test('the first screen', async (t) => playFirstScreen(t, await openBench(t, transport)));
});

onDefaultTransport(t, ['bash', 'mkfs.ext4', 'losetup'], async (t, transport) => {
  await t.test('what you can attach', async (t) => attachAll(t, await openBench(t, transport)));
});

onDefaultTransport(t, ['bash', 'mkfs.ext4', 'sfdisk', 'losetup'], async (t, transport) => {
  await t.test('partitions', async (t) => mountPartitions(t, await openBench(t, transport)));
});

async function playFirstScreen(t: Test, bench: Bench): Promise<void> {
  const steps = readSteps(readPage('README.md', 'fusetap'));
  t.ok(steps.length >= 8, `${steps.length} commands`);
  await playSession(t, bench, steps);
  await leavesNothing(t, bench);
}

async function attachAll(t: Test, bench: Bench): Promise<void> {
  const [session = ''] = readScripts(readPage('README.md', 'What you can attach'));
  const { status, stdout } = await runScript(bench, ['set -e', session]);
  t.equal(status, 0, stdout);
  const paths = ['xvda', 'xvdb', 'xvdc', 'xvdd'].map((vdev) => `${bench.runtimeDir}/bus/0/${vdev}`);
  t.same(
    stdout.split('\n').filter((line) => line.startsWith(bench.runtimeDir)),
    paths,
  );
  await leavesNothing(t, bench);
}

async function mountPartitions(t: Test, bench: Bench): Promise<void> {
  const [, mount = '', unmount = ''] = readScripts(readPage('README.md', 'What you can attach'));
  const here = (script: string): string => script.replaceAll('/mnt', bench.path('mnt'));
  const { status, stdout } = await runScript(bench, [
    'set -e; mkdir mnt; fusetap create rpi.img 64M',
    "printf 'label: dos\\n,32M,c\\n,,L\\n' | sfdisk -q rpi.img",
    'V=$(fusetap attach --partitions rpi.img); mkfs.ext4 -q "$V"1; mkfs.ext4 -q "$V"2',
    'mount "$V"2 mnt; mkdir mnt/boot; umount mnt; fusetap detach $V',
    here(mount),
    'touch mnt/root-file mnt/boot/boot-file; ls mnt mnt/boot',
    here(unmount),
  ]);
  t.equal(status, 0, stdout);
  t.match(stdout, /^root-file$/m);
  t.match(stdout, /^boot-file$/m);
  await leavesNothing(t, bench);
}

async function leavesNothing(t: Test, bench: Bench): Promise<void> {
  await eventually('the end of all buses', 10_000, async () => (await bench.traces()).length === 0);
  t.same(await bench.traces(), [], 'nothing is left');
}
