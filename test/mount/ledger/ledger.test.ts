/** What outlives the server: attributes, failed flushes, handles and work, seen through several mappings. */
import { execFileSync } from 'node:child_process';
import t from 'tap';
import { createLedger, Ledger, MAX_FILES, MAX_HANDLES, WORK_PLACES } from '../../../mount/ledger/ledger.js';

const ATTACHED_MS = 1_650_000_000_123;
const OWNER = { mode: 0o600, uid: 0, gid: 4_294_967_294 };

function makeLedger(): { fd: number; ledger: Ledger } {
  const fd = createLedger();
  return { fd, ledger: new Ledger(fd) };
}

t.test('a new record has the times of its attach', async (t) => {
  const { ledger } = makeLedger();
  ledger.resetFile(7, OWNER, ATTACHED_MS);
  const at = { sec: 1_650_000_000, nsec: 123_000_000 };
  t.strictSame(ledger.attributes(7), {
    ...OWNER,
    ...{ atimeSec: at.sec, atimeNsec: at.nsec, mtimeSec: at.sec, mtimeNsec: at.nsec },
    ...{ ctimeSec: at.sec, ctimeNsec: at.nsec },
  });
});

t.test('what one mapping writes, every other sees, in either direction', async (t) => {
  const { fd, ledger: first } = makeLedger();
  const second = new Ledger(fd);
  first.resetFile(0, OWNER, ATTACHED_MS);
  t.strictSame(second.attributes(0), first.attributes(0));
  second.setOwner(0, { mode: 0o644 });
  second.setTime(0, 'mtime', 5, 6);
  second.noteFlushError(0, 28);
  second.setHandle(3, { fh: 9, nodeId: 2, pid: 77, flags: 0o100002 }, 1);
  t.equal(first.attributes(0).mode, 0o644);
  t.equal(first.attributes(0).mtimeSec, 5);
  t.strictSame(first.flushErrors(0), { count: 1, errno: 28 });
  t.strictSame(first.handleAt(3), { fh: 9, nodeId: 2, pid: 77, flags: 0o100002 });
});

t.test('another process that maps the descriptor sees it too', async (t) => {
  const { fd, ledger } = makeLedger();
  ledger.resetFile(0, OWNER, ATTACHED_MS);
  const program = `import { Ledger } from ${JSON.stringify(new URL('../../../mount/ledger/ledger.js', import.meta.url).href)};
    const ledger = new Ledger(3);
    ledger.setOwner(0, { uid: ledger.attributes(0).gid });
    ledger.noteFlushError(0, 5);`;
  execFileSync(process.execPath, ['--input-type=module', '-e', program], { stdio: ['ignore', 1, 2, fd] });
  t.equal(ledger.attributes(0).uid, 4_294_967_294);
  t.strictSame(ledger.flushErrors(0), { count: 1, errno: 5 });
});

t.test('records are side by side: the first, the last, and none touches another', async (t) => {
  const { ledger } = makeLedger();
  const indexes = [0, 1, MAX_FILES - 1];
  for (const index of indexes) ledger.resetFile(index, { ...OWNER, uid: index }, ATTACHED_MS + index);
  const before = indexes.map((index) => ledger.attributes(index));
  ledger.setHandle(0, { fh: 1, nodeId: 2, pid: 3, flags: 4 }, 5);
  ledger.setHandle(MAX_HANDLES - 1, { fh: 2 ** 53 - 1, nodeId: 2 ** 40, pid: 2 ** 31 - 1, flags: 6 }, 7);
  ledger.beginWork(0, 8, 18);
  ledger.beginWork(WORK_PLACES - 1, 9, 19);
  t.strictSame(
    indexes.map((index) => ledger.attributes(index)),
    before,
  );
  t.strictSame(ledger.handleAt(0), { fh: 1, nodeId: 2, pid: 3, flags: 4 });
  t.strictSame(ledger.handleAt(MAX_HANDLES - 1), { fh: 2 ** 53 - 1, nodeId: 2 ** 40, pid: 2 ** 31 - 1, flags: 6 });
  t.equal(ledger.handleAt(1), null);
  ledger.resetFile(0, OWNER, ATTACHED_MS);
  t.equal(ledger.attributes(1).uid, 1);
});

t.test('a place that is used again starts over', async (t) => {
  const { ledger } = makeLedger();
  ledger.resetFile(0, OWNER, ATTACHED_MS);
  const fresh = ledger.attributes(0);
  ledger.setOwner(0, { mode: 0o777, uid: 1, gid: 1 });
  ledger.noteWrite(0, Date.now());
  ledger.noteFlushError(0, 5);
  ledger.resetFile(0, OWNER, ATTACHED_MS);
  t.strictSame(ledger.attributes(0), fresh);
  t.strictSame(ledger.flushErrors(0), { count: 0, errno: 0 });
});

t.test('a write moves mtime and ctime, not atime', async (t) => {
  const { ledger } = makeLedger();
  ledger.resetFile(0, OWNER, ATTACHED_MS);
  ledger.noteWrite(0, ATTACHED_MS + 5_500);
  const { atimeSec, mtimeSec, mtimeNsec, ctimeSec, ctimeNsec } = ledger.attributes(0);
  t.equal(atimeSec, 1_650_000_000);
  t.strictSame([mtimeSec, mtimeNsec], [1_650_000_005, 623_000_000]);
  t.strictSame([ctimeSec, ctimeNsec], [1_650_000_005, 623_000_000]);
});

t.test('of a set time and a write, the later wins, within one millisecond too', async (t) => {
  const { ledger } = makeLedger();
  const now = Date.now();
  ledger.resetFile(0, OWNER, ATTACHED_MS);
  ledger.noteWrite(0, now);
  ledger.setTime(0, 'mtime', -7, 8);
  t.strictSame([ledger.attributes(0).mtimeSec, ledger.attributes(0).mtimeNsec], [-7, 8], 'set after the write');
  ledger.noteWrite(0, now);
  t.equal(ledger.attributes(0).mtimeSec, Math.floor(now / 1000), 'written after that');
  ledger.setTime(0, 'mtime', 2 ** 33, 0);
  t.equal(ledger.attributes(0).mtimeSec, 2 ** 33, 'set to the future');
  ledger.noteWrite(0, now);
  t.equal(ledger.attributes(0).mtimeSec, Math.floor(now / 1000), 'a write still wins');
  ledger.setTime(0, 'atime', 3, 4);
  t.equal(ledger.attributes(0).mtimeSec, Math.floor(now / 1000), 'atime is another matter');
  t.strictSame([ledger.attributes(0).atimeSec, ledger.attributes(0).atimeNsec], [3, 4]);
});

t.test('ctime never goes back', async (t) => {
  const { ledger } = makeLedger();
  ledger.resetFile(0, OWNER, ATTACHED_MS);
  ledger.noteWrite(0, ATTACHED_MS + 1_000);
  ledger.touchChange(0, ATTACHED_MS + 9_000);
  t.equal(ledger.attributes(0).ctimeSec, 1_650_000_009);
  t.equal(ledger.attributes(0).mtimeSec, 1_650_000_001);
});

t.test('handles are counted by file', async (t) => {
  const { ledger } = makeLedger();
  const record = (nodeId: number) => ({ fh: 10 + nodeId, nodeId, pid: 1, flags: 0 });
  ledger.setHandle(0, record(2), 0);
  ledger.setHandle(1, record(2), 0);
  ledger.setHandle(2, record(5), 0);
  ledger.clearHandle(1);
  t.strictSame(
    ledger.countHandles(),
    new Map([
      [2, 1],
      [5, 1],
    ]),
  );
});

t.test('requests in flight are those begun and not ended; the answered are counted', async (t) => {
  const { fd, ledger } = makeLedger();
  ledger.beginWork(0, 2, 12);
  ledger.beginWork(1, 4, 14);
  ledger.beginWork(WORK_PLACES - 1, 6, 16);
  ledger.endWork(1);
  const keepers = new Ledger(fd);
  t.equal(keepers.answered(), 1);
  const writes = keepers.writes(3);
  t.strictSame(keepers.takeInFlight(), [2, 6]);
  t.equal(keepers.writes(3), writes + 1, 'each file may have been written, which nobody counted');
  t.strictSame(keepers.takeInFlight(), [], 'taken');
  t.equal(keepers.writes(3), writes + 1, 'once');
  t.equal(keepers.answered(), 1, 'what died was not answered');
});
