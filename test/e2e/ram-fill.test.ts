/**
 * The copy of an image, while it is made: one copies and others wait, a copy that is given up leaves nothing, and what
 * does not fit is refused before anything is copied. The image is a vbd with a delay, so the copy is as slow as needed.
 */
import t, { type Test } from 'tap';
import { collect, eventually } from './command.js';
import { OTHERS, onDefaultTransport, storiesFor, type TestTransport } from './fixtures.js';
import { attach, attachSlowly, detachAll, MIB, openStage, type Stage, statsOf } from './ram-stage.js';

t.setTimeout(240_000);

/** less than fits twice into the limit */
const DATA_BYTES = 5 * MIB;
const LIMIT = '9M';
const DELAY_MS = 40;

type Buses = Stage<'slow' | 'a' | 'b'>;
/** @param image what is attached; its bytes are also in `file`, where they are read fast */
type Story = (t: Test, stage: Buses, image: string, file: string) => Promise<void>;

const STORIES: Record<string, Story> = {
  'of two, one copies, and the other waits and shares': copyOnce,
  'a copy that is given up leaves nothing': giveUp,
  'a server that dies while it copies': loseServer,
};
/** what does not depend on who runs the buses */
const AS_ROOT: Record<string, Story> = {
  'where a copy is given up, who waits copies': takeOver,
  'a keeper that dies while its server copies': loseKeeper,
  'what does not fit is refused before it is copied': refuseTooLarge,
};

onDefaultTransport(t, ['cmp'], fill, OTHERS);

async function fill(t: Test, transport: TestTransport): Promise<void> {
  const stage = await openStage(t, ['slow', 'a', 'b'], { FUSETAP_RAM_LIMIT: LIMIT }, transport);
  const file = await stage.bench.image('golden.img', 16 * MIB, DATA_BYTES);
  const { path } = await attachSlowly(stage.bus.slow, file, DELAY_MS);
  const stories = storiesFor(transport, STORIES, AS_ROOT);
  for (const [name, story] of Object.entries(stories)) {
    await t.test(name, async (t) => {
      await story(t, stage, path, file);
      await detachAll(stage.bus.a, stage.bus.b);
      await stage.isEmpty(t);
    });
  }
  await stage.end(t);
}

async function readBytes({ bus }: Buses): Promise<number> {
  return (await statsOf(bus.slow, 'xvda')).read.bytes;
}

/** Waits until some of the image is copied. */
async function begun(stage: Buses): Promise<void> {
  await eventually('the copy has begun', 20_000, async () => {
    const { images } = await stage.memory();
    return images.some(({ residentBytes }) => residentBytes > 0);
  });
}

/** Whether that many bytes were read, besides what tells an attach that the image is raw: a sector at each end. */
function isOf(readBytes: number, dataBytes: number, attaches: number): boolean {
  return readBytes >= dataBytes && readBytes <= dataBytes + attaches * 2 * 512;
}

async function copyOnce(t: Test, stage: Buses, image: string): Promise<void> {
  const { bench, bus } = stage;
  const before = await readBytes(stage);
  const first = attach(bus.a, { image, passthrough: 'off' });
  await begun(stage);
  // neither answers before all is copied, and what is read is read by one of them
  const copied = async <Answer>(attached: Promise<Answer>): Promise<Answer> => {
    const answer = await attached;
    t.ok(isOf((await readBytes(stage)) - before, DATA_BYTES, 2), 'it was read once, and only its data');
    return answer;
  };
  const [one, other] = await Promise.all([copied(first), copied(attach(bus.b, { image, passthrough: 'off' }))]);
  t.equal(one.share, other.share);
  t.equal((await stage.memory()).images.length, 1);
  t.equal(await stage.residentBytes(), DATA_BYTES);
  await bench.sh('printf shared | dd of="$1" conv=notrunc status=none; cmp "$1" "$2"', one.path, other.path);
}

async function giveUp(t: Test, stage: Buses, image: string): Promise<void> {
  const { bench, bus } = stage;
  const before = await readBytes(stage);
  const given = new AbortController();
  const attached = attach(bus.a, { image, passthrough: 'off' }, given.signal);
  await begun(stage);
  given.abort();
  await t.rejects(attached);
  await eventually('nothing is left', 20_000, async () => (await stage.links()).length === 0);
  t.same((await bus.a.info()).vbds, []);
  t.ok((await readBytes(stage)) - before < DATA_BYTES, 'nor was the rest of it read');

  t.comment('Ctrl-C, of an attach that began its bus');
  const child = bench.startFusetap(['attach', '--bus', 'passing', '--passthrough', 'off', `ram:${image}`]);
  const end = collect(child);
  await begun(stage);
  child.kill('SIGINT');
  const { status, signal } = await end;
  t.ok(status === 130 || signal === 'SIGINT', `${signal ?? status}`);
  await eventually('nothing is left', 20_000, async () => {
    return !(await bench.traces()).some((line) => /\bpassing\b|file: ram/.test(line));
  });
}

async function takeOver(_t: Test, stage: Buses, image: string, file: string): Promise<void> {
  const { bench, bus } = stage;
  const given = new AbortController();
  const first = attach(bus.a, { image, passthrough: 'off' }, given.signal).catch(() => null);
  await begun(stage);
  const second = attach(bus.b, { image, passthrough: 'off' });
  given.abort();
  await first;
  await bench.sh('cmp "$1" "$2"', (await second).path, file);
}

async function loseServer(_t: Test, stage: Buses, image: string, file: string): Promise<void> {
  const { bench, bus } = stage;
  const attached = attach(bus.a, { image, passthrough: 'off' });
  await begun(stage);
  await bus.a.killServer();
  await bench.sh('cmp "$1" "$2"', (await attached).path, file);
}

async function loseKeeper(t: Test, stage: Buses, image: string, file: string): Promise<void> {
  const { bench, bus } = stage;
  const doomed = bench.startFusetap(['attach', '--bus', 'doomed', '--passthrough', 'off', `ram:${image}`]);
  const end = collect(doomed);
  await begun(stage);
  const waiting = attach(bus.b, { image, passthrough: 'off' });
  const keeper = (await bench.busProcesses()).find((line) => /keeper\/main.*doomed/.test(line));
  process.kill(Number(keeper?.split(/[ :]/)[1]), 'SIGKILL');
  t.not((await end).status, 0, 'the attach fails');
  await bench.sh('cmp "$1" "$2"', (await waiting).path, file);
  await bench.fusetap(['stop', '--bus', 'doomed']);
  t.same(
    (await bench.traces()).filter((line) => line.includes('doomed')),
    [],
    'nothing is left of it',
  );
}

async function refuseTooLarge(t: Test, stage: Buses, image: string): Promise<void> {
  const { bench, bus } = stage;
  await attach(bus.b, { image: await bench.image('other.img', 5 * MIB, 5 * MIB), passthrough: 'off' });
  const before = await readBytes(stage);
  await t.rejects(attach(bus.a, { image }), {
    code: 'NO_SPACE',
    message: /takes 5242880 bytes of memory, 1048576 more.*limit is 9437184, 5242880 are/,
  });
  t.ok(isOf((await readBytes(stage)) - before, 0, 1), 'nothing of it was read');
  t.equal((await stage.memory()).images.length, 1);
  const said = await bench.fusetap(['attach', '--bus', 'a', `ram:${image}`]);
  t.match(said, { status: 7, stdout: '', stderr: /1048576 more than are free/ });
}
