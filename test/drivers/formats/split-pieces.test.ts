import fc from 'fast-check';
import t from 'tap';
import { frontDisk } from '../../../drivers/disk.js';
import { FusetapError } from '../../../drivers/errors.js';
import split from '../../../drivers/split/index.js';
import { namesAfter } from '../../../drivers/split/pieces.js';
import { bufferDisk } from '../../conformance/buffer-disk.js';
import { seed } from './image-bytes.js';

const first = (name: string, count: number): string[] =>
  namesAfter(name)
    .pieces.slice(0, count)
    .map((piece) => piece.name);

t.test('the names after a first piece', async (t) => {
  t.same(first('disk.img.001', 3), ['disk.img.002', 'disk.img.003', 'disk.img.004']);
  t.same(first('disk.img.000', 2), ['disk.img.001', 'disk.img.002']);
  t.same(first('x01', 1), ['x02']);
  t.same(first('000', 1), ['001'], 'a number alone');
  t.same(first('imgaa', 27).slice(-3), ['imgaz', 'imgba', 'imgbb']);
  t.same(first('x00', 100).slice(-2), ['x99', 'x100']);
  t.same(namesAfter('x00').otherwise?.pieces[0], { role: 'part1000', name: 'x9000' });
  for (const name of ['x000', 'x01', 'xaa']) t.equal(namesAfter(name).otherwise, null, name);
});

t.test('what is not the name of a first piece', async (t) => {
  for (const name of ['disk.img', 'disk.img.002', 'disk.img.100', 'x0', 'x1', 'xab', '', '.', '2024000']) {
    t.throws(() => namesAfter(name), { code: 'USAGE', hint: /001, 000, 00 or aa/ }, name);
  }
  for (const name of ['disk-s001.vmdk', 'disk-f001']) {
    t.throws(() => namesAfter(name), { code: 'USAGE', hint: /vmdk:/ }, name);
  }
});

const disk = frontDisk(bufferDisk(Buffer.alloc(10)), { readOnly: false });

/** Asks until nothing more is asked for, with the files that exist. */
async function settle(name: string, exists: (name: string) => boolean): Promise<string[]> {
  const disks: Record<string, typeof disk> = { file: disk };
  const absent: string[] = [];
  const found: string[] = [];
  for (let round = 0; ; round++) {
    if (round > 300) throw new Error('it asks for ever');
    const needs = await split.needs({ files: {}, disks, options: {}, name, absent });
    if (needs.length === 0) return found;
    for (const need of needs) {
      if (need.isOptional !== true || need.driver !== 'aio')
        throw new Error(`a need that is not optional: ${need.name}`);
      if (disks[need.role] !== undefined || absent.includes(need.role)) throw new Error(`asked twice: ${need.name}`);
      // a name with a colon must not look like a protocol
      if (!need.name.startsWith('./')) throw new Error(`a name that may be a protocol: ${need.name}`);
      const name = need.name.slice(2);
      if (exists(name)) {
        disks[need.role] = disk;
        found.push(name);
      } else absent.push(need.role);
    }
  }
}

t.test('names are asked for until one does not exist', async (t) => {
  t.same(await settle('a.001', () => false), []);
  const below = (limit: string) => (name: string) => /\d{3}$/.test(name) && name > 'a.001' && name < limit;
  t.same(await settle('a.001', below('a.005')), ['a.002', 'a.003', 'a.004']);
  t.equal((await settle('a.001', below('a.250'))).length, 248);
  await t.rejects(
    settle('a.001', (name) => name !== 'a.000' && name !== 'a.00a'),
    { code: 'UNSUPPORTED', message: /more than 250/ },
  );
  const both = (name: string): boolean => !name.includes('a');
  await t.rejects(settle('x00', both), { code: 'USAGE', message: "both 'x9000' and 'x90' exist" });
  await t.rejects(split.needs({ files: {}, disks: { file: disk }, options: {}, name: null, absent: [] }), {
    code: 'USAGE',
  });
});

t.test(`any files beside the first (FUSETAP_TEST_SEED=${seed})`, async (t) => {
  const names = fc.constantFrom('x00', 'x01', 'a.001', 'a.000', 'xaa');
  const property = fc.asyncProperty(
    names,
    fc.array(fc.boolean(), { minLength: 1, maxLength: 40 }),
    async (name, there) => {
      let asked = 0;
      const answers = new Map<string, boolean>();
      const exists = (other: string): boolean => {
        const answer = answers.get(other) ?? there[asked++ % there.length] === true;
        answers.set(other, answer);
        return answer;
      };
      await settle(name, exists).catch((error: unknown) => {
        if (!(error instanceof FusetapError)) throw error;
      });
    },
  );
  await fc.assert(property, { seed, numRuns: 300 });
  t.pass();
});
