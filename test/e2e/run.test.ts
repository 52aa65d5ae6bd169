/** `fusetap run`: a command has disks for as long as it runs, its exit status is ours, and nothing is left of it. */
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { collect, type Outcome } from './command.js';
import { type Bench, OTHERS, onDefaultTransport, openBench, type TestTransport } from './fixtures.js';

t.setTimeout(360_000);

const MIB = 1 << 20;

onDefaultTransport(t, ['mkfs.ext4', 'dumpe2fs', 'cmp'], useRun, OTHERS);

async function useRun(t: Test, transport: TestTransport): Promise<void> {
  const isRoot = transport.runner === undefined;
  /** a bench with one image; afterwards the test is asked whether anything is left */
  const tell = (name: string, body: (t: Test, bench: Bench, image: string) => Promise<void>): Promise<void> =>
    t.test(name, async (t) => {
      const bench = await openBench(t, transport);
      await body(t, bench, await bench.image('disk.img', 16 * MIB, MIB));
      t.same(await bench.traces(), [], 'no process, mount or file of a bus is left');
    }) as unknown as Promise<void>;

  const tellButNamespace = transport.runner?.name === 'namespace' ? async (): Promise<void> => {} : tell;
  await tell('mkfs.ext4 on a ram vbd', async (t, bench, image) => {
    await bench.sh('cp "$1" before.img', image);
    const words = ['run', `ram:${image}`, '--', 'sh', '-c', 'mkfs.ext4 -q -F "$FUSETAP_DEVICE"'];
    t.match(await bench.fusetap(words), { status: 0, stdout: '', stderr: '' });
    await bench.sh('cmp "$1" before.img', image);
  });

  const drivers = isRoot ? ['aio', 'sync'] : ['aio'];
  await tellButNamespace(
    `what is written through ${drivers.join(' and ')} is in the image`,
    async (t, bench, image) => {
      for (const driver of drivers) {
        await bench.sh('cp "$1" before.img', image);
        const script = 'mkfs.ext4 -q -F "$FUSETAP_DEVICE" && dumpe2fs -h "$FUSETAP_DEVICE"';
        const { status, stdout } = await bench.fusetap(['run', `${driver}:${image}`, '--', 'sh', '-c', script]);
        t.equal(status, 0);
        const uuid = /^Filesystem UUID: .*$/m.exec(stdout)?.[0];
        t.ok(uuid, 'what the command prints is printed');
        await bench.sh('dumpe2fs -h "$1" 2>/dev/null | grep -q "$2"', image, String(uuid));
      }
    },
  );

  const tellRoot = isRoot ? tell : async (): Promise<void> => {};
  await tellRoot('the exit status is that of the command', async (t, bench, image) => {
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
  });

  await tell('several disks at once, one of them read-only', async (t, bench, image) => {
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
    t.match(stderr, /Read-only file system/);
  });

  await tellButNamespace('an attach that fails leaves nothing, and nothing is run', async (t, bench, image) => {
    const other = await bench.image('other.img', MIB);
    const third = [image, other, 'nowhere.img'];
    for (const specs of isRoot ? [['nowhere.img'], third, [`${image},xvda`, `${other},xvda`]] : [third]) {
      const { status, stdout, stderr } = await bench.fusetap(['run', ...specs, '--', 'echo', 'run']);
      t.equal(status, 125, specs.join(' '));
      t.equal(stdout, '');
      t.match(stderr, /^fusetap: .*(no such image|is taken).*\n$/);
      t.same(await bench.traces(), []);
    }
  });

  await tellButNamespace('the command detaches its disk itself', async (t, bench, image) => {
    const detach = `${process.execPath} ${bench.program} detach`;
    const script = `${detach} --bus "$(dirname "$FUSETAP_DEVICE")" xvda`;
    t.match(await bench.fusetap(['run', image, '--', 'sh', '-c', script]), { status: 0, stderr: '' });
  });

  await tell('what the command leaves behind is cut off, and told', async (t, bench, image) => {
    const script = 'exec 9<"$FUSETAP_DEVICE"; sleep 30 >/dev/null 2>&1 & echo $!';
    const { status, stdout, stderr } = await bench.fusetap(['run', image, '--', 'sh', '-c', script]);
    t.equal(status, 125);
    t.match(stdout, /^[0-9]+\n$/, stderr);
    if (/^[0-9]+\n$/.test(stdout)) process.kill(Number(stdout));
    t.match(stderr, /^fusetap: [^\n]*in use[^\n]*by force[^\n]*\n$/);
    t.ok(stderr.includes(stdout.trim()), 'by its pid');
  });

  await tell('SIGTERM goes to the command, whose exit status counts', async (t, bench, image) => {
    const caught = await signalWhenReady(bench, image, `trap 'echo caught; exit 7' TERM`);
    t.match(caught, { status: 7, stdout: 'ready\ncaught\n' });
    t.match(await signalWhenReady(bench, image, ':'), { status: 128 + 15, stdout: 'ready\n' });
  });

  await tellButNamespace('SIGTERM at any moment leaves nothing', async (t, bench, image) => {
    for (const afterMs of isRoot ? [100, 250, 400, 600] : [200, 500]) {
      const child = bench.startFusetap(['run', `ram:${image}`, '--', 'sleep', '20']);
      const end = collect(child);
      await delay(afterMs);
      child.kill('SIGTERM');
      const { status, signal } = await end;
      t.ok(signal === 'SIGTERM' || status === 143, `after ${afterMs} ms: ${signal ?? status}`);
      t.same(await bench.traces(), []);
    }
  });
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
