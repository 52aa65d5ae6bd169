/** The order in which a sparse VMDK is written, call by call, and what an error leaves behind. */
import { constants } from 'node:os';
import t from 'tap';
import { vmdkSubjects } from '../crash/blocks/vmdk.js';
import { Life, type LifeOptions } from '../crash/life.js';
import { open, repair, type Subject } from '../crash/subject.js';
import { copyFiles, describeCall, type Files } from '../crash/tape.js';

const GRAIN = 4096;
const [empty, missing] = await vmdkSubjects();

interface Session {
  readonly life: Life;
  readonly files: Files;
}

/** Writes to a grain that has no place, and closes. */
async function session(subject: Subject, options: Pick<LifeOptions, 'fault'> = {}): Promise<Session> {
  const files = copyFiles(subject.files);
  const life = new Life({ files, ...options });
  const disk = await open(life, subject);
  await disk.write(Buffer.alloc(512, 1), 17 * GRAIN).catch(() => {});
  await disk.close();
  return { life, files };
}

t.test('a new grain: session, space, data, copy, table, end', async (t) => {
  const { life } = await session(empty as Subject);
  const calls = life.tape.map(describeCall);
  t.match(calls[0], /^write \d+\+8$/, 'the content id');
  t.same(calls.slice(1, 3), ['write 72+1', 'flush'], 'both are durable before anything else');
  t.match(calls[3], /^grow to /);
  const entries = calls.filter((call) => /^write \d+\+4$/.test(call)).map((call) => Number.parseInt(call.slice(6), 10));
  const data = calls.findIndex((call) => call.endsWith('+512'));
  t.equal(entries.length, 2);
  t.ok((entries[0] as number) < (entries[1] as number), 'QEMU has the copies first in the file');
  t.ok(data > 0 && data < calls.indexOf(`write ${entries[0]}+4`));
  t.same(calls.slice(-3), ['flush', 'write 72+1', 'flush']);
});

t.test('a write in place waits for the new content id', async (t) => {
  const files = copyFiles((missing as Subject).files);
  const life = new Life({ files });
  const disk = await open(life, missing as Subject);
  await disk.write(Buffer.alloc(512, 1), 3 * GRAIN);
  const calls = life.tape.map(describeCall);
  t.match(calls.slice(0, 4), [/^write \d+\+8$/, 'write 72+1', 'flush', /^write \d+\+512$/]);
  t.equal(calls.length, 4);
  await disk.close();
});

for (const subject of [empty, missing] as readonly Subject[]) {
  t.test(`${subject.name}: a failed write that nobody repeats leaves tables and copies alike`, async (t) => {
    const { life } = await session(subject);
    for (let at = 1; at < life.tape.length - 2; at++) {
      const { files } = await session(subject, { fault: { at, errno: constants.errno.EIO } });
      t.same(await subject.judge(files, { wasKilled: false }), [], describeCall(life.tape[at - 1] as never));
      await repair(new Life({ files }), subject);
    }
  });
}
