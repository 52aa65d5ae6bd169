/**
 * The torture: three buses, each with vbds of all kinds under fio; kills, upgrades, stops, attaches and detaches
 * at random; then prints what it found. See scripts/torture.
 */
import { execFile } from 'node:child_process';
import { mkdtemp, realpath, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs, promisify } from 'node:util';
import { EXIT_CODES, FusetapError } from '../../../drivers/errors.js';
import { quoted } from '../../../drivers/quote.js';
import { resolveBus } from '../../../mount/client/index.js';
import { type Deeds, type Findings, leaks, printFigures } from './figures.js';
import { busProcesses, measure } from './holdings.js';
import { DISK_BYTES } from './verifier.js';
import { Victim, type Wish } from './victim.js';
import { FORMAT_WAYS, judgeImage, makeImage, TREES, WAYS, type Way } from './ways.js';

const BUSES = 3;

async function makeWishes(ways: readonly Way[], directory: string, name: string): Promise<Wish[]> {
  const wishes = ways.map(async (way, i) => {
    const image = join(directory, `${name}-${i}.img`);
    await makeImage(way, image, DISK_BYTES);
    return { ...way, image };
  });
  return Promise.all(wishes);
}

const HELP = `scripts/torture: three buses under fio, killed, upgraded, stopped, attached to and detached from at random

  --minutes N   how long (default: 3)
  --kills N     instead: until N servers were killed
  --formats LIST
                images of these formats in place of the usual disks: ${Object.keys(FORMAT_WAYS).join(', ')}
  --model N     instead: N random operations, each compared with a model of the coherence rules
  --second-faults
                instead, as the first argument: also full directories, hanging images and other second faults; see
                scripts/torture --second-faults --help
  --help        print this help

Prints what was done and found. Exits with 0 if nothing was lost and nothing is left, else with 1.`;

interface Settings {
  readonly isOver: (deeds: Deeds) => boolean;
  readonly limitText: string;
  /** the disks of each bus */
  readonly ways: readonly Way[];
}

/** @throws FusetapError USAGE; @returns null for --help */
function parseSettings(): Settings | null {
  const values = parseWords();
  if (values.help) return null;
  const positive = (name: 'minutes' | 'kills', text: string): number => {
    const value = Number(text);
    if (value > 0) return value;
    throw new FusetapError('USAGE', `--${name} takes a number above 0, not ${text}`);
  };
  const ways = values.formats === undefined ? [...WAYS, ...TREES] : waysOf(values.formats);
  if (values.kills !== undefined) {
    const kills = positive('kills', values.kills);
    return { isOver: (deeds) => deeds.kills >= kills, limitText: `${kills} kills`, ways };
  }
  const minutes = positive('minutes', values.minutes ?? '3');
  const deadline = performance.now() + minutes * 60_000;
  return { isOver: () => performance.now() >= deadline, limitText: `${minutes} minutes`, ways };
}

function waysOf(formats: string): Way[] {
  const all: Readonly<Record<string, readonly Way[]>> = FORMAT_WAYS;
  return formats.split(',').flatMap((format) => {
    const ways = Object.hasOwn(all, format) ? all[format] : undefined;
    if (ways !== undefined) return ways;
    const known = Object.keys(all).join(', ');
    throw new FusetapError('USAGE', `--formats: no format ${quoted(format)}: there are ${known}`);
  });
}

function parseWords(): { minutes?: string; kills?: string; formats?: string; help?: boolean } {
  const text = { type: 'string' } as const;
  try {
    const help = { type: 'boolean', short: 'h' } as const;
    return parseArgs({ options: { minutes: text, kills: text, formats: text, help } }).values;
  } catch (error) {
    throw new FusetapError('USAGE', (error as Error).message, { hint: 'see scripts/torture --help' });
  }
}

/** Removes everything, whatever happened: aborts the buses, which frees waiting processes, then stops them. */
async function clear(directory: string, runtimeDir: string): Promise<void> {
  const lines = (await promisify(execFile)('cat', ['/proc/self/mountinfo'])).stdout.split('\n');
  for (const line of lines.filter((text) => text.includes(` ${runtimeDir}/`))) {
    const [, , device = '', , path = ''] = line.split(' ');
    await writeFile(`/sys/fs/fuse/connections/${device.split(':')[1]}/abort`, '1').catch(() => {});
    await promisify(execFile)('umount', ['-l', path]).catch(() => {});
  }
  for (const { pid } of await busProcesses(runtimeDir)) process.kill(pid, 'SIGKILL');
  await promisify(execFile)('rm', ['-rf', '--one-file-system', directory]).catch(() => {});
}

async function main(): Promise<number> {
  const settings = parseSettings();
  if (settings === null) {
    console.log(HELP);
    return 0;
  }
  const { isOver, limitText, ways } = settings;
  const directory = await realpath(await mkdtemp(join(tmpdir(), 'fusetap-torture-')));
  const runtimeDir = join(directory, 'runtime');
  process.env.FUSETAP_RUNTIME_DIR = runtimeDir;
  const deeds: Deeds = { kills: 0, upgrades: 0, stops: 0, attaches: 0, detaches: 0, verified: 0 };
  const findings: Findings = { errors: [], mismatches: 0, hasFailedBus: false };
  const over = (): boolean => findings.hasFailedBus || isOver(deeds);
  const leave = (): void => void clear(directory, runtimeDir).finally(() => process.exit(130));
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, leave);
  try {
    console.log(`torture: ${BUSES} buses, ${limitText}`);
    const victims: Victim[] = [];
    const images: Wish[] = [];
    for (let i = 0; i < BUSES; i++) {
      const victim = new Victim(await resolveBus(`t${i}`, runtimeDir), deeds, findings);
      const lasting = await makeWishes(ways, directory, `lasting-${i}`);
      await victim.begin(lasting);
      victims.push(victim);
      images.push(...lasting);
    }
    // a first round loads everything that is loaded lazily, so that it does not count as a leak
    const guests = await Promise.all(victims.map((_, i) => makeWishes(ways, directory, `guest-${i}`)));
    const warm = performance.now() + 5_000;
    await disturb(victims, guests, () => performance.now() > warm);
    const before = await settle(victims, runtimeDir);
    for (const victim of victims) victim.verify();
    await disturb(victims, guests, over);
    await Promise.all(victims.map((victim) => victim.endVerifying()));
    const after = await settle(victims, runtimeDir);
    for (const victim of victims) await victim.stop();
    await delay(500);
    for (const wish of [...images, ...guests.flat()]) {
      const fault = await judgeImage(wish, wish.image);
      if (fault === null) continue;
      findings.mismatches += 1;
      findings.errors.push(fault);
    }
    const end = await measure(runtimeDir);
    const left = [end.mounts, end.processes, end.files].some((count) => count > 0) ? [JSON.stringify(end)] : [];
    const leaked = [...leaks(before, after), ...left.map((text) => `after stop: ${text}`)];
    console.log(`before     ${JSON.stringify(before)}\nafter      ${JSON.stringify(after)}`);
    console.log(printFigures(deeds, findings, leaked));
    return findings.errors.length + findings.mismatches + leaked.length > 0 ? 1 : 0;
  } finally {
    await clear(directory, runtimeDir);
  }
}

async function disturb(victims: readonly Victim[], guests: readonly Wish[][], isOver: () => boolean): Promise<void> {
  const works = victims.flatMap((victim, i) => [victim.disturb(isOver), victim.comeAndGo(guests[i] as Wish[], isOver)]);
  await Promise.all(works);
}

/** Measures with new servers that have loaded all their threads, after the keepers have collected garbage. */
async function settle(victims: readonly Victim[], runtimeDir: string): ReturnType<typeof measure> {
  await Promise.all(victims.map((victim) => victim.renew()));
  await delay(8_000);
  return measure(runtimeDir);
}

try {
  process.exit(await main());
} catch (error) {
  if (!(error instanceof FusetapError)) throw error;
  console.error(`torture: ${error.message}${error.hint ? `: ${error.hint}` : ''}`);
  process.exit(EXIT_CODES[error.code]);
}
