/** fusetap itself, through its command line: one target for each way of serving that this build has. */
import { join, resolve } from 'node:path';
import { z } from 'zod';
import { EXIT_CODES, FusetapError } from '../../../../drivers/errors.js';
import { isInstalled, runCommand } from '../command.js';
import { makeShape, SHAPES, type Shape, shapes } from './formats.js';
import type { Place, Served, Target } from './target.js';

const PLAIN_DRIVER = resolve(import.meta.dirname, './plain-driver.js');
/** the command line */
export const MAIN = resolve(import.meta.dirname, '../../../../cli/main.cjs');

interface Way {
  name: string;
  description: string;
  driver: string;
  /** options of attach that it requires */
  needs?: readonly [option: string, value: string];
  /** the whole disk is written before the first job */
  isFilled?: true;
  /** an image of a format is made of the image first */
  shape?: Shape;
}

const WAYS: readonly Way[] = [
  { name: 'fusetap-aio', description: 'driver aio, through threads', driver: 'aio' },
  { name: 'fusetap-sync', description: 'driver sync, through threads', driver: 'sync' },
  { name: 'fusetap-ram', description: 'driver ram, through threads', driver: 'ram' },
  {
    name: 'fusetap-aio-passthrough',
    description: 'driver aio, kernel passthrough',
    driver: 'aio',
    needs: ['--passthrough', 'on'],
  },
  {
    name: 'fusetap-ram-passthrough',
    description: 'driver ram, kernel passthrough',
    driver: 'ram',
    needs: ['--passthrough', 'on'],
  },
  { name: 'fusetap-snapshot', description: 'driver snapshot, reads from the base', driver: 'snapshot' },
  {
    name: 'fusetap-snapshot-full',
    description: 'driver snapshot, all of it written before',
    driver: 'snapshot',
    isFilled: true,
  },
  ...shapes.map((shape) => {
    const { is, driver } = SHAPES[shape];
    return { name: `fusetap-${shape}`, description: is, driver, shape };
  }),
  { name: 'fusetap-plain', description: 'a driver with promises, on the event loop', driver: PLAIN_DRIVER },
  {
    name: 'fuse-native',
    description: 'driver ram, transport fuse-native',
    driver: 'ram',
    needs: ['--transport', 'fuse-native'],
  },
];

const Attached = z.object({ path: z.string(), keeperPid: z.number().nullable(), serverPid: z.number().nullable() });

let help: Promise<string> | null = null;

/** Whether this build's attach has an option. */
async function knowsOption(option: string): Promise<boolean> {
  help ??= runCommand(process.execPath, [MAIN, 'attach', '--help']);
  return (await help).includes(`${option} `);
}

/** Each target has its own bus, state and memory: it never touches buses of other targets or of the user. */
async function fusetap(runtimeDir: string, args: readonly string[]): Promise<string> {
  const environment: NodeJS.ProcessEnv = { ...process.env, FUSETAP_RUNTIME_DIR: runtimeDir };
  delete environment.FUSETAP_BUS;
  try {
    return await runCommand(process.execPath, [MAIN, ...args], { environment, timeoutMs: 60_000 });
  } catch (error) {
    const status = (error as { cause?: { code?: unknown } }).cause?.code;
    if (status !== EXIT_CODES.UNSUPPORTED) throw error;
    throw new FusetapError('UNSUPPORTED', (error as Error).message, { cause: error });
  }
}

async function optionsOf({ needs }: Way): Promise<string[]> {
  const options: string[] = needs === undefined ? [] : [...needs];
  if (needs?.[0] !== '--passthrough' && (await knowsOption('--passthrough'))) options.push('--passthrough', 'off');
  return options;
}

async function start(way: Way, place: Place): Promise<Served> {
  const imagePath = way.shape === undefined ? place.imagePath : await makeShape(way.shape, place);
  const served = await attachWords(['--driver', way.driver, '--image', imagePath, ...(await optionsOf(way))], place);
  if (way.isFilled)
    await runCommand('dd', [`if=${imagePath}`, `of=${served.path}`, 'bs=1M', 'conv=notrunc', 'status=none']);
  return served;
}

/** Attaches what the words say, on a bus of its own. */
export async function attachWords(words: readonly string[], { directory, undo }: Place): Promise<Served> {
  const runtimeDir = join(directory, 'runtime');
  let isOver = false;
  undo.defer(async () => {
    if (!isOver) await fusetap(runtimeDir, ['stop', '--all', '--force']);
  });
  const text = await fusetap(runtimeDir, ['attach', '--json', ...words]);
  const { path, keeperPid, serverPid } = Attached.parse(JSON.parse(text));
  const stop = async (): Promise<void> => {
    await fusetap(runtimeDir, ['detach', path]);
    isOver = true;
  };
  return { path, pids: [keeperPid, serverPid].filter((pid) => pid !== null), stop };
}

/** Checks only this build: if the system lacks something, attach reports it (UNSUPPORTED). */
async function findMissing({ needs, shape }: Way): Promise<string | null> {
  if (shape !== undefined && !(await isInstalled('qemu-img'))) return 'qemu-img is not installed';
  if (needs === undefined || (await knowsOption(needs[0]))) return null;
  return `fusetap attach has no ${needs[0]}`;
}

export const fusetapTargets: readonly Target[] = WAYS.map((way) => ({
  name: way.name,
  description: way.description,
  holdsImageInMemory: way.driver === 'ram',
  findMissing: () => findMissing(way),
  start: (place) => start(way, place),
}));
