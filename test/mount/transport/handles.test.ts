/** Open handles: what a new server knows of the old one's, and who is told of a failed flush. */
import t from 'tap';
import { createLedger, Ledger, MAX_HANDLES } from '../../../mount/ledger/ledger.js';
import { Handles } from '../../../mount/transport/handles.js';

const EIO = 5;
const ENOSPC = 28;
const handle = (fh: number, nodeId = 2) => ({ fh, nodeId, pid: 10 + fh, flags: 2 });

t.test('handles are recorded until they are closed', async (t) => {
  const ledger = new Ledger(createLedger());
  const handles = new Handles(ledger);
  t.equal(handles.open(handle(8), 0), true);
  t.equal(handles.open(handle(10), 0), true);
  t.equal(handles.open(handle(12, 3), 1), true);
  t.strictSame(
    ledger.countHandles(),
    new Map([
      [2, 2],
      [3, 1],
    ]),
  );
  t.equal(handles.open(handle(8), 0), true, 'the same handle again');
  t.strictSame(
    ledger.countHandles(),
    new Map([
      [2, 2],
      [3, 1],
    ]),
  );
  handles.close(8);
  handles.close(8);
  handles.close(99);
  t.strictSame(
    ledger.countHandles(),
    new Map([
      [2, 1],
      [3, 1],
    ]),
  );
});

t.test('a new server knows the handles of the old one', async (t) => {
  const fd = createLedger();
  const old = new Ledger(fd);
  const before = new Handles(old);
  for (const fh of [2, 4, 6]) before.open(handle(fh), 0);
  old.noteFlushError(0, EIO);
  t.equal(before.takeFlushError(2, 0), EIO);

  const ledger = new Ledger(fd);
  const after = new Handles(ledger);
  t.equal(after.takeFlushError(2, 0), 0, 'told by the old server');
  t.equal(after.takeFlushError(4, 0), EIO, 'not told yet');
  after.open(handle(6), 0);
  t.equal(ledger.countHandles().get(2), 3, 'an OPEN that came again is the same handle');
  for (const fh of [2, 4, 6]) after.close(fh);
  t.equal(ledger.countHandles().size, 0);
});

t.test('places are found again, also by a new server', async (t) => {
  const fd = createLedger();
  const handles = new Handles(new Ledger(fd));
  for (let fh = 1; fh <= MAX_HANDLES; fh++) if (!handles.open(handle(fh), 0)) t.fail(`no place for handle ${fh}`);
  t.equal(handles.open(handle(MAX_HANDLES + 1), 0), false);
  t.equal(handles.open(handle(5), 0), true, 'one that has its place');
  handles.close(77);
  const after = new Handles(new Ledger(fd));
  t.equal(after.open(handle(MAX_HANDLES + 1), 0), true);
  t.equal(after.open(handle(MAX_HANDLES + 2), 0), false);
});

t.test('each handle is told of a failed flush once, of the errno of the last', async (t) => {
  const ledger = new Ledger(createLedger());
  const handles = new Handles(ledger);
  handles.open(handle(2), 0);
  handles.open(handle(4), 0);
  handles.open(handle(6, 3), 1);
  ledger.noteFlushError(0, EIO);
  ledger.noteFlushError(0, ENOSPC);
  handles.open(handle(8), 0);
  t.equal(handles.takeFlushError(2, 0), ENOSPC);
  t.equal(handles.takeFlushError(2, 0), 0);
  t.equal(handles.takeFlushError(4, 0), ENOSPC);
  t.equal(handles.takeFlushError(6, 1), 0, 'another file');
  t.equal(handles.takeFlushError(8, 0), 0, 'opened after it failed');
  ledger.noteFlushError(0, EIO);
  for (const fh of [2, 4, 8]) t.equal(handles.takeFlushError(fh, 0), EIO, 'the next failure');
});

t.test('a place that is used again does not inherit what its last handle was told', async (t) => {
  const ledger = new Ledger(createLedger());
  const handles = new Handles(ledger);
  handles.open(handle(2), 0);
  handles.close(2);
  handles.open(handle(4, 3), 1);
  ledger.noteFlushError(1, EIO);
  t.equal(handles.takeFlushError(4, 1), EIO);
  handles.close(4);
  handles.open(handle(6), 0);
  ledger.noteFlushError(0, EIO);
  t.equal(handles.takeFlushError(6, 0), EIO);
});
