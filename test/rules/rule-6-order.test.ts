/**
 * Rule 6: a read that starts after a write was acknowledged sees it, and of overlapping writes at the same time each
 * sector has one or the other. test/rules/rule-1-one-cache.test.ts has order one call after another, through all openers.
 */
import t, { type Test } from 'tap';
import { PYTHON } from './caller.js';
import { asked, attachFor, type Ground, prepareGround, WAYS, type Way, whyNotRules } from './fixture.js';
import { seedOf } from './random.js';

t.setTimeout(120_000);

const SIZE = 1 << 20;

void t.test('rule 6: order', { skip: whyNotRules() }, async (t) => {
  const ground = await prepareGround(t);
  for (const way of WAYS) await t.test(way.label, (t) => overlap(t, ground, way, []));
  const onLoop: Way = { label: 'aio on the event loop', driver: 'aio', passthrough: 'off', writesImage: true };
  await t.test(onLoop.label, (t) => overlap(t, ground, onLoop, [{ name: 'delay', value: '1' }]));
});

/**
 * Four processes, two on each vbd, write the same range at the same time, round after round; each fills it with its own
 * letter. Between rounds they wait for each other and look: no sector may have two letters, and none may have that of an
 * earlier round.
 */
const WRITERS = String.raw`
import os, sys, random
seed, rounds, size, paths = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
waits = [os.pipe() for _ in paths]
goes = [os.pipe() for _ in paths]
for i, path in enumerate(paths):
    if os.fork() == 0:
        fd, numbers = os.open(path, os.O_RDWR), random.Random(seed)
        for round in range(rounds):
            at = numbers.randrange(size // 512 - 300) * 512
            sectors = numbers.choice([1, 8, 100, 256])
            os.read(goes[i][0], 1)
            data = bytes([1 + (round * len(paths) + i) % 250]) * (sectors * 512)
            # each begins somewhere else in the range that all have in common
            shift = i * 512 if sectors > 8 else 0
            if os.pwrite(fd, data, at + shift) != len(data): os._exit(3)
            if os.pread(fd, 1, at + shift) == b"\0": os._exit(4)
            os.write(waits[i][1], b"x")
        os._exit(0)
fds, numbers, torn = [os.open(path, os.O_RDONLY) for path in paths], random.Random(seed), 0
for round in range(rounds):
    at = numbers.randrange(size // 512 - 300) * 512
    sectors = numbers.choice([1, 8, 100, 256])
    for go in goes: os.write(go[1], b"x")
    for wait in waits: os.read(wait[0], 1)
    mine = {1 + (round * len(paths) + i) % 250 for i in range(len(paths))}
    for fd in fds:
        data = os.pread(fd, sectors * 512, at)
        for sector in range(sectors):
            letters = set(data[sector * 512 : sector * 512 + 512])
            if len(letters) != 1 or not letters <= mine: torn += 1
codes = [os.waitstatus_to_exitcode(os.wait()[1]) for _ in paths]
print(torn, sum(codes))
`;

async function overlap(
  t: Test,
  { bench, a, b }: Ground,
  way: Way,
  filters: { name: string; value: string }[],
): Promise<void> {
  const image = await bench.image(`${way.label}.img`, SIZE);
  const wish = { ...asked(way), image, mode: 'w!', filters } as const;
  const [here, there] = [await attachFor(t, a, wish), await attachFor(t, b, wish)];
  const rounds = way.driver === 'sync' ? 40 : 120;
  const words = ['-c', WRITERS, seedOf(t), rounds, SIZE, here.path, there.path, here.path, there.path].map(String);
  const { status, stdout, stderr } = await bench.execute(PYTHON, words);
  t.equal(status, 0, stderr);
  t.equal(stdout.trim(), '0 0', `${rounds} rounds: sectors that are torn or old, processes that failed`);
}
