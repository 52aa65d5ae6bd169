/** `fusetap run`: a command has disks for as long as it runs, its exit status is ours, and nothing is left of it. */
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { collect, type Outcome } from './command.js';
import { type Bench, OTHERS, onDefaultTransport, openBench, storiesFor } from './fixtures.js';

t.setTimeout(360_000);

const MIB = 1 << 20;

/** Has a bench with an image; at its end nothing of a bus may be left. */
type Story = (t: Test, bench: Bench, image: string) => Promise<void>;

const STORIES: Record<string, Story> = {
  'mkfs.ext4 on a ram vbd': makeFileSystem,
  'several disks at once, one of them read-only': runWithSeveralDisks,
  'what the command leaves behind is cut off, and told': leaveHolderBehind,
  'SIGTERM goes to the command, whose exit status counts': passSigterm,
};
/** not again in a user namespace */
const OUTSIDE_NAMESPACE: Record<string, Story> = {
  'what is written is in the image': writeImage,
  'an attach that fails leaves nothing, and nothing is run': failToAttach,
  'the command detaches its disk itself': detachItself,
  'SIGTERM at any moment leaves nothing': endAtAnyMoment,
};
const AS_ROOT: Record<string, Story> = {
  'the exit status is that of the command': passExitStatus,
};

onDefaultTransport(
  t,
  ['mkfs.ext4', 'dumpe2fs', 'cmp'],
  async (t, transport) => {
    const isInNamespace = transport.runner?.name === 'namespace';
    const stories = isInNamespace ? STORIES : storiesFor(transport, { ...STORIES, ...OUTSIDE_NAMESPACE }, AS_ROOT);
    for (const [name, story] of Object.entries(stories)) {
      await t.test(name, async (t) => {
        const bench = await openBench(t, transport);
        await story(t, bench, await bench.image('disk.img', 16 * MIB, MIB));
        t.same(await bench.traces(), [], 'no process, mount or file of a bus is left');
      });
    }
  },
  OTHERS,
);

function isRoot({ transport }: Bench): boolean {
  return transport.runner === undefined;
}

async function makeFileSystem(t: Test, bench: Bench, image: string): Promise<void> {
  await bench.sh('cp "$1" before.img', image);
  const words = ['run', `ram:${image}`, '--', 'sh', '-c', 'mkfs.ext4 -q -F "$FUSETAP_DEVICE"'];
  t.match(await bench.fusetap(words), { status: 0, stdout: '', stderr: '' });
  await bench.sh('cmp "$1" before.img', image);
}

async function writeImage(t: Test, bench: Bench, image: string): Promise<void> {
  for (const driver of isRoot(bench) ? ['aio', 'sync'] : ['aio']) {
    await bench.sh('cp "$1" before.img', image);
    const script = 'mkfs.ext4 -q -F "$FUSETAP_DEVICE" && dumpe2fs -h "$FUSETAP_DEVICE"';
    const { status, stdout } = await bench.fusetap(['run', `${driver}:${image}`, '--', 'sh', '-c', script]);
    t.equal(status, 0);
    const uuid = /^Filesystem UUID: .*$/m.exec(stdout)?.[0];
    t.ok(uuid, 'what the command prints is printed');
    await bench.sh('dumpe2fs -h "$1" 2>/dev/null | grep -q "$2"', image, String(uuid));
  }
}

async function passExitStatus(t: Test, bench: Bench, image: string): Promise<void> {
  await bench.sh('echo not a program > text; chmod +x text; echo "#!/nowhere" > broken; mkdir directory');
  const ends: [status: number, command: string[], stderr: RegExp][] = [
    [3, ['sh', '-c', 'exit 3'], /^$/],
    [127, ['no-such-program'], /^fusetap: cannot run no-such-program: ENOENT\n$/],
    [126, ['./directory'], /^fusetap: cannot run \.\/directory: EACCES\n$/],
    [128 + 9, ['sh', '-c', 'kill -KILL $$'], /^$/],
    [128 + 15, ['sh', '-c', 'kill -TERM $$'], /^$/],
  ];
  for (const [status, command, stderr] of ends) {
    t.match(await bench.fusetap(['run', `ram:${image}`, '--', ...command]), { status, stderr }, command.join(' '));
  }
}

async function runWithSeveralDisks(t: Test, bench: Bench, image: string): Promise<void> {
  const other = await bench.image('other.img', 2 * MIB, 2 * MIB);
  const third = await bench.image('third.img', 3 * MIB, MIB);
  const script = `
    set -- $FUSETAP_DEVICES
    echo $# "$(basename "$1")" "$(basename "$2")" "$(basename "$3")"
    test "$1" = "$FUSETAP_DEVICE"
    cmp "$1" ${image}; cmp "$2" ${other}; cmp "$3" ${third}
    dd if=/dev/zero of="$2" bs=1 count=1 conv=notrunc status=none || echo refused
  `;
  const specs = [image, `${other},xvdf,r`, `ram:${third}`];
  const { status, stdout, stderr } = await bench.fusetap(['run', ...specs, '--', 'sh', '-ec', script]);
  t.equal(status, 0, stderr);
  t.equal(stdout, '3 xvda xvdf xvdb\nrefused\n');
  t.match(stderr, /Read-only file system|Permission denied/);
}

async function failToAttach(t: Test, bench: Bench, image: string): Promise<void> {
  const other = await bench.image('other.img', MIB);
  const third = [image, other, 'nowhere.img'];
  for (const specs of isRoot(bench) ? [['nowhere.img'], third, [`${image},xvda`, `${other},xvda`]] : [third]) {
    const { status, stdout, stderr } = await bench.fusetap(['run', ...specs, '--', 'echo', 'run']);
    t.equal(status, 125, specs.join(' '));
    t.equal(stdout, '');
    t.match(stderr, /^fusetap: .*(no such image|is taken).*\n$/);
    t.same(await bench.traces(), []);
  }
}

async function detachItself(t: Test, bench: Bench, image: string): Promise<void> {
  const detach = `${process.execPath} ${bench.program} detach`;
  const script = `${detach} --bus "$(dirname "$FUSETAP_DEVICE")" xvda`;
  t.match(await bench.fusetap(['run', image, '--', 'sh', '-c', script]), { status: 0, stderr: '' });
}

async function leaveHolderBehind(t: Test, bench: Bench, image: string): Promise<void> {
  const script = 'exec 9<"$FUSETAP_DEVICE"; sleep 30 >/dev/null 2>&1 & echo $!';
  const { status, stdout, stderr } = await bench.fusetap(['run', image, '--', 'sh', '-c', script]);
  t.equal(status, 125);
  t.match(stdout, /^[0-9]+\n$/, stderr);
  if (/^[0-9]+\n$/.test(stdout)) process.kill(Number(stdout));
  t.match(stderr, /^fusetap: [^\n]*in use[^\n]*by force[^\n]*\n$/);
  t.ok(stderr.includes(stdout.trim()), 'by its pid');
}

async function passSigterm(t: Test, bench: Bench, image: string): Promise<void> {
  const caught = await signalWhenReady(bench, image, `trap 'echo caught; exit 7' TERM`);
  t.match(caught, { status: 7, stdout: 'ready\ncaught\n' });
  t.match(await signalWhenReady(bench, image, ':'), { status: 128 + 15, stdout: 'ready\n' });
}

async function endAtAnyMoment(t: Test, bench: Bench, image: string): Promise<void> {
  for (const afterMs of isRoot(bench) ? [100, 250, 400, 600] : [200, 500]) {
    const child = bench.startFusetap(['run', `ram:${image}`, '--', 'sleep', '20']);
    const end = collect(child);
    await delay(afterMs);
    child.kill('SIGTERM');
    const { status, signal } = await end;
    t.ok(signal === 'SIGTERM' || status === 143, `after ${afterMs} ms: ${signal ?? status}`);
    t.same(await bench.traces(), []);
  }
}

/** Sends SIGTERM to `fusetap run` once its command says that it is ready. */
async function signalWhenReady(bench: Bench, image: string, trap: string): Promise<Outcome> {
  const script = `${trap}; echo ready; for i in $(seq 200); do sleep 0.1; done`;
  const child = bench.startFusetap(['run', image, '--', 'sh', '-c', script]);
  const end = collect(child);
  if (child.stdout) await once(child.stdout, 'data', { signal: AbortSignal.timeout(20_000) });
  child.kill('SIGTERM');
  return end;
}
