/** Handles of 31 bits, in the ledger, each told once of a failed flush. */
import t from 'tap';
import type { Disk } from '../../../drivers/disk.js';
import { OpenFiles } from '../../../mount/fuse-native/open-files.js';
import { createLedger, Ledger, MAX_HANDLES } from '../../../mount/ledger/ledger.js';
import { E } from '../../../system/libc.js';

const O_RDWR = 2;
const O_DSYNC = 0o10000;

const file = {
  nodeId: 5,
  ledgerIndex: 0,
  flushIndex: 0,
  name: 'xvda',
  disk: {} as Disk,
  inherited: false,
  backingId: null,
};

function openLedger(): Ledger {
  const ledger = new Ledger(createLedger());
  ledger.resetFile(0, { mode: 0o600, uid: 0, gid: 0 }, Date.now());
  return ledger;
}

t.test('handles are recorded, found, and let go', async (t) => {
  const ledger = openLedger();
  const files = new OpenFiles(ledger);
  const [first, second] = [files.open(file, O_RDWR), files.open(file, O_RDWR | O_DSYNC)];
  t.ok(first > 0 && second > 0 && first !== second);
  t.equal(ledger.countHandles().get(5), 2);
  t.equal(files.find(first)?.isDurable, false);
  t.equal(files.find(second)?.isDurable, true, 'O_DSYNC is known from the open');
  files.close(first);
  t.equal(files.find(first), undefined);
  t.equal(ledger.countHandles().get(5), 1);
});

t.test('each handle is told once of a failed flush, of those since it was opened', async (t) => {
  const ledger = openLedger();
  const files = new OpenFiles(ledger);
  const before = files.open(file, O_RDWR);
  ledger.noteFlushError(0, E.EIO);
  const after = files.open(file, O_RDWR);
  t.equal(files.takeFlushError(before, file), E.EIO);
  t.equal(files.takeFlushError(before, file), 0);
  t.equal(files.takeFlushError(after, file), 0);
});

t.test('when the ledger is full there is no handle', async (t) => {
  const files = new OpenFiles(openLedger());
  const handles = Array.from({ length: MAX_HANDLES }, () => files.open(file, O_RDWR));
  t.ok(handles.every((fh) => fh > 0));
  t.equal(files.open(file, O_RDWR), 0);
  files.close(handles[7] as number);
  t.ok(files.open(file, O_RDWR) > 0);
});
