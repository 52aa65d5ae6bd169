/** `fusetap memory`: shows the memory that ram images use, and how much is free. */
import type { Command } from 'commander';
import { memory } from '../../mount/client/index.js';
import type { MemoryInfo } from '../../mount/control/interface.js';
import { callersRuntimeDir, endHelp, type SharedOptions } from '../options.js';
import { type Column, humanSize, print, printJson, printTable } from '../output.js';

const COLUMNS: readonly Column[] = [
  { head: 'SHARE' },
  { head: 'CONFIGURED', align: 'right' },
  { head: 'RESIDENT', align: 'right' },
  { head: 'HOLDERS' },
  { head: 'IMAGE' },
];

export function register(program: Command): void {
  const command = program
    .command('memory')
    .summary('show the memory of ram images')
    .description(
      'Shows the memory limit for ram images, how much is used and how much is free; for each image, on all ' +
        'buses, its size and the memory that it occupies. $FUSETAP_RAM_LIMIT sets the limit.',
    )
    .action(async (_: unknown, self: Command) => show(self.optsWithGlobals<SharedOptions>()));
  endHelp(command, ['fusetap memory', 'fusetap memory --json | jq .freeBytes']);
}

async function show(options: SharedOptions): Promise<void> {
  const info = await memory(callersRuntimeDir());
  if (options.json) printJson(info);
  else printMemory(info);
}

function printMemory({ totalBytes, usedBytes, freeBytes, images }: MemoryInfo): void {
  print(`ram images: limit ${humanSize(totalBytes)}, used ${humanSize(usedBytes)}, free ${humanSize(freeBytes)}`);
  if (images.length === 0) return;
  const rows = images.map(({ share, image, configuredBytes, residentBytes, holders }) => [
    share,
    humanSize(configuredBytes),
    humanSize(residentBytes),
    holders.map(({ bus, vdev, pid }) => (vdev === undefined ? `${bus}:pid ${pid}` : `${bus}:${vdev}`)).join(' '),
    image,
  ]);
  printTable(COLUMNS, rows);
}
