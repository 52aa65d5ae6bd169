/**
 * All rules at once: attaches, detaches and I/O at random, on three buses whose servers are killed, each compared with
 * the model. One thing is done after another, so that a seed (FUSETAP_TEST_SEED) gives the same run again;
 * FUSETAP_MODEL_OPERATIONS, or `scripts/torture --model`, makes it longer.
 */
import t, { type Test } from 'tap';
import type { VbdInfo } from '../../mount/control/interface.js';
import { patternBytes } from '../conformance/pattern.js';
import type { Bench } from '../e2e/fixtures.js';
import { type Bus, startBus, startBusOn } from '../survival/bus.js';
import { Caller } from './caller.js';
import { O_DSYNC, O_RDONLY, O_RDWR, refusalOf, whyNotRules } from './fixture.js';
import { Model, type ModelVbd, type Request } from './model.js';
import { randomNumbers, seedOf } from './random.js';

const OPERATIONS = Number(process.env.FUSETAP_MODEL_OPERATIONS ?? 3000);
t.setTimeout(120_000 + OPERATIONS * 60);

/** of the images: awkward sizes, small enough to be compared as a whole */
const SIZES = [65_536, 100_001, 262_144, 4097];
const MOST_VBDS = 9;
const MOST_FILES = 12;
const MOST_BYTES = 20_000;
const [PUNCH, ZERO] = [3, 0x10];

interface OpenFile {
  readonly vbd: ModelVbd;
  readonly fd: number;
  readonly writes: boolean;
}

void t.test('at random, against the model', { skip: whyNotRules() }, async (t) => {
  const a = await startBus(t, {}, 'a');
  const buses = [a, await startBusOn(a.bench, {}, 'b'), await startBusOn(a.bench, {}, 'c')];
  const run = await Run.prepare(t, a.bench, buses);
  for (let i = 0; i < OPERATIONS && t.passing(); i++) await run.step();
  await run.end();
  t.comment(`operations: ${[...run.counts].map(([name, count]) => `${count} ${name}`).join(', ')}`);
});

class Run {
  readonly counts = new Map<string, number>();
  readonly #t: Test;
  readonly #bench: Bench;
  readonly #buses: readonly Bus[];
  readonly #caller: Caller;
  readonly #random: (below: number) => number;
  readonly #model: Model;
  readonly #attached = new Map<ModelVbd, VbdInfo>();
  /** the image files themselves, opened as by any other program */
  readonly #raw: number[] = [];
  #files: OpenFile[] = [];
  /** what was done, to find the cause of a failure */
  readonly #history: string[] = [];

  static async prepare(t: Test, bench: Bench, buses: readonly Bus[]): Promise<Run> {
    const run = new Run(t, bench, buses);
    for (const [index, { name }] of run.#model.images.entries()) {
      await bench.image(name, SIZES[index] as number, SIZES[index]);
      run.#raw.push(await run.#caller.open(bench.path(name), O_RDWR));
    }
    return run;
  }

  private constructor(t: Test, bench: Bench, buses: readonly Bus[]) {
    this.#t = t;
    this.#bench = bench;
    this.#buses = buses;
    this.#caller = Caller.start(t, bench);
    this.#random = randomNumbers(seedOf(t));
    const image = (size: number, index: number) => ({
      name: `${index}.img`,
      bytes: patternBytes(0, size, 1),
      memory: null,
    });
    this.#model = new Model(SIZES.map(image));
  }

  /** One thing, chosen at random. */
  async step(): Promise<void> {
    const choices: [number, () => Promise<void>][] = [
      [8, () => this.#attach()],
      [5, () => this.#detach()],
      [10, () => this.#open()],
      [7, () => this.#close()],
      [30, () => this.#read()],
      [30, () => this.#write()],
      [8, () => this.#zero()],
      [4, () => this.#flush()],
      [8, () => this.#readImage()],
      [5, () => this.#writeImage()],
      [1, () => this.#kill()],
    ];
    let left = this.#random(choices.reduce((sum, [weight]) => sum + weight, 0));
    for (const [weight, act] of choices) {
      if (left < weight) return act();
      left -= weight;
    }
  }

  /** Lets go of all, and compares the images as a whole. */
  async end(): Promise<void> {
    for (const { fd } of this.#files) await this.#caller.call('close', fd);
    for (const [vbd, { vdev }] of this.#attached) await this.#bus(vbd).detach(vdev, '?wait=10');
    for (const [index, { name, bytes }] of this.#model.images.entries()) {
      const found = (await this.#caller.call('pread', this.#raw[index] as number, 0, bytes.length + 1)) as Buffer;
      this.#compare(`${name} at the end`, found, bytes);
    }
  }

  async #attach(): Promise<void> {
    const { vbds, images } = this.#model;
    if (vbds.size >= MOST_VBDS) return;
    const request = {
      driver: this.#pick(['aio', 'sync', 'ram'] as const),
      image: this.#pick(images),
      mode: this.#pick(['r', 'w', 'w!', 'w!'] as const),
      passthrough: this.#pick(['on', 'off'] as const),
    } satisfies Request;
    const bus = this.#random(this.#buses.length);
    const { name } = request.image;
    const expected = this.#model.attach(bus, request);
    const body = { ...request, image: this.#bench.path(name) };
    let info: VbdInfo | null = null;
    const refused = await refusalOf((this.#buses[bus] as Bus).attach(body).then((vbd) => (info = vbd)));
    const what = `attach ${request.driver}:${name} ${request.mode}, passthrough ${request.passthrough}, on bus ${bus}`;
    this.#compare(what, refused?.code ?? 'done', typeof expected === 'string' ? expected : 'done');
    if (typeof expected !== 'string' && info !== null) this.#attached.set(expected, info);
  }

  async #detach(): Promise<void> {
    const [vbd, info] = this.#pick([...this.#attached]) ?? [];
    if (vbd === undefined || info === undefined) return;
    const force = this.#random(4) === 0;
    const expected = this.#model.detach(vbd, force);
    // the kernel tells of a close some time after it: who is free gets time to be found so
    const query = force ? '?force=1' : expected === 'done' ? '?wait=10' : '';
    const refused = await refusalOf(this.#bus(vbd).detach(info.vdev, query));
    this.#compare(`detach ${this.#name(vbd)}${force ? ' by force' : ''}`, refused?.code ?? 'done', expected);
    if (refused)
      this.#compare(
        `holders of ${this.#name(vbd)}`,
        (refused.holders ?? []).map(({ pid }) => pid).join(),
        `${this.#caller.pid}`,
      );
    if (expected === 'done') this.#attached.delete(vbd);
  }

  async #open(): Promise<void> {
    const [vbd, info] = this.#pick([...this.#attached]) ?? [];
    if (vbd === undefined || info === undefined || this.#files.length >= MOST_FILES) return;
    const flags = this.#pick([O_RDONLY, O_RDWR, O_RDWR, O_RDWR | O_DSYNC] as const);
    const writes = flags !== O_RDONLY;
    const fd = await this.#caller.call('open', info.path, flags);
    this.#compare(`open ${this.#name(vbd)}`, typeof fd === 'number' ? null : fd, this.#model.open(vbd, writes));
    if (typeof fd !== 'number') return;
    vbd.opens++;
    this.#files.push({ vbd, fd, writes });
  }

  async #close(): Promise<void> {
    const file = this.#pick(this.#files);
    if (file === undefined) return;
    await this.#caller.call('close', file.fd);
    file.vbd.opens--;
    this.#files = this.#files.filter((other) => other !== file);
  }

  async #read(): Promise<void> {
    const file = this.#pick(this.#files);
    if (file === undefined) return;
    const { at, length } = this.#range(file.vbd);
    const found = await this.#caller.call('pread', file.fd, at, length);
    this.#compare(`read ${length} at ${at} of ${this.#name(file.vbd)}`, found, this.#model.read(file.vbd, at, length));
  }

  async #write(): Promise<void> {
    const file = this.#pick(this.#files.filter(({ writes }) => writes));
    if (file === undefined) return;
    const { at, length } = this.#range(file.vbd);
    const data = patternBytes(at, length, this.#random(1000));
    const found = await this.#caller.call('pwrite', file.fd, at, data);
    this.#compare(`write ${length} at ${at} of ${this.#name(file.vbd)}`, found, this.#model.write(file.vbd, at, data));
  }

  async #zero(): Promise<void> {
    const file = this.#pick(this.#files.filter(({ writes }) => writes));
    if (file === undefined) return;
    const { at, length } = this.#range(file.vbd);
    const mode = this.#pick([PUNCH, ZERO]);
    const found = await this.#caller.call('fallocate', file.fd, mode, at, length);
    this.#compare(`zero ${length} at ${at} of ${this.#name(file.vbd)}`, found, this.#model.zero(file.vbd, at, length));
  }

  async #flush(): Promise<void> {
    const file = this.#pick(this.#files);
    if (file === undefined) return;
    const found = await this.#caller.call(this.#pick(['fsync', 'fdatasync']), file.fd);
    this.#compare(`flush ${this.#name(file.vbd)}`, found, this.#model.flush(file.vbd));
  }

  async #readImage(): Promise<void> {
    const index = this.#random(SIZES.length);
    const { name, bytes } = this.#model.images[index] as Model['images'][number];
    const at = this.#random(bytes.length);
    const found = await this.#caller.call('pread', this.#raw[index] as number, at, MOST_BYTES);
    this.#compare(`read at ${at} of the file ${name}`, found, bytes.subarray(at, at + MOST_BYTES));
  }

  /** Discouraged actions are coherent as well. */
  async #writeImage(): Promise<void> {
    const index = this.#random(SIZES.length);
    const { name, bytes } = this.#model.images[index] as Model['images'][number];
    const at = this.#random(bytes.length);
    const data = patternBytes(at, Math.min(bytes.length - at, 3000), this.#random(1000));
    const found = await this.#caller.call('pwrite', this.#raw[index] as number, at, data);
    this.#compare(`write at ${at} of the file ${name}`, found, data.copy(bytes, at));
  }

  /** A server that is replaced changes nothing. */
  async #kill(): Promise<void> {
    const bus = this.#random(this.#buses.length);
    await (this.#buses[bus] as Bus).killServer();
    this.#compare(`kill the server of bus ${bus}`, null, null);
  }

  /** Anywhere in the vbd, and beyond where the vbd itself has to see to its end. */
  #range({ bytes, passthrough }: ModelVbd): { at: number; length: number } {
    const beyond = passthrough === 'on' ? 0 : 5000;
    const at = this.#random(bytes.length + beyond);
    const length = 1 + this.#random(MOST_BYTES);
    return { at, length: passthrough === 'on' ? Math.min(length, bytes.length - at) : length };
  }

  #pick<Item>(items: readonly Item[]): Item {
    return items[this.#random(Math.max(1, items.length))] as Item;
  }

  #bus(vbd: ModelVbd): Bus {
    return this.#buses[vbd.bus] as Bus;
  }

  #name(vbd: ModelVbd): string {
    const { driver, image, mode, passthrough, bus, dead } = vbd;
    const state = dead ? ', cut off' : '';
    return `${driver}:${image.name} (${mode}, passthrough ${passthrough}, bus ${bus}${state})`;
  }

  #compare(what: string, found: unknown, expected: unknown): void {
    this.#history.push(what);
    const kind = what.split(' ')[0] as string;
    this.counts.set(kind, (this.counts.get(kind) ?? 0) + 1);
    const same = Buffer.isBuffer(found) && Buffer.isBuffer(expected) ? found.equals(expected) : found === expected;
    if (same) return;
    const say = (value: unknown): string => (Buffer.isBuffer(value) ? `${value.length} bytes` : String(value));
    this.#t.fail(`${what}: ${say(found)}, not ${say(expected)}`, { before: this.#history.slice(-30) });
  }
}
