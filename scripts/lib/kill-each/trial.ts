/** One kill: a situation on a fresh image, whose server is killed at one system call. */
import { setTimeout as delay } from 'node:timers/promises';
import { CrashFault, compareDisk } from '../../../test/crash/client.js';
import { Expectation } from '../../../test/crash/expectation.js';
import { shapeOf } from '../../../test/crash/kill-each-call.js';
import { Life } from '../../../test/crash/life.js';
import { AFTERMATH, type Situation } from '../../../test/crash/situations.js';
import { open } from '../../../test/crash/subject.js';
import type { KillImage } from './images.js';
import { MountedClient } from './mounted-client.js';
import type { Stage, Vbd } from './stage.js';
import { type CallPlace, Strace } from './strace.js';

/** longer than all else takes: then the bus hangs */
const LIMIT_MS = 90_000;

/** @returns whether the server was killed. @throws CrashFault */
export async function killOnce(
  stage: Stage,
  image: KillImage,
  situation: Situation,
  place: CallPlace,
): Promise<boolean> {
  const { subject } = image;
  const log = new Expectation(subject.content, () => 0);
  await image.restore();
  const vbd = await stage.attach(image);
  const pid = await stage.serverPid();
  const strace = await Strace.attach(pid, place);
  let isKilled = false;
  try {
    await throughMount(stage, vbd, log, async (client) => {
      await situation.run(client, shapeOf(subject));
      await client.readAll();
      isKilled = await hasEnded(strace, pid, stage);
      if (!isKilled) return;
      await AFTERMATH.run(client, shapeOf(subject));
      await client.readAll();
    });
    await stage.detach(vbd);
    // the server may also be killed while it detaches
    isKilled = isKilled || (await hasEnded(strace, pid, stage));
  } finally {
    await strace.end();
    await stage.detach(vbd).catch(() => {});
  }
  if (!image.isKept) return isKilled;
  await judge(image, log, isKilled);
  if (!isKilled) return false;
  await stage.detach(await stage.attach(image));
  await judge(image, log, false);
  return true;
}

/** Runs a client on the vbd; frees it if it hangs. */
async function throughMount(
  stage: Stage,
  { path }: Vbd,
  log: Expectation,
  work: (client: MountedClient) => Promise<void>,
): Promise<void> {
  const client = new MountedClient(path, log);
  const timer = new AbortController();
  const late = delay(LIMIT_MS, 'late', { signal: timer.signal }).catch(() => 'ended');
  try {
    const first = await Promise.race([work(client).then(() => 'done'), late]);
    if (first === 'done') return await client.close();
    throw new CrashFault(`the clients still wait after ${LIMIT_MS / 1000} s`);
  } catch (error) {
    await stage.abort();
    client.kill();
    throw error;
  } finally {
    timer.abort();
  }
}

async function hasEnded(strace: Strace, pid: number, stage: Stage): Promise<boolean> {
  if (strace.hasEnded) return true;
  return (await stage.serverPid()) !== pid;
}

async function judge(image: KillImage, log: Expectation, wasKilled: boolean): Promise<void> {
  const { subject, byQemu } = image;
  const files = await image.load();
  const faults = [...(await subject.judge(files, { wasKilled })), ...(await byQemu(files, { wasKilled }))];
  if (faults.length > 0) throw new CrashFault(`the judge${wasKilled ? ', after the kill' : ''}: ${faults.join('; ')}`);
  if (image.driver !== 'qcow2') return compareRaw(files.file, log);
  const disk = await open(new Life({ files }), subject, { readOnly: true });
  await compareDisk(disk, log, 'the image');
  await disk.close();
}

function compareRaw(file: { toBuffer(): Buffer } | undefined, log: Expectation): void {
  const wrong = file === undefined ? 'there is no image' : log.compare(file.toBuffer());
  if (wrong !== null) throw new CrashFault(`the image: ${wrong}`);
}
