/** The young generation of keepers and servers stays small, without an option of V8 that would make their start longer. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import t from 'tap';
import { BUS_NODE_OPTIONS } from '../../mount/runtime/node-options.js';

const MIB = 1 << 20;
const YOUNG_HEAP = new URL('../../system/young-heap.js', import.meta.url).href;

/** prints the size of the young generation after a busy time */
const SCRIPT = `
  const { getHeapSpaceStatistics } = await import('node:v8');
  const { keepYoungHeapSmall } = await import(process.argv[1]);
  if (process.argv[2] === 'small') keepYoungHeapSmall();
  let kept = [];
  for (let i = 0; i < 1_000_000; i++) {
    kept.push({ i });
    if (kept.length > 60_000) kept = kept.slice(30_000);
  }
  console.log(getHeapSpaceStatistics().find(({ space_name }) => space_name === 'new_space').space_size);
`;

async function sizeWhenBusy(how: 'small' | 'as it is'): Promise<number> {
  const args = [...BUS_NODE_OPTIONS, '--input-type=module', '-e', SCRIPT, YOUNG_HEAP, how];
  return Number((await promisify(execFile)(process.execPath, args)).stdout);
}

t.test('the young generation of a busy process stays small', async (t) => {
  const small = await sizeWhenBusy('small');
  t.ok(small <= 4 * MIB, `${small} bytes`);
  const usual = await sizeWhenBusy('as it is');
  t.ok(usual > 8 * MIB, `${usual} bytes without it`);
});

t.test('no option of V8 is on the command line of a bus', async (t) => {
  t.same(
    BUS_NODE_OPTIONS.filter((option) => option !== '--disable-sigusr1'),
    [],
  );
});
