/** A file that is held keeps its number; one that is not gets another when it is looked up again. */
import t from 'tap';
import { awaitForgotten } from '../../../mount/fuse-native/await-forgotten.js';

/** libfuse's table and the kernel's references to it, with one file. */
class Table {
  visible = true;
  number = 7;
  /** how many more times it is looked up while somebody holds it */
  heldFor: number;

  constructor(heldFor: number) {
    this.heldFor = heldFor;
  }

  show(visible: boolean): void {
    this.visible = visible;
  }

  async lookUp(): Promise<number | null> {
    if (this.visible) return this.number;
    if (this.heldFor > 0) this.heldFor -= 1;
    else this.number += 1;
    return null;
  }
}

t.test('a file that nobody holds is forgotten at once, and stays hidden', async (t) => {
  const table = new Table(0);
  t.equal(await awaitForgotten(table, AbortSignal.timeout(5_000)), true);
  t.equal(table.visible, false);
});

t.test('a file that somebody holds is asked for until they let go', async (t) => {
  const table = new Table(3);
  t.equal(await awaitForgotten(table, AbortSignal.timeout(5_000)), true);
  t.equal(table.heldFor, 0);
});

t.test('who gives up decides what is seen: nothing is hidden behind their back', async (t) => {
  const table = new Table(Number.POSITIVE_INFINITY);
  const abort = new AbortController();
  const answer = awaitForgotten(table, abort.signal);
  setTimeout(() => {
    abort.abort();
    table.show(true);
  }, 100);
  t.equal(await answer, false);
  await new Promise((resolve) => setTimeout(resolve, 100));
  t.equal(table.visible, true);
});

t.test('a look-up that fails proves nothing', async (t) => {
  const table = new Table(0);
  table.lookUp = async () => null;
  t.equal(await awaitForgotten(table, AbortSignal.timeout(150)), false);
});
