/** The words of clusters against a model, and their memory. */
import fc from 'fast-check';
import t from 'tap';
import { ClusterWords, PAGE_CLUSTERS } from '../../../drivers/qcow2/checking/cluster-words.js';

const seed = Number(process.env.FUSETAP_TEST_SEED ?? Date.now() % 2 ** 31);

t.test(`words are kept, whatever the clusters (FUSETAP_TEST_SEED=${seed})`, async () => {
  const cluster = fc.oneof(
    fc.nat(3 * PAGE_CLUSTERS),
    fc.nat(200).map((n) => n * PAGE_CLUSTERS * 7 + 2 ** 40),
    fc.maxSafeNat().map((n) => Math.floor(n / 512)),
  );
  const change = fc.tuple(cluster, fc.integer({ min: 1, max: 2 ** 32 - 1 }));
  const changed = fc.array(change, { maxLength: 3000, size: 'max' });
  const clusters = fc.constantFrom(1, 2 * PAGE_CLUSTERS, 2 ** 44);
  const property = fc.property(changed, clusters, (changes, count) => {
    const words = new ClusterWords(count);
    const model = new Map<number, number>();
    for (const [at, word] of changes) {
      words.set(at, word);
      model.set(at, word);
    }
    for (const [at, word] of model) if (words.get(at) !== word) throw new Error(`${at} has ${words.get(at)}`);
    const pages = [...new Set([...model.keys()].map((at) => Math.floor(at / PAGE_CLUSTERS)))].sort((a, b) => a - b);
    if (pages.join() !== words.pages().join()) throw new Error('other pages');
    if (
      pages.some(
        (page) =>
          !words.hasPage(page) || words.get(page * PAGE_CLUSTERS + 5) !== (model.get(page * PAGE_CLUSTERS + 5) ?? 0),
      )
    )
      throw new Error('a page has other words');
  });
  fc.assert(property, { seed, numRuns: 60 });
});

t.test('a full page is set and read in order', async (t) => {
  const words = new ClusterWords(3 * PAGE_CLUSTERS);
  for (let i = 0; i < 5 * PAGE_CLUSTERS; i++) words.set(i, i + 1);
  t.ok(Array.from({ length: 5 * PAGE_CLUSTERS }, (_, i) => words.get(i)).every((word, i) => word === i + 1));
  t.same([...words.pages()], [0, 1, 2, 3, 4]);
  t.equal(words.get(5 * PAGE_CLUSTERS), 0);
});

t.test('memory depends on how many words are set, not on where', async (t) => {
  const before = process.memoryUsage().arrayBuffers;
  const words = new ClusterWords(2 ** 44);
  const count = 200_000;
  for (let i = 0; i < count; i++) words.set(i * 2 ** 24 + (i % 977), 1);
  const bytes = process.memoryUsage().arrayBuffers - before;
  t.ok(bytes < 150 * count, `${Math.round(bytes / count)} bytes a word`);
  t.equal(words.pages().length, count);
});
