/**
 * What the end-to-end tests stand on: a bench is a directory with images and a runtime directory of its own, in which
 * the real command line begins real buses. Whatever a test left there is taken away at its end.
 *
 *      forEachTransport ──► forEachDriver ──► openBench ──► image, attach, sh, …
 *
 * A way to use a transport is also who runs the programs: root, or for some tests others too (runners.ts).
 */
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, open, readdir, readFile, realpath } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Test } from 'tap';
import type { VbdInfo } from '../../mount/control/interface.js';
import { KERNEL_ABILITIES } from '../../mount/fuse/event-loop/kernel-transport.js';
import { FUSE_NATIVE_ABILITIES } from '../../mount/fuse-native/abilities.js';
import type { Abilities } from '../../mount/transport/transport.js';
import { fillPattern } from '../conformance/pattern.js';
import {
  abortBuses,
  type CommandOptions,
  execute,
  isInstalled,
  type Mount,
  mountsBelow,
  type Outcome,
  output,
  start,
} from './command.js';
import { type Identity, NAMESPACE, ROOT, type Runner, USER } from './runners.js';

const CLI = fileURLToPath(new URL('../../cli/main.cjs', import.meta.url));

export interface TestTransport {
  readonly name: string;
  /** what `attach` is told to use it */
  readonly options: readonly string[];
  readonly abilities: Abilities;
  /** missing: root */
  readonly runner?: Runner;
  /** why this machine cannot use it; false where it can */
  whyNot(): string | false;
}

/** Every transport that the same tests must pass on. */
const TRANSPORTS: readonly TestTransport[] = [
  {
    name: 'kernel',
    options: [],
    abilities: KERNEL_ABILITIES,
    whyNot: () => false,
  },
  {
    name: 'fuse-native',
    options: ['--transport', 'fuse-native'],
    abilities: FUSE_NATIVE_ABILITIES,
    whyNot: whyNotNative,
  },
];

/** Those who are not root, for tests that they must pass too: on the kernel transport, or on both where it is cheap. */
export const OTHERS: readonly Way[] = [
  ['kernel', USER],
  ['kernel', NAMESPACE],
];
/** Where one of them shows as much as both. */
export const JUST_USER = OTHERS.slice(0, 1);
export const JUST_NAMESPACE = OTHERS.slice(1);
export const OTHERS_ON_BOTH: readonly Way[] = [...OTHERS, ['fuse-native', USER], ['fuse-native', NAMESPACE]];

/** A transport, and who runs the programs. */
export type Way = readonly [transport: string, runner: Runner];

export interface TestDriver {
  readonly name: 'aio' | 'ram' | 'sync';
  /** what tests of it are called */
  readonly label: string;
  /** what `attach` is told beside the spec */
  readonly options: readonly string[];
  /** what is written to the vbd is written to the image */
  readonly writesImage: boolean;
}

/** Each driver as it is by default: by threads, but for ram, which is passed through where the kernel can do that. */
export const DRIVERS: readonly TestDriver[] = [
  { name: 'aio', label: 'driver aio', options: [], writesImage: true },
  { name: 'ram', label: 'driver ram', options: [], writesImage: false },
  { name: 'sync', label: 'driver sync', options: [], writesImage: true },
];

/** And ram by threads. */
export const ALL_WAYS: readonly TestDriver[] = [
  ...DRIVERS,
  { name: 'ram', label: 'driver ram by threads', options: ['--passthrough', 'off'], writesImage: false },
];

/** Why this machine cannot run a test that mounts buses and uses the programs; false where it can. */
export function whyNot(...programs: string[]): string | false {
  if (process.geteuid?.() !== 0) return 'needs root';
  if (!existsSync('/dev/fuse')) return 'there is no /dev/fuse';
  const missing = programs.filter((program) => !isInstalled(program));
  if (missing.length > 0) return `not installed: ${missing.join(', ')}`;
  return programs.includes('losetup') && !existsSync('/dev/loop-control') ? 'there are no loop devices' : false;
}

/** The package is optional, and needs libfuse 2. */
function whyNotNative(): string | false {
  try {
    createRequire(import.meta.url)('fuse-native');
    return false;
  } catch (error) {
    return `fuse-native cannot be loaded: ${(error as Error).message.split('\n')[0]}`;
  }
}

/**
 * One test on the default transport, for what does not depend on how files are served: twice the time would show
 * nothing more.
 * @param others the ways that it is done in beside
 */
export function onDefaultTransport(
  t: Test,
  programs: readonly string[],
  body: (t: Test, transport: TestTransport) => Promise<void>,
  others: readonly Way[] = [],
): void {
  for (const transport of [...TRANSPORTS.slice(0, 1), ...others.map(runBy)]) tell(t, programs, transport, body);
}

/**
 * One test for each transport; skipped where the machine lacks one of the programs.
 * @param others the ways that it is done in beside
 */
export function forEachTransport(
  t: Test,
  programs: readonly string[],
  body: (t: Test, transport: TestTransport) => Promise<void>,
  others: readonly Way[] = [],
): void {
  for (const transport of [...TRANSPORTS, ...others.map(runBy)]) tell(t, programs, transport, body);
}

/** One test for each of those ways only. */
export function forEachWay(
  t: Test,
  ways: readonly Way[],
  body: (t: Test, transport: TestTransport) => Promise<void>,
): void {
  for (const transport of ways.map(runBy)) tell(t, [], transport, body);
}

function tell(
  t: Test,
  programs: readonly string[],
  transport: TestTransport,
  body: (t: Test, transport: TestTransport) => Promise<void>,
): void {
  const skip = whyNot(...programs) || transport.whyNot();
  void t.test(`transport ${transport.name}${transport.runner?.label ?? ''}`, { skip }, (t) => body(t, transport));
}

function runBy([name, runner]: Way): TestTransport {
  const transport = TRANSPORTS.find((candidate) => candidate.name === name);
  if (transport === undefined) throw new TypeError(`there is no transport ${name}`);
  const { abilities } = transport;
  const passthrough = abilities.passthrough && runner.passthrough;
  return {
    ...transport,
    runner,
    abilities: { ...abilities, passthrough },
    whyNot: () => runner.whyNot() || transport.whyNot(),
  };
}

/** One test for each driver, each with a bench of its own. */
export async function forEachDriver(
  t: Test,
  transport: TestTransport,
  body: (t: Test, bench: Bench, driver: TestDriver) => Promise<void>,
  drivers: readonly TestDriver[] = DRIVERS,
): Promise<void> {
  // sync is aio with a flag, which asks nothing more of who runs it, nor of a transport that is not the default
  const isUsual = transport.runner === undefined && transport === TRANSPORTS[0];
  const wanted = isUsual || drivers !== DRIVERS ? drivers : drivers.filter(({ name }) => name !== 'sync');
  for (const driver of wanted) {
    await t.test(driver.label, async (t) => body(t, await openBench(t, transport), driver));
  }
}

/** What is tried: all of it by root, the first by a user and the second in a user namespace, which costs time for one. */
export function shareOut<Choice>(transport: TestTransport, choices: readonly Choice[]): readonly Choice[] {
  if (transport.runner === undefined) return choices;
  return transport.runner.name === 'user' ? choices.slice(0, 1) : choices.slice(1, 2);
}

/** What there is to tell: to everybody, and what only root can have or needs no second telling. */
export function storiesFor<Story>(
  transport: TestTransport,
  everybodys: Readonly<Record<string, Story>>,
  roots: Readonly<Record<string, Story>>,
): Readonly<Record<string, Story>> {
  return transport.runner === undefined ? { ...everybodys, ...roots } : everybodys;
}

/** A bench that is cleared away after the test. */
export async function openBench(t: Test, transport: TestTransport): Promise<Bench> {
  const directory = await realpath(await mkdtemp(join(tmpdir(), 'bench-')));
  const identity = await (transport.runner ?? ROOT).enter();
  identity.give(directory);
  const bench = new Bench(directory, transport, identity);
  t.teardown(() => bench.clear());
  return bench;
}

/** The same bench, in which root runs the programs. */
export function withRoot(bench: Bench): Pick<Bench, 'execute'> {
  return { execute: (program, args, more) => execute(program, args, bench.options(more)) };
}

export class Bench {
  readonly directory: string;
  readonly runtimeDir: string;
  readonly transport: TestTransport;
  readonly #identity: Identity;

  constructor(directory: string, transport: TestTransport, identity: Identity) {
    this.directory = directory;
    this.runtimeDir = join(directory, 'runtime');
    this.transport = transport;
    this.#identity = identity;
  }

  /** The command line's program. */
  readonly program = CLI;

  /** An absolute path in the bench. */
  path(name: string): string {
    return join(this.directory, name);
  }

  /** How programs run here: in the bench's directory, talking to its buses. */
  options(more: CommandOptions = {}): CommandOptions {
    const env = { FUSETAP_RUNTIME_DIR: this.runtimeDir, FUSETAP_BUS: undefined, ...more.env };
    const { mountinfo } = this.#identity;
    return { cwd: this.directory, busesBelow: this.directory, mountinfo, ...more, env };
  }

  /** A program, run by whom the bench is of. */
  #as(program: string, args: readonly string[]): [program: string, args: string[]] {
    return this.#identity.words(this.directory, program, args);
  }

  /** Runs the command line to its end, whatever that is. */
  fusetap(args: readonly string[], more?: CommandOptions): Promise<Outcome> {
    return execute(...this.#as(process.execPath, [CLI, ...args]), this.options(more));
  }

  /** Starts the command line and leaves it running. */
  startFusetap(args: readonly string[], more?: CommandOptions): ReturnType<typeof start> {
    return start(...this.#as(process.execPath, [CLI, ...args]), this.options(more));
  }

  /** Starts a program and leaves it running. */
  startProgram(program: string, args: readonly string[], more?: CommandOptions): ReturnType<typeof start> {
    return start(...this.#as(program, args), this.options(more));
  }

  /** What a command line that has to succeed prints, without the end of its line. */
  async succeed(args: readonly string[], more?: CommandOptions): Promise<string> {
    return (await output(...this.#as(process.execPath, [CLI, ...args]), this.options(more))).replace(/\n$/, '');
  }

  /** Attaches with the transport under test. @returns the path that it prints */
  attach(...words: string[]): Promise<string> {
    return this.succeed(['attach', ...this.transport.options, ...words]);
  }

  /** Begins a bus that stays, with the transport under test. @returns the path that it prints */
  begin(...words: string[]): Promise<string> {
    return this.succeed(['start', ...this.transport.options, ...words]);
  }

  async detach(...words: string[]): Promise<void> {
    await this.succeed(['detach', ...words]);
  }

  async list(): Promise<VbdInfo[]> {
    return JSON.parse(await this.succeed(['ls', '--json'])) as VbdInfo[];
  }

  /** Runs a program to its end, whatever that is. */
  execute(program: string, args: readonly string[], more?: CommandOptions): Promise<Outcome> {
    return execute(...this.#as(program, args), this.options(more));
  }

  /** What a shell script prints that has to succeed; the arguments are `$1`, `$2`, … in it. */
  async sh(script: string, ...args: string[]): Promise<string> {
    return (await output(...this.#as('sh', ['-euc', script, 'sh', ...args]), this.options())).trimEnd();
  }

  /** The outcome of a shell script that may fail. */
  try(script: string, ...args: string[]): Promise<Outcome> {
    return this.execute('sh', ['-euc', script, 'sh', ...args]);
  }

  /** An image: sparse, its first `patternBytes` bytes a function of their place. */
  async image(name: string, sizeBytes: number, patternBytes = 0): Promise<string> {
    const file = await open(this.path(name), 'w');
    try {
      for (let at = 0; at < patternBytes; at += CHUNK_BYTES) {
        const chunk = Buffer.alloc(Math.min(CHUNK_BYTES, patternBytes - at));
        fillPattern(chunk, at, 1);
        await file.write(chunk, 0, chunk.length, at);
      }
      await file.truncate(sizeBytes);
    } finally {
      await file.close();
    }
    this.#identity.give(this.path(name));
    return this.path(name);
  }

  async makeDirectory(name: string): Promise<string> {
    await mkdir(this.path(name));
    this.#identity.give(this.path(name));
    return this.path(name);
  }

  /** A loop device over a file. */
  loop(path: string, ...options: string[]): Promise<string> {
    return this.sh('path=$1; shift; losetup --find --show "$@" "$path"', path, ...options);
  }

  mounts(): Promise<Mount[]> {
    return mountsBelow(this.directory, this.#identity.mountinfo);
  }

  /** What there is of buses: their processes, their mounts, their files. One line each; none where all is over. */
  async traces(): Promise<string[]> {
    const mounts = (await this.mounts()).map(({ path, type }) => `mount of type ${type}: ${path}`);
    const files = await Promise.all(
      ['bus', 'state', 'ram'].map(async (name) => {
        const entries = await readdir(join(this.runtimeDir, name)).catch(() => []);
        return entries.map((entry) => `file: ${name}/${entry}`);
      }),
    );
    return [...(await this.busProcesses()), ...mounts, ...files.flat()];
  }

  /** The keepers and servers of the bench's buses, as `process PID: COMMAND`. */
  async busProcesses(): Promise<string[]> {
    const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
    const lines = pids.map(async (pid) => {
      const text = (name: string): Promise<string> => readFile(`/proc/${pid}/${name}`, 'utf8').catch(() => '');
      const [environment, command] = await Promise.all([text('environ'), text('cmdline')]);
      const ours = environment.split('\0').includes(`FUSETAP_RUNTIME_DIR=${this.runtimeDir}`);
      return ours && /mount\/(bus|keeper|server)\/[a-z-]*main\.c?js/.test(command)
        ? [`process ${pid}: ${command.replaceAll('\0', ' ')}`]
        : [];
    });
    return (await Promise.all(lines)).flat();
  }

  /** Takes everything away: mounts on loop devices, the devices, buses, files. */
  async clear(): Promise<void> {
    const byForce = async (script: string, ...args: string[]): Promise<void> => {
      await execute('sh', ['-c', script, 'sh', ...args], this.options({ timeoutMs: 10_000 })).catch(() => {});
    };
    const others = (await this.mounts()).filter(({ type }) => !type.startsWith('fuse'));
    for (const { path } of others.reverse()) await byForce('umount "$1" || umount -l "$1"', path);
    for (const device of await this.loops()) await byForce('losetup -d "$1"', device);
    if ((await this.traces()).length > 0) {
      await this.fusetap(['stop', '--all', '--force', '--quiet']).catch(() => {});
    }
    await abortBuses(this.directory, this.#identity.mountinfo);
    this.#identity.end();
    for (const { path } of await mountsBelow(this.directory)) await byForce('umount -l "$1"', path);
    // never into a mount, and not by this process: a dead bus below would hang it
    await byForce('chattr -R -i "$1" 2>&-; rm -rf --one-file-system "$1"', this.directory);
  }

  /** The loop devices on files of the bench. */
  async loops(): Promise<string[]> {
    const names = (await readdir('/sys/block').catch(() => [])).filter((name) => name.startsWith('loop'));
    const loops = names.map(async (name) => {
      const file = await readFile(`/sys/block/${name}/loop/backing_file`, 'utf8').catch(() => '');
      return file.startsWith(`${this.directory}/`) ? [`/dev/${name}`] : [];
    });
    return (await Promise.all(loops)).flat();
  }
}

const CHUNK_BYTES = 1 << 20;
