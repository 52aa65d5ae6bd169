/**
 * Reads that a disk has to answer, many at a time, while their bus is told of other vbds, is held, and loses its
 * server: each gives the bytes that were written, and none is forgotten.
 */
import t, { type Test } from 'tap';
import { type Bench, JUST_USER, onDefaultTransport, openBench } from './fixtures.js';
import { busInfo, replaceServer } from './kill-server.js';

t.setTimeout(240_000);

const IMAGE_BYTES = 96 << 20;
const ROUNDS = 2;

t.test('cold reads', (t) => {
  onDefaultTransport(t, ['fio', 'dd'], async (t, transport) => readCold(t, await openBench(t, transport)), JUST_USER);
  t.end();
});

async function readCold(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('cold.img', IMAGE_BYTES);
  const other = await bench.image('other.img', 64 << 10);
  const vbd = await bench.attach(image, 'xvda');
  const write = await bench.execute('fio', fio(vbd, '--rw=write', '--end_fsync=1'));
  t.equal(write.status, 0, write.stderr);
  for (let round = 0; round < ROUNDS; round++) {
    await dropCache(bench, image);
    const reading = bench.execute('fio', fio(vbd, '--rw=randread'));
    for (let times = 0; times < 4; times++) {
      await bench.attach(other, 'xvdb');
      await bench.succeed(['pause', 'xvda']);
      await bench.succeed(['resume', 'xvda']);
      await bench.detach('xvdb');
      await dropCache(bench, image);
    }
    if (round % 2 === 1) await replaceServer(bench);
    const { status, stderr } = await reading;
    t.equal(status, 0, `round ${round}: ${stderr}`);
  }
  t.match(await busInfo(bench), { state: 'running', restarts: ROUNDS / 2 });
  await bench.detach('--wait', '10', 'xvda');
}

/** For a second or two: each block says itself what it is. */
function fio(vbd: string, ...more: string[]): string[] {
  const job = ['--name=cold', `--filename=${vbd}`, `--size=${IMAGE_BYTES}`, '--bs=16k', '--allow_file_create=0'];
  const verify = ['--verify=crc32c', '--verify_fatal=1', '--do_verify=1', '--output-format=terse'];
  return [
    ...job,
    ...verify,
    '--ioengine=libaio',
    '--iodepth=32',
    '--direct=1',
    '--thread',
    '--rate_iops=3000',
    ...more,
  ];
}

/** What is dirty stays: it is on its way to the disk. */
async function dropCache(bench: Bench, image: string): Promise<void> {
  await bench.sh('dd if="$1" iflag=nocache count=0 status=none', image);
}
