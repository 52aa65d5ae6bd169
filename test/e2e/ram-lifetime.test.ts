/**
 * A memory lives for as long as anybody has it, whoever dies: keepers and servers are killed while others share, and
 * what is left of the dead leads nobody astray.
 */
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { type Bus, startBusOn } from '../survival/bus.js';
import { Client } from './client.js';
import { eventually } from './command.js';
import { OTHERS, onDefaultTransport, storiesFor, type TestTransport } from './fixtures.js';
import { attach, detachAll, MIB, openStage, type Stage } from './ram-stage.js';

t.setTimeout(240_000);

type Buses = Stage<'stays'>;
type Story = (t: Test, stage: Buses, mortal: Bus, image: string) => Promise<void>;

const STORIES: Record<string, Story> = {
  'keeper and server are killed while another bus shares': loseBoth,
  'a keeper is killed: its server goes on sharing': loseKeeper,
};
/** what does not depend on who runs the buses */
const AS_ROOT: Record<string, Story> = {
  'all who shared are dead: the next one copies afresh': loseAll,
  'a link that was left behind is not followed to what came later': leaveStaleLink,
};

onDefaultTransport(t, ['cmp', 'perl'], live, OTHERS);

async function live(t: Test, transport: TestTransport): Promise<void> {
  const stage = await openStage(t, ['stays'], {}, transport);
  const { bench } = stage;
  const stories = storiesFor(transport, STORIES, AS_ROOT);
  for (const [i, [name, story]] of Object.entries(stories).entries()) {
    await t.test(name, async (t) => {
      const mortal = await startBusOn(bench, {}, `mortal${i}`);
      await story(t, stage, mortal, await bench.image('golden.img', 4 * MIB, 4 * MIB));
      await detachAll(stage.bus.stays);
      await bench.succeed(['stop', '--bus', mortal.place.name]);
      await stage.isEmpty(t);
    });
  }
  await stage.end(t);
}

/** @param which of the bus's processes */
async function kill(bus: Bus, ...which: ('keeperPid' | 'serverPid')[]): Promise<void> {
  const info = await bus.info();
  // the keeper first: it would begin another server
  for (const name of which) process.kill(info[name] as number, 'SIGKILL');
}

async function waitForHolders(stage: Buses, count: number): Promise<void> {
  await eventually(`the memory has ${count} holders`, 20_000, async () => {
    const { images } = await stage.memory();
    return images.flatMap(({ holders }) => holders).length === count;
  });
}

async function loseBoth(t: Test, stage: Buses, mortal: Bus, image: string): Promise<void> {
  const { bench, bus } = stage;
  for (const passthrough of ['off', stage.passthrough] as const) {
    await attach(mortal, { image, passthrough });
    await attach(bus.stays, { image, passthrough });
  }
  const [threads, passed] = (await bus.stays.info()).vbds.map(({ path }) => path) as [string, string];
  const [theirs, other] = (await mortal.info()).vbds.map(({ path }) => path) as [string, string];
  await bench.sh('head -c 1M /dev/urandom > new; dd if=new of="$1" bs=64k seek=3 conv=notrunc status=none', theirs);
  await bench.sh('printf passed | dd of="$1" conv=notrunc status=none; cat "$1" > expected', other);
  const reader = await Client.open(t, bench, 'read', passed);
  await kill(mortal, 'keeperPid', 'serverPid');
  await bench.sh('cmp "$1" expected; cmp "$2" expected', threads, passed);
  await waitForHolders(stage, 2);
  t.comment('who comes now finds it too, though the one who made it is dead');
  const late = await attach(bus.stays, { image });
  await bench.sh('cmp "$1" expected', late.path);
  await bench.sh(
    'printf late | dd of="$1" conv=notrunc status=none; head -c 4 "$2" | grep -q late',
    late.path,
    threads,
  );
  t.equal(await reader.call('read', 0, 4096), '4096', 'a handle from before goes on');
  await reader.release();
}

async function loseKeeper(t: Test, stage: Buses, mortal: Bus, image: string): Promise<void> {
  const { bench, bus } = stage;
  const { path } = await attach(mortal, { image, passthrough: 'off' });
  await bench.sh('printf orphan | dd of="$1" conv=notrunc status=none', path);
  const { serverPid } = await mortal.info();
  await kill(mortal, 'keeperPid');
  await eventually('the server has published it', 20_000, async () => {
    const { images } = await stage.memory();
    return images[0]?.holders[0]?.pid === serverPid;
  });
  await bench.sh('cmp "$1" "$2"', (await attach(bus.stays, { image })).path, path);
  t.equal((await stage.memory()).images.length, 1);
}

async function loseAll(t: Test, stage: Buses, mortal: Bus, image: string): Promise<void> {
  const { bench, bus } = stage;
  const { path } = await attach(mortal, { image, passthrough: 'off' });
  await bench.sh('printf dirt | dd of="$1" conv=notrunc status=none', path);
  await kill(mortal, 'keeperPid', 'serverPid');
  await eventually('no memory is in use', 20_000, async () => (await stage.memory()).images.length === 0);
  t.not((await stage.links()).length, 0, 'its link is there still');
  await bench.sh('cmp "$1" "$2"', (await attach(bus.stays, { image })).path, image);
  t.equal((await stage.links()).length, 1, 'and was removed');
}

/** The link is made to name a process that lives, with a memory at that descriptor: another one. */
async function leaveStaleLink(t: Test, stage: Buses, mortal: Bus, image: string): Promise<void> {
  const { bench, bus } = stage;
  const ram = join(bench.runtimeDir, 'ram');
  await attach(mortal, { image, passthrough: 'off' });
  const [old] = (await readdir(ram)) as [string];
  const stale = JSON.parse(await readFile(join(ram, old), 'utf8')) as Record<string, unknown>;
  await kill(mortal, 'keeperPid', 'serverPid');
  await eventually('the memory is gone', 20_000, async () => (await stage.memory()).images.length === 0);
  const victim = await attach(bus.stays, { image: await bench.image('victim.img', 4 * MIB, MIB) });
  await bench.sh('printf mine | dd of="$1" conv=notrunc status=none', victim.path);
  const [name] = (await readdir(ram)) as [string];
  const live = JSON.parse(await readFile(join(ram, name), 'utf8')) as Record<string, unknown>;
  const { pid, startTime, link, dev, ino } = live;
  const forged = [
    { ...stale, pid, startTime, link },
    { ...stale, pid, startTime, link, dev, ino },
  ];
  for (const each of forged) {
    const path = join(ram, `${stale.id}.${pid}`);
    await writeFile(path, `${JSON.stringify(each)}\n`);
    const vbd = await attach(bus.stays, { image });
    await bench.sh('cmp "$1" "$2"', vbd.path, image);
    await bus.stays.detach(vbd.vdev);
    t.notOk((await readdir(ram)).includes(`${stale.id}.${pid}`), 'it was removed');
  }
  await bench.sh('head -c 4 "$1" | grep -q mine', victim.path);
}
