/** `fusetap run`: runs a command with images attached, and detaches them when it ends. */
import type { Command } from 'commander';
import { defined } from '../../drivers/defined.js';
import { FusetapError } from '../../drivers/errors.js';
import { attach, type BusPlace, Lifeline, resolveBus } from '../../mount/client/index.js';
import type { VbdInfo } from '../../mount/control/interface.js';
import { attachRequest, type Wanted } from '../attach-request.js';
import { callersRuntimeDir, endHelp, RUN_FAILED, type SharedOptions } from '../options.js';
import { printNote, reportFailure } from '../output.js';
import { withProgress } from '../progress-bar.js';
import { endPrivateBus } from '../run/end-private-bus.js';
import { runCommand, statusOfSignal } from '../run/run-command.js';
import { catchSignals, type SignalCatch } from '../run/signals.js';

const EXITS = [
  'the exit status of CMD, or:',
  '125  fusetap failed: CMD was not run, or the detach failed',
  '126  CMD cannot be run',
  '127  CMD was not found',
  '128+N  CMD ended by signal N',
];

export function register(program: Command): void {
  const command = program
    .command('run')
    .summary('run a command with images attached')
    .description(
      'Attaches each SPEC to a new bus, runs CMD, and detaches. In CMD, FUSETAP_DEVICE is the path of the first ' +
        'file, and FUSETAP_DEVICES has the paths of all files, one per line.',
    )
    .usage('[options] SPEC... -- CMD...')
    .argument('[SPEC...]')
    .exitOverride((error) => {
      if (error.exitCode !== 0) error.exitCode = RUN_FAILED;
      throw error;
    })
    .action(async (words: string[], _: unknown, self: Command) => {
      const options = self.optsWithGlobals<SharedOptions>();
      try {
        process.exitCode = await run(splitWords(words, rawWords(self)), options);
      } catch (error) {
        reportFailure(error, options);
        process.exitCode = RUN_FAILED;
      }
    });
  endHelp(command, [`fusetap run ram:golden.img -- sh -c 'mkfs.ext4 -q "$FUSETAP_DEVICE"'`], EXITS);
}

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
  if (specs.length === 0) {
    throw new FusetapError('USAGE', 'nothing to attach', { hint: 'fusetap run SPEC... -- CMD...' });
  }
  return { specs, cmd: [program, ...rest] };
}

/** @returns the exit status */
async function run({ specs, cmd }: RunWords, options: SharedOptions): Promise<number> {
  if (options.bus !== undefined) {
    throw new FusetapError('USAGE', `run starts a new bus, it cannot use ${options.bus}`, { hint: 'omit --bus' });
  }
  const wanted = specs.map((spec) => attachRequest([spec]));
  if (options.verbose) wanted.flatMap(({ notes }) => notes).forEach(printNote);
  const place = await privateBus();
  const signals = catchSignals();
  const lifeline = new Lifeline();
  try {
    const vbds = await attachAll(place, wanted, options, { signals, lifeline });
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

/** Attaches all disks, or none. */
async function attachAll(
  place: BusPlace,
  wanted: readonly Wanted[],
  options: SharedOptions,
  { signals, lifeline }: Safeguards,
): Promise<VbdInfo[]> {
  const vbds: VbdInfo[] = [];
  try {
    // in order, because a vbd without a vdev takes the first free one
    for (const { request } of wanted) {
      const vbd = await withProgress('copying', options, (progress) =>
        attach(place, request, { signal: signals.aborted, lifeline, ...defined({ progress }) }),
      );
      vbds.push(vbd);
    }
    return vbds;
  } catch (error) {
    // if this is given up before the bus was asked, its keeper waits for an attach that never comes
    if (vbds.length > 0 || signals.aborted.aborted) await endPrivateBus(place);
    throw error;
  }
}

function runWith(vbds: readonly VbdInfo[], cmd: RunWords['cmd'], safeguards: Safeguards): number | Promise<number> {
  const early = safeguards.signals.first();
  if (early !== undefined) return statusOfSignal(early);
  const paths = vbds.map((vbd) => vbd.path);
  return runCommand(cmd, { FUSETAP_DEVICE: paths[0], FUSETAP_DEVICES: paths.join('\n') }, safeguards);
}
