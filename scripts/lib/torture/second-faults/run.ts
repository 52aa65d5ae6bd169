/** A torture with second faults; see scripts/torture --second-faults --help. */
import { EXIT_CODES, FusetapError } from '../../../../drivers/errors.js';
import { Undo } from '../../bench/undo.js';
import { WAYS } from '../ways.js';
import { Bus } from './bus.js';
import { ENDINGS, type Ending } from './endings.js';
import type { Fault } from './faults/fault.js';
import { FAULTS } from './faults/index.js';
import { Journal } from './journal.js';
import { disturb, makeFaults, visit, watch } from './lanes.js';
import { liveAndEnd } from './mortal.js';
import { Random } from './random.js';
import { endScene, holdingsOf } from './reckoning.js';
import { Scene } from './scene.js';
import { type Stage, setStage } from './stage.js';
import { printTable } from './table.js';
import { HELP, parseSettings, type Settings } from './words.js';

/** how many different second faults are active at a time */
const FAULT_LANES = 3;
const DISK_BYTES = 8 << 20;

async function main(args: string[]): Promise<number> {
  const settings = parseSettings(args);
  if (settings === null) {
    console.log(HELP);
    return 0;
  }
  if (process.geteuid?.() !== 0)
    throw new FusetapError('DENIED', 'second faults are made by root', { hint: 'run it as root' });
  const undo = new Undo();
  const leave = (): void => void undo.run().finally(() => process.exit(130));
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, leave);
  try {
    return await torture(settings, undo);
  } finally {
    for (const error of await undo.run()) console.error(`torture: not taken away: ${error.message}`);
  }
}

async function torture({ minutes, buses: count, chosen, seed, person }: Settings, undo: Undo): Promise<number> {
  console.log(`torture: ${count} buses of ${person.name}, ${minutes} minutes, --seed ${seed}`);
  const journal = new Journal(console.log);
  const stage = await setStage(person, undo);
  const names = Array.from({ length: count }, (_, i) => `t${i}`);
  const buses = await Promise.all(names.map((name) => beginBus(name, stage, journal)));
  const faults = await prepare(await possible(FAULTS, chosen, stage), buses);
  const endings = await possible(ENDINGS, chosen, stage);
  const scene = new Scene(stage, journal, faults);
  scene.buses.push(...buses);
  const before = await holdingsOf(scene);
  const deadline = performance.now() + minutes * 60_000;
  await play(scene, endings, new Random(seed), () => performance.now() > deadline || scene.living.length === 0);
  const leaked = await endScene(scene, before);
  console.log(printTable(journal, leaked));
  return journal.errors.length + leaked.length > 0 ? 1 : 0;
}

async function beginBus(name: string, stage: Stage, journal: Journal): Promise<Bus> {
  const bus = await Bus.begin(name, stage, journal);
  const choices = WAYS.filter(({ passthrough }) => passthrough === 'off' || stage.person.passesThrough);
  for (const [i, choice] of choices.entries()) {
    await bus.adopt({ ...choice, image: await stage.image(`${name}-${i}.img`, DISK_BYTES), sizeBytes: DISK_BYTES });
  }
  return bus;
}

/** The chosen faults that can be made here; prints a line for each that is left out. */
async function possible<Kind extends Fault | Ending>(
  all: readonly Kind[],
  chosen: Settings['chosen'],
  stage: Stage,
): Promise<Kind[]> {
  const found: Kind[] = [];
  for (const each of all.filter(({ name }) => chosen.has(name))) {
    const why = await each.whyNot(stage);
    if (why === null) found.push(each);
    else console.log(`left out: ${each.name}: ${why}`);
  }
  return found;
}

/** Prepares each fault on each bus. @returns the faults for which this succeeded */
async function prepare(faults: readonly Fault[], buses: readonly Bus[]): Promise<Fault[]> {
  const ready: Fault[] = [];
  for (const fault of faults) {
    try {
      await Promise.all(buses.map((bus) => fault.prepare?.(bus)));
      ready.push(fault);
    } catch (error) {
      console.log(`left out: ${fault.name}: ${(error as Error).message}`);
    }
  }
  return ready;
}

async function play(scene: Scene, endings: readonly Ending[], random: Random, isOver: () => boolean): Promise<void> {
  let lane = 0;
  const next = (): Random => random.fork(++lane);
  const perBus = scene.buses.flatMap((bus) => [disturb(bus, next(), isOver), visit(bus, next(), isOver)]);
  const perFault = Array.from({ length: FAULT_LANES }, () => makeFaults(scene, next(), isOver));
  await Promise.all([
    ...perBus,
    ...perFault,
    liveAndEnd(scene, endings, next(), isOver),
    watch(scene, isOver),
    scene.stage.pace.keepMeasuring(isOver),
  ]);
}

try {
  process.exit(await main(process.argv.slice(2)));
} catch (error) {
  if (!(error instanceof FusetapError)) throw error;
  console.error(`torture: ${error.message}${error.hint ? `: ${error.hint}` : ''}`);
  process.exit(EXIT_CODES[error.code]);
}
