/** The page of `fusetap web` in a real Chromium, while fio runs and servers are killed. */
import { once } from 'node:events';
import { resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Page } from 'playwright-core';
import t from 'tap';
import { qemuImg, qemuIo, whyNoQemu } from '../drivers/qemu.js';
import { KERNEL, startBus } from '../survival/bus.js';
import { openBrowser, openPage, whyNoBrowser } from './browser.js';
import { eventually } from './command.js';
import { type Bench, openBench, whyNot } from './fixtures.js';
import { busInfo, kill, replaceServer } from './kill-server.js';
import { standStill } from './stand-still.js';
import { startWeb } from './web-server.js';

const MIB = 2 ** 20;
/** a busy machine */
const LIMIT_MS = 60_000;
/** Chromium takes seconds to start on a slow machine, and fio runs for half a minute */
t.setTimeout(300_000);

const skip = whyNot('fio') || whyNoBrowser();

/** The exact number in a cell. */
async function numberIn(page: Page, disk: string, label: string): Promise<number | null> {
  const row = `[...document.querySelectorAll('#disks tbody tr')].find((row) => row.cells[0].textContent === '${disk}')`;
  const text = await page.evaluate(`${row}?.querySelector('[data-label="${label}"]')?.dataset.value ?? null`);
  return text === null ? null : Number(text);
}

/** As it is laid out: cells and lines are apart. */
async function textOf(page: Page, selector: string): Promise<string> {
  return (await page.locator(selector).allInnerTexts()).join('\n');
}

function waitForMap(page: Page): Promise<unknown> {
  return eventually('the map', LIMIT_MS, () => page.evaluate('document.getElementById("map").naturalWidth > 0'));
}

interface FioKind {
  readonly io_bytes: number;
  readonly total_ios: number;
  readonly iops: number;
}

/** A fixed amount of I/O at a fixed rate: about 17 seconds, or longer on a machine that cannot do that. */
const RATES = { reads: 120, writes: 60 };
const AMOUNT = '24M';

async function startFio(bench: Bench, path: string): Promise<{ ended: Promise<{ read: FioKind; write: FioKind }> }> {
  const job = [
    '--name=x',
    `--filename=${path}`,
    '--rw=randrw',
    '--rwmixread=67',
    '--bs=8k',
    '--size=32M',
    '--ioengine=libaio',
  ];
  const rate = [`--rate_iops=${RATES.reads},${RATES.writes}`, `--io_size=${AMOUNT}`, '--iodepth=4'];
  const child = bench.startProgram(
    'fio',
    [...job, ...rate, '--direct=1', '--output-format=json', '--allow_file_create=0'],
    {
      timeoutMs: 120_000,
    },
  );
  let output = '';
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    output += text;
  });
  const ended = once(child, 'close').then(() => JSON.parse(output.slice(output.indexOf('{'))).jobs[0]);
  return { ended };
}

/** The sum over the time until `isOver` of a rate that the page shows: each number stands until the next. */
async function sumShown(page: Page, label: string, isOver: () => boolean): Promise<number> {
  let sum = 0;
  for (let last = performance.now(); !isOver(); ) {
    const shown = (await numberIn(page, '0/xvda', label)) ?? 0;
    await delay(100);
    const now = performance.now();
    sum += (shown * (now - last)) / 1000;
    last = now;
  }
  return sum;
}

t.test('its numbers are those of fio, also while a server is killed', { skip }, async (t) => {
  const { bench } = await startBus(t);
  const path = await bench.attach(await bench.image('disk.img', 32 * MIB, 32 * MIB));
  const { url } = await startWeb(t, bench);
  const { page, faults, asked } = await openPage(await openBrowser(t), url);
  const before = await eventually('the row of the disk', LIMIT_MS, async () => {
    const [read, write] = [await numberIn(page, '0/xvda', 'Read'), await numberIn(page, '0/xvda', 'Written')];
    return read !== null && write !== null && { read, write };
  });
  let isOver = false;
  const sums = Promise.all(['Reads/s', 'Writes/s'].map((label) => sumShown(page, label, () => isOver)));
  const { ended } = await startFio(bench, path);
  const rate = async (): Promise<number> => (await numberIn(page, '0/xvda', 'Reads/s')) ?? 0;
  await eventually('its rate', LIMIT_MS, async () => (await rate()) > RATES.reads / 2);
  await replaceServer(bench);
  const { read, write } = await ended;
  await eventually('no rate', LIMIT_MS, async () => (await rate()) === 0);
  isOver = true;
  const [reads = 0, writes = 0] = await sums;
  const isNear = (shown: number, { total_ios }: FioKind): boolean => Math.abs(shown / total_ios - 1) < 0.1;
  t.ok(isNear(reads, read), `reads: the rates of the page are ${reads.toFixed(0)} in all, fio did ${read.total_ios}`);
  t.ok(isNear(writes, write), `writes: ${writes.toFixed(0)}, fio did ${write.total_ios}`);
  const isAll = async (label: string, start: number, { io_bytes }: FioKind): Promise<boolean> =>
    Math.abs(((await numberIn(page, '0/xvda', label)) ?? 0) - start - io_bytes) <= io_bytes / 100;
  await eventually('all bytes', LIMIT_MS, async () => {
    return (await isAll('Read', before.read, read)) && (await isAll('Written', before.write, write));
  });
  t.match(await textOf(page, '#events'), /server-died[^\n]*SIGKILL/, 'the death is an event');
  t.match(await textOf(page, '#notices'), /bus 0: its server was replaced \(1 in all\)/);
  t.match(await textOf(page, '#buses'), /0\s+running\s+1\s/);
  t.same(faults, []);
  t.same(
    asked.filter((address) => !address.startsWith(url) && !address.startsWith(`blob:${new URL(url).origin}/`)),
    [],
    'nothing else was asked',
  );
});

t.test('buses that die, a connection that is lost, and a page that is not valid any more', { skip }, async (t) => {
  const { bench } = await startBus(t);
  const { child, url } = await startWeb(t, bench);
  const { page, faults } = await openPage(await openBrowser(t), url);
  const link = (wanted: RegExp): Promise<unknown> =>
    eventually(`${wanted}`, LIMIT_MS, async () => wanted.test(await textOf(page, '#link')));
  await link(/^live$/);
  await bench.succeed(['start', '--bus', 'two']);
  await eventually('the new bus', LIMIT_MS, async () => /bus two has started/.test(await textOf(page, '#notices')));
  const { keeperPid, serverPid } = await busInfo(bench, 'two');
  for (const pid of [keeperPid, serverPid]) kill(pid ?? 0);
  await eventually('its death', LIMIT_MS, async () => /two\s+dead: /.test(await textOf(page, '#buses')));
  await bench.succeed(['stop', '--bus', 'two']);
  await eventually('its end', LIMIT_MS, async () => /bus two has ended/.test(await textOf(page, '#notices')));
  t.same(faults, []);

  await standStill(child.pid);
  await link(/^connection lost at .*: trying again$/);
  child.kill('SIGCONT');
  await link(/^live$/);
  t.pass('it recovers by itself');

  child.kill('SIGTERM');
  await once(child, 'exit');
  await link(/^connection lost/);
  await startWeb(t, bench, '--listen', new URL(url).port);
  await link(/^this address is not valid any more/);
});

/** Images whose names would do harm as markup. */
async function makeHostile(bench: Bench): Promise<string> {
  const base = await bench.image('base<script>alert(2).img', 64 * MIB, 12 * MIB);
  const top = bench.path('<img src=x onerror=alert(1)>.qcow2');
  qemuImg('create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', base, top);
  qemuIo('qcow2', top, 'write -P 7 20M 5M');
  return top;
}

t.test('names are text, in each view', { skip: skip || whyNoQemu() }, async (t) => {
  const bench = await openBench(t, KERNEL);
  const top = await makeHostile(bench);
  await bench.attach('--snapshot', `qcow2:${top}`);
  const { url } = await startWeb(t, bench);
  const { page, faults } = await openPage(await openBrowser(t), url);
  // by the keyboard only
  await page.locator('#disks button').waitFor();
  await page.keyboard.press('Tab');
  t.equal(await page.evaluate('document.activeElement.textContent'), '0/xvda');
  await page.keyboard.press('Enter');
  await waitForMap(page);
  for (const place of ['#disks', '#tree', '#events']) {
    t.match(await textOf(page, place), '<img src=x onerror=alert(1)>.qcow2', place);
  }
  t.match(await page.locator('#map').getAttribute('alt'), 'data, depth 1: 5M in ');
  t.equal(await page.locator('img').count(), 1, 'only the picture');
  t.equal(await page.locator('script').count(), 1, 'only our script');
  await bench.detach('xvda');
  await eventually('the detach', LIMIT_MS, async () => (await page.locator('#disks tbody tr').count()) === 0);
  t.same(faults, []);
});

t.test('it fits on a phone', { skip }, async (t) => {
  const { bench } = await startBus(t);
  await bench.attach('--partitions', await bench.image('a-name-that-is-long-enough-to-be-a-trouble.img', MIB, MIB));
  const { url } = await startWeb(t, bench);
  const { page } = await openPage(await openBrowser(t), url, { viewport: { width: 360, height: 740 } });
  await page.locator('#disks button').click();
  await waitForMap(page);
  const wide = Number(await page.evaluate('document.documentElement.scrollWidth'));
  const seen = Number(await page.evaluate('innerWidth'));
  t.ok(wide <= seen, `${wide} of ${seen} pixels`);
});

// pictures of the docs: TMPDIR=/img FUSETAP_PICTURES=docs/images node dist/test/e2e/web-page.test.js
const pictures = process.env.FUSETAP_PICTURES;
if (pictures !== undefined) {
  t.test('pictures', { skip: skip || whyNoQemu() || whyNot('sfdisk') }, async (t) => {
    const { bench } = await startBus(t);
    const base = await bench.image('golden.img', 64 * MIB, 12 * MIB);
    await bench.sh('printf \'label: gpt\\n,20M,,\\n,,\\n\' | sfdisk -q "$1"', base);
    const [middle, top] = [bench.path('middle.qcow2'), bench.path('top.qcow2')];
    qemuImg('create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', 'golden.img', middle);
    qemuIo('qcow2', middle, 'write -P 3 10M 9M');
    qemuImg('create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b', 'middle.qcow2', top);
    qemuIo('qcow2', top, 'write -P 4 30M 3500k');
    qemuIo('qcow2', top, 'write -c -P 5 48M 3M');
    const path = await bench.attach('--snapshot', '--partitions', `qcow2:${top}`);
    const busy = await bench.attach(await bench.image('data.img', 32 * MIB, 32 * MIB));
    await bench.sh('dd if=/dev/urandom of="$1" bs=64k seek=600 count=30 conv=notrunc status=none', path);
    await bench.succeed(['map', 'xvda', '--force', '--svg', resolve(pictures, 'map.svg')]);
    const { url } = await startWeb(t, bench);
    const browser = await openBrowser(t);
    const { ended } = await startFio(bench, busy);
    for (const colorScheme of ['light', 'dark'] as const) {
      const { page } = await openPage(browser, url, { colorScheme, viewport: { width: 1280, height: 800 } });
      await page.locator('#disks button').first().click();
      await waitForMap(page);
      if (colorScheme === 'dark') await replaceServer(bench);
      await delay(3_500);
      await page.screenshot({ path: resolve(pictures, `web-${colorScheme}.png`), fullPage: true });
      await page.close();
    }
    await ended;
  });
}
