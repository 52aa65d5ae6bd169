/**
 * The trial in a real Xen dom0: builds it if necessary, boots it in QEMU, runs the scenarios, and prints a table. See
 * scripts/xen-trial.
 *
 *      image/build ──► dom0.img, xen, vmlinux, initrd.img   once, kept in node_modules/.cache
 *      npm pack ─────► local.img                            at each run
 *      QEMU ─────────► agent ──► scenarios ──► table
 */
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { EXIT_CODES, FusetapError } from '../../../drivers/errors.js';
import { makeCheckoutDisk } from './checkout-disk.js';
import { buildImage, findImage } from './dom0-image.js';
import { Machine, makeOverlay } from './machine.js';
import { missing } from './needs.js';
import { killAll } from './steps.js';
import { markdownTable, printTable, type Run, replaceTable } from './table.js';
import { Runner } from './trial.js';
import { HELP, listText, parseSettings, type Settings } from './words.js';

const ROOT = resolve(import.meta.dirname, '../../../..');
// shell files are not compiled: they are in the sources only
const SOURCE = join(ROOT, 'scripts/lib/xen-trial');
const CACHE = join(ROOT, 'node_modules/.cache/xen-trial');
const PAGE = join(ROOT, 'docs/from-tapdisk.md');
/** what the dom0's agent and its console said; a failed run keeps them */
const LOGS = ['log', 'console.log'];

function say(text: string): void {
  console.error(`xen-trial: ${text}`);
}

async function prepare(settings: Settings, scratch: string, log: string): Promise<string | null> {
  await mkdir(CACHE, { recursive: true });
  const image = await findImage(SOURCE, CACHE);
  const builds = settings.rebuild || !image.isBuilt;
  const lines = await missing({ builds, cache: CACHE, path: process.env.PATH ?? '' });
  for (const line of lines) say(line);
  if (lines.length > 0) return null;
  if (builds) {
    say('building the dom0: Debian and Xen, about five minutes');
    await buildImage(image, SOURCE, CACHE, log);
  }
  say('packing fusetap for the dom0');
  await mkdir(scratch, { recursive: true });
  return image.directory;
}

async function runTrial(settings: Settings, scratch: string): Promise<number> {
  const begun = performance.now();
  const log = join(scratch, 'log');
  const image = await prepare(settings, scratch, log);
  if (image === null) return EXIT_CODES.UNSUPPORTED;
  const checkoutDisk = await makeCheckoutDisk({ root: ROOT, source: SOURCE, scratch, log });
  const parts = { image, checkoutDisk, scratch, log };
  const overlay = await makeOverlay(parts);
  const deadline = performance.now() + settings.timeoutMs;
  const { scenarios } = settings;
  const runner = new Runner({ scenarios, boot: () => new Machine(parts, overlay), deadline, say });
  const outcome = await runner.run();
  const run: Run = { ...outcome, minutes: (performance.now() - begun) / 60_000 };
  console.log(printTable(run));
  if (settings.write) await writeFile(PAGE, replaceTable(await readFile(PAGE, 'utf8'), markdownTable(run)));
  return run.rows.every(({ result }) => result === 'ok') ? 0 : 1;
}

async function main(): Promise<number> {
  const settings = parseSettings(process.argv.slice(2));
  if (settings === 'help' || settings === 'list') {
    console.log(settings === 'help' ? HELP : listText());
    return 0;
  }
  const scratch = await mkdtemp(join(tmpdir(), 'fusetap-xen-trial-'));
  let keepsLogs = false;
  const clear = async (): Promise<void> => {
    killAll();
    if (settings.keep) return say(`the disks and logs of this run: ${scratch}`);
    if (!keepsLogs) return rm(scratch, { recursive: true, force: true });
    const names = (await readdir(scratch)).filter((name) => !LOGS.includes(name));
    for (const name of names) await rm(join(scratch, name), { recursive: true, force: true });
    say(`the logs of this run: ${scratch}`);
  };
  const leave = (): void => void clear().finally(() => process.exit(130));
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, leave);
  try {
    const status = await runTrial(settings, scratch);
    // it took long
    keepsLogs = status === 1;
    return status;
  } catch (error) {
    keepsLogs = true;
    throw error;
  } finally {
    await clear();
  }
}

try {
  process.exit(await main());
} catch (error) {
  if (!(error instanceof FusetapError)) throw error;
  say(`${error.message}${error.hint ? `: ${error.hint}` : ''}`);
  process.exit(EXIT_CODES[error.code]);
}
