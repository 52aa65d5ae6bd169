/** An idle process with garbage returns the memory to the system. */
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import t from 'tap';
import { BUS_NODE_OPTIONS } from '../../../mount/runtime/node-options.js';
import { isInstalled } from '../../e2e/command.js';

const MIB = 1 << 20;
const YOUNG_HEAP = new URL('../../../system/young-heap.js', import.meta.url).href;
const IDLE_HEAP = new URL('../../../mount/keeper/idle-heap.js', import.meta.url).href;

/** prints the size of its heap in bytes: at first, with 40 MB of garbage, and half a second later */
const SCRIPT = `
  const { collectWhenGrown } = await import(process.argv[1]);
  (await import(process.argv[3])).keepYoungHeapSmall();
  if (process.argv[2] === 'collect') collectWhenGrown(50);
  const heap = () => process.memoryUsage().heapTotal;
  const first = heap();
  let kept = Array.from({ length: 200_000 }, (_, i) => ({ text: 'number ' + i, i }));
  const full = heap();
  kept = kept.filter(({ i }) => i % 1000 === 0);
  await new Promise((resolve) => setTimeout(resolve, 500));
  console.log(JSON.stringify([first, full, heap(), kept.length]));
`;

async function heaps(how: 'collect' | 'leave'): Promise<number[]> {
  const args = [...BUS_NODE_OPTIONS, '--input-type=module', '-e', SCRIPT, fileURLToPath(IDLE_HEAP), how, YOUNG_HEAP];
  return JSON.parse((await promisify(execFile)(process.execPath, args)).stdout) as number[];
}

t.test('garbage is collected, and its pages are returned', async (t) => {
  const [first = 0, full = 0, rested = 0, kept] = await heaps('collect');
  t.ok(full - first > 10 * MIB, `${(full - first) >> 20} MiB came`);
  t.ok(rested - first < 4 * MIB, `${(rested - first) >> 20} MiB stayed`);
  t.equal(kept, 200, 'objects in use stay');
});

t.test('without collectWhenGrown the heap stays large', async (t) => {
  const [first = 0, , rested = 0] = await heaps('leave');
  t.ok(rested - first > 8 * MIB, `${(rested - first) >> 20} MiB stayed`);
});

t.test(
  'a process without a free descriptor goes on',
  { skip: isInstalled('prlimit') ? false : 'no prlimit' },
  async (t) => {
    const script = `
    const { execFileSync } = await import('node:child_process');
    (await import(process.argv[1])).collectWhenGrown(20);
    setTimeout(() => console.log('alive'), 300);
    execFileSync('prlimit', ['--pid', String(process.pid), '--nofile=3:']);
  `;
    const args = ['--input-type=module', '-e', script, fileURLToPath(IDLE_HEAP)];
    t.equal((await promisify(execFile)(process.execPath, args)).stdout, 'alive\n');
  },
);

t.test('the timer does not keep a process alive', async (t) => {
  const begun = performance.now();
  await promisify(execFile)(process.execPath, [
    '--input-type=module',
    '-e',
    '(await import(process.argv[1])).collectWhenGrown(60_000)',
    fileURLToPath(IDLE_HEAP),
  ]);
  t.ok(performance.now() - begun < 30_000);
});
