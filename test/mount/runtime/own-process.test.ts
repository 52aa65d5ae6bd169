/** Where the log of a bus is on a file system that is full, its processes live on. */
import { spawnSync } from 'node:child_process';
import { openSync } from 'node:fs';
import { resolve } from 'node:path';
import t from 'tap';

const FULL = '/dev/full';
const MODULE = resolve(import.meta.dirname, '../../../mount/runtime/own-process.js');

function write(before: string): number | null {
  // twice: the first error comes back with the second write at the latest
  const script = `${before}; console.error('a'); console.log('b'); setTimeout(() => console.error('c'), 50); setTimeout(() => {}, 100)`;
  const full = openSync(FULL, 'w');
  return spawnSync(process.execPath, ['--input-type=module', '-e', script], { stdio: ['ignore', full, full] }).status;
}

t.test('a full log ends no process', async (t) => {
  t.equal(write(`await import(${JSON.stringify(MODULE)})`), 0);
  t.not(write(''), 0, 'as it ends others');
});
