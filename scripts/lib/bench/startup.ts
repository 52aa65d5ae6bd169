/**
 * The cost of a start: compares commands of the command line with `node -e 0`, which does nothing, in the same rounds.
 * Every script that calls fusetap has this cost.
 */
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, open, realpath, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { isInstalled, runCommand } from './command.js';
import { median, ratioSpread, visitingOrder } from './statistics.js';
import type { Undo } from './undo.js';

const MAIN = resolve(import.meta.dirname, '../../../cli/main.cjs');
const IMAGE_BYTES = 64 << 20;
const FILE_SYSTEM_BYTES = 8 << 20;

interface Command {
  readonly name: string;
  readonly words: readonly string[];
  /** how many times as long as `node -e 0` it may take */
  readonly limit: number | null;
  /** undoes it; not timed */
  readonly after?: readonly string[];
}

interface Stage {
  readonly image: string;
  /** an image with a file system, and where to mount it; null if this machine cannot mount it */
  readonly mount: { readonly image: string; readonly point: string } | null;
}

/** The measurements of a command. */
export interface StartupResult {
  readonly name: string;
  readonly limit: number | null;
  readonly medianMs: number;
  /** how many times as long as doing nothing: median of the rounds, and the extremes */
  readonly ratio: { readonly median: number; readonly min: number; readonly max: number };
}

function commandsOn({ image, mount }: Stage): Command[] {
  const mounted: Command[] =
    mount === null
      ? []
      : [
          {
            name: 'fusetap mount',
            words: [MAIN, 'mount', mount.image, mount.point],
            limit: 10,
            after: [MAIN, 'umount', mount.point],
          },
        ];
  return [
    { name: 'node -e 0', words: ['-e', '0'], limit: null },
    { name: 'fusetap ls', words: [MAIN, 'ls'], limit: 2 },
    {
      name: 'fusetap attach, running bus',
      words: [MAIN, 'attach', image, 'xvdb'],
      limit: 3,
      after: [MAIN, 'detach', 'xvdb'],
    },
    {
      name: 'fusetap attach, new bus',
      words: [MAIN, 'attach', '--bus', 'new', image, 'xvdb'],
      limit: 9,
      after: [MAIN, 'detach', '--bus', 'new', 'xvdb'],
    },
    ...mounted,
    { name: 'fusetap run … -- true', words: [MAIN, 'run', image, '--', 'true'], limit: 9 },
  ];
}

async function makeStage(directory: string): Promise<Stage> {
  const image = await makeImage(join(directory, 'disk.img'), IMAGE_BYTES);
  const mountable = process.geteuid?.() === 0 && existsSync('/dev/loop-control') && (await isInstalled('mkfs.ext4'));
  if (!mountable) return { image, mount: null };
  const fileSystem = await makeImage(join(directory, 'files.img'), FILE_SYSTEM_BYTES);
  await runCommand('mkfs.ext4', ['-q', fileSystem]);
  const point = join(directory, 'mountpoint');
  await mkdir(point);
  return { image, mount: { image: fileSystem, point } };
}

async function makeImage(path: string, bytes: number): Promise<string> {
  const file = await open(path, 'w');
  await file.truncate(bytes);
  await file.close();
  return path;
}

/** Measures in a runtime directory of its own. The caller must undo. */
export async function measureStartup(rounds: number, undo: Undo): Promise<StartupResult[]> {
  const directory = await realpath(await mkdtemp(join(tmpdir(), 'fusetap-startup-')));
  undo.defer(() => rm(directory, { recursive: true }));
  const environment: NodeJS.ProcessEnv = { ...process.env, FUSETAP_RUNTIME_DIR: join(directory, 'runtime') };
  delete environment.FUSETAP_BUS;
  const node = async (words: readonly string[]): Promise<number> => {
    const begun = performance.now();
    await runCommand(process.execPath, words, { environment });
    return performance.now() - begun;
  };
  undo.defer(() => node([MAIN, 'stop', '--all', '--force']));
  await node([MAIN, 'start']);
  const commands = commandsOn(await makeStage(directory));
  const times = new Map(commands.map(({ name }) => [name, [] as number[]]));
  // the first round only fills caches
  for (let round = -1; round < rounds; round++) {
    for (const { name, words, after } of visitingOrder(commands, round + 1)) {
      const tookMs = await node(words);
      if (round >= 0) times.get(name)?.push(tookMs);
      if (after !== undefined) await node(after);
    }
  }
  const nothing = times.get('node -e 0') ?? [];
  return commands.map(({ name, limit }) => {
    const tookMs = times.get(name) ?? [];
    const ratio = ratioSpread(tookMs, nothing, 'more') ?? { median: 0, min: 0, max: 0 };
    return { name, limit, medianMs: median(tookMs) ?? 0, ratio };
  });
}

/** A line for each command. */
export function startupTable(results: readonly StartupResult[]): string {
  const lines = results.map(({ name, limit, medianMs, ratio: { median: middle, min, max } }) => {
    const spread = `${min.toFixed(1)}–${max.toFixed(1)}`;
    const verdict = limit === null ? '' : `at most ${limit}×  ${middle <= limit ? 'ok' : 'SLOWER'}`;
    return `${name.padEnd(28)}${medianMs.toFixed(0).padStart(6)} ms ${middle.toFixed(1).padStart(6)}×  ${spread.padEnd(11)}${verdict}`;
  });
  return lines.map((line) => line.trimEnd()).join('\n');
}

export function isWithinLimits(results: readonly StartupResult[]): boolean {
  return results.every(({ limit, ratio }) => limit === null || ratio.median <= limit);
}
