/** `fusetap run`: runs a command with images attached, and detaches them when it ends. */
import type { Command } from 'commander';
import { FusetapError } from '../../drivers/errors.js';
import { quoted } from '../../drivers/quote.js';
import { type BusPlace, Lifeline, resolveBus } from '../../mount/client/index.js';
import type { VbdInfo } from '../../mount/control/interface.js';
import { attachAll } from '../attach-all.js';
import { addAttachOptions } from '../attach-options.js';
import { type AttachWords, isGivenApart } from '../attach-request.js';
import { disksOfSpecs } from '../attach-words.js';
import { disksOfFile } from '../disk-file/disks-of-file.js';
import type { ListedDisk } from '../listed-disk.js';
import { callersRuntimeDir, endHelp, failsWith, type HelpList, RUN_FAILED, type SharedOptions } from '../options.js';
import { reportFailure } from '../output.js';
import { checkPrivate, keepPrivate } from '../private-share.js';
import { endPrivateBus } from '../run/end-private-bus.js';
import { runCommand, statusOfSignal } from '../run/run-command.js';
import { catchSignals, type SignalCatch } from '../run/signals.js';

const EXITS: HelpList = {
  title: 'Exit codes',
  intro: 'the exit status of CMD, or:',
  rows: [
    ['125', 'fusetap failed: CMD was not run, or the detach failed'],
    ['126', 'CMD cannot be run'],
    ['127', 'CMD was not found'],
    ['128+N', 'CMD ended by signal N'],
  ],
};

export function register(program: Command): void {
  // it must differ from an exit status of CMD
  const command = failsWith(program.command('run'), RUN_FAILED)
    .summary('run a command with images attached')
    .description(
      'Attaches each SPEC to a new bus, runs CMD, and detaches. In CMD, FUSETAP_DEVICE is the path of the first ' +
        'file, and FUSETAP_DEVICES has the paths of all files, one per line. In the arguments of CMD, {} stands for ' +
        'the path of the first file, and {N} for that of file N; {{}} is {} itself. A ram image is a copy for this ' +
        'run only, unless --share names it.',
    )
    .usage('[options] SPEC... -- CMD...')
    .argument('[SPEC...]')
    .action(async (words: string[], _: unknown, self: Command) => {
      const options = self.optsWithGlobals<RunOptions>();
      try {
        process.exitCode = await run(splitWords(words, rawWords(self)), options);
      } catch (error) {
        reportFailure(error, options);
        process.exitCode = RUN_FAILED;
      }
    });
  addAttachOptions(command).option('--config <FILE>', 'attach all disks of FILE, as attach does');
  endHelp(
    command,
    [
      'fusetap run disk.img -- mkfs.ext4 -q {}',
      'fusetap run --partitions rpi.img -- e2fsck -fn {}2',
      'fusetap run --snapshot disk.img -- e2fsck -fy {}',
      `fusetap run ram:golden.img -- sh -c 'make DISK="$FUSETAP_DEVICE"'`,
    ],
    { exits: EXITS },
  );
}

type RunOptions = SharedOptions & AttachWords & { config?: string };

interface RunWords {
  specs: string[];
  cmd: [string, ...string[]];
}

/** The safeguards of a run: against signals to us, and for the bus if we are killed. */
interface Safeguards {
  readonly signals: SignalCatch;
  readonly lifeline: Lifeline;
}

/** All arguments as they were typed: commander removes the `--`. */
function rawWords(command: Command): string[] {
  return (command.parent as (Command & { rawArgs: string[] }) | null)?.rawArgs ?? [];
}

/** CMD is everything after the first `--`, unchanged. Before it, commander has removed the options. */
function splitWords(words: readonly string[], raw: readonly string[]): RunWords {
  const separator = raw.indexOf('--');
  const count = separator < 0 ? 0 : raw.length - separator - 1;
  const specs = words.slice(0, words.length - count);
  const [program, ...rest] = words.slice(specs.length);
  if (separator < 0 || program === undefined) {
    throw new FusetapError('USAGE', 'no command to run', { hint: 'fusetap run SPEC... -- CMD...' });
  }
  return { specs, cmd: [program, ...rest] };
}

/** @returns the exit status */
async function run({ specs, cmd }: RunWords, options: RunOptions): Promise<number> {
  if (options.bus !== undefined) {
    throw new FusetapError('USAGE', `run starts a new bus, it cannot use ${options.bus}`, { hint: 'omit --bus' });
  }
  const named = chooseDisks(specs, options);
  if (options.private) checkPrivate(named, options);
  const place = await privateBus();
  const disks = keepPrivate(named, place.name);
  const signals = catchSignals();
  const lifeline = new Lifeline();
  try {
    const vbds = await attachAll(place, disks, {
      ...options,
      ...{ signal: signals.aborted, lifeline },
      // if this is given up before the bus was asked, its keeper waits for an attach that never comes
      undo: async (attached) => {
        if (attached.length > 0 || signals.aborted.aborted) await endPrivateBus(place);
      },
    });
    try {
      return await runWith(vbds, cmd, { signals, lifeline });
    } finally {
      await endPrivateBus(place);
    }
  } catch (error) {
    const signal = signals.first();
    if (signal !== undefined && (error as Error).name === 'AbortError') return statusOfSignal(signal);
    throw error;
  } finally {
    signals.release();
  }
}

function privateBus(): Promise<BusPlace> {
  const random = Math.floor(Math.random() * 0x10000);
  return resolveBus(`run-${process.pid}-${random.toString(16).padStart(4, '0')}`, callersRuntimeDir());
}

function chooseDisks(specs: readonly string[], options: RunOptions): ListedDisk[] {
  if (options.config !== undefined) return disksOfFile(options.config, specs, options);
  if (!isGivenApart(options))
    return disksOfSpecs(
      specs.map((spec) => [spec]),
      options,
    );
  const [spec] = specs;
  if (spec === undefined) return disksOfSpecs([['']], options);
  throw new FusetapError('USAGE', `with --driver or --image there is no SPEC: ${quoted(spec)}`, {
    hint: 'give one of them',
  });
}

function runWith(vbds: readonly VbdInfo[], cmd: RunWords['cmd'], safeguards: Safeguards): number | Promise<number> {
  const early = safeguards.signals.first();
  if (early !== undefined) return statusOfSignal(early);
  const paths = vbds.map((vbd) => vbd.path);
  const [program, ...args] = cmd;
  return runCommand(
    [program, ...args.map((arg) => withPaths(arg, paths))],
    { FUSETAP_DEVICE: paths[0], FUSETAP_DEVICES: paths.join('\n') },
    safeguards,
  );
}

/** An argument of CMD with `{}` and `{N}` replaced, also inside a word, as find(1) does; `{{}}` stands for `{}`. */
export function withPaths(arg: string, paths: readonly string[]): string {
  return arg.replace(/\{(\{\d*\})\}|\{(\d*)\}/g, (whole, literal: string | undefined, number: string) => {
    return literal ?? paths[Number(number || 1) - 1] ?? whole;
  });
}
