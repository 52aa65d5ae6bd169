/** What web servers answer that are wrong, hostile, busy or gone: never a wrong byte, and a clear error. */
import { closeSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { frontDisk } from '../../../drivers/disk.js';
import type { ConnectionState, Host, Json, Kept, RawDisk } from '../../../drivers/driver.js';
import { BlockCache } from '../../../drivers/https/block-cache.js';
import https from '../../../drivers/https/index.js';
import { canonicalUrl } from '../../../drivers/https/uri.js';

t.setTimeout(300_000);

const BLOCK = 64 << 10;
const SIZE = 10 * BLOCK + 123;
/** each byte tells its place */
const BYTES = Buffer.from(Array.from({ length: SIZE }, (_, at) => (at * 7 + (at >> 8)) & 255));

type Answer = (request: IncomingMessage, response: ServerResponse, range: { first: number; last: number }) => void;

const good: Answer = (_, response, { first, last }) => {
  response.writeHead(206, { 'content-range': `bytes ${first}-${last}/${SIZE}`, etag: '"one"' });
  response.end(BYTES.subarray(first, last + 1));
};

interface Web {
  readonly url: string;
  /** what the next requests get; then `good` */
  readonly answers: Answer[];
  readonly requests: IncomingMessage[];
}

async function serve(t: Test, ...answers: Answer[]): Promise<Web> {
  const requests: IncomingMessage[] = [];
  const server = createServer((request, response) => {
    requests.push(request);
    const [, first = '0', last = '0'] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '') ?? [];
    (answers.shift() ?? good)(request, response, { first: Number(first), last: Number(last) });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.teardown(() => {
    server.close();
    server.closeAllConnections();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/disk.img`, answers, requests };
}

interface Open {
  readonly options?: Record<string, string>;
  readonly kept?: Kept | null;
  readonly host?: Host;
}

async function open(t: Test, uri: string, { options = {}, kept = null, host }: Open = {}): Promise<RawDisk> {
  const none = { files: {}, disks: {}, memory: null, state: null, isRepaired: true };
  const disk = await https.open({ ...none, readOnly: true, options: { uri, ...options }, kept, host });
  t.teardown(() => disk.close());
  return disk;
}

async function readAll(t: Test, disk: RawDisk, offset = 0, length = SIZE - offset): Promise<void> {
  const buffer = Buffer.alloc(length);
  await disk.read(buffer, offset);
  t.ok(buffer.equals(BYTES.subarray(offset, offset + length)), `bytes ${offset} to ${offset + length}`);
}

const status =
  (code: number, headers: Record<string, string> = {}): Answer =>
  (_, response) => {
    response.writeHead(code, headers);
    response.end('no bytes of the disk');
  };

const ranged = (headers: Record<string, string>, body: Buffer): Answer => {
  return (_, response) => {
    response.writeHead(206, headers);
    response.end(body);
  };
};

t.test('reads', async (t) => {
  const { url, requests } = await serve(t);
  const disk = await open(t, url);
  t.equal(disk.size, SIZE);
  await readAll(t, disk);
  await readAll(t, disk, 12_345, 100_000);
  t.equal(requests.length, 2, 'the second read comes from the cache');
  t.match(requests[1]?.headers, { range: `bytes=0-${SIZE - 1}`, 'if-match': '"one"', 'accept-encoding': 'identity' });
});

t.test('a file that cannot be a disk', async (t) => {
  const whole = { 'content-range': `bytes 0-0/${SIZE}` };
  const cases: [string, Answer, { code: string; message?: RegExp; hint?: RegExp }][] = [
    ['no ranges', status(200), { code: 'UNSUPPORTED', message: /only whole files/ }],
    ['no size', ranged({ 'content-range': 'bytes 0-0/*' }, Buffer.alloc(1)), { code: 'UNSUPPORTED' }],
    [
      'a size beyond all numbers',
      ranged({ 'content-range': `bytes 0-0/${'9'.repeat(30)}` }, Buffer.alloc(1)),
      { code: 'UNSUPPORTED' },
    ],
    [
      'compressed',
      ranged({ ...whole, 'content-encoding': 'gzip' }, Buffer.alloc(1)),
      { code: 'UNSUPPORTED', message: /compressed/ },
    ],
    [
      'a size beyond 128 TiB',
      ranged({ 'content-range': `bytes 0-0/${2 ** 47 + 1}`, etag: '"one"' }, Buffer.alloc(1)),
      { code: 'UNSUPPORTED', hint: /128 TiB/ },
    ],
    ['nothing that identifies it', ranged(whole, Buffer.alloc(1)), { code: 'UNSUPPORTED', message: /ETag/ }],
    ['empty', status(416), { code: 'UNSUPPORTED', message: /empty/ }],
    ['absent', status(404), { code: 'NOT_FOUND', message: /404/ }],
    ['secret', status(401), { code: 'DENIED', hint: /header-file/ }],
    ['busy', status(503), { code: 'NOT_FOUND', message: /503/ }],
    ['odd', status(418), { code: 'FAILED', message: /418/ }],
    ['redirected to nowhere', status(302), { code: 'FAILED' }],
    ['redirected to a file', status(302, { location: 'file:///etc/passwd' }), { code: 'DENIED' }],
  ];
  for (const [name, answer, error] of cases) {
    const { url } = await serve(t, answer);
    await t.rejects(open(t, url), error, name);
  }
  const { url } = await serve(t, ...Array(20).fill(status(302, { location: '/disk.img' })));
  await t.rejects(open(t, url), { message: /redirects more than/ });
  await t.rejects(open(t, 'http://127.0.0.1:1/x'), { code: 'NOT_FOUND', message: /ECONNREFUSED/ });
});

t.test('bytes of another file, or another place, are never taken', async (t) => {
  const part = (first: number, last: number, total = SIZE): Record<string, string> => ({
    'content-range': `bytes ${first}-${last}/${total}`,
    etag: '"one"',
  });
  const { etag: _, ...unnamed } = part(0, BLOCK - 1);
  const cases: [string, Answer][] = [
    ['replaced', status(412)],
    ['cut', status(416)],
    ['another size', ranged(part(0, BLOCK - 1, SIZE + 1), BYTES.subarray(0, BLOCK))],
    ['another place', ranged(part(1, BLOCK), BYTES.subarray(1, BLOCK + 1))],
    ['a longer range', ranged(part(0, BLOCK), BYTES.subarray(0, BLOCK + 1))],
    ['no range', ranged({}, BYTES.subarray(0, BLOCK))],
    ['another etag', ranged({ ...part(0, BLOCK - 1), etag: '"two"' }, BYTES.subarray(0, BLOCK))],
    ['no etag', ranged(unnamed, BYTES.subarray(0, BLOCK))],
    ['a weak etag', ranged({ ...unnamed, etag: 'W/"one"' }, BYTES.subarray(0, BLOCK))],
    ['more than it says', ranged(part(0, BLOCK - 1), BYTES.subarray(0, BLOCK + 1))],
  ];
  for (const [name, answer] of cases) {
    const { url } = await serve(t, good, answer);
    const states: ConnectionState[] = [];
    const host = { keep: async () => {}, told: (state: ConnectionState) => states.push(state), lost: () => {} };
    const disk = await open(t, url, { host });
    const both = [disk.read(Buffer.alloc(100), 0), disk.read(Buffer.alloc(100), 5 * BLOCK)];
    await t.rejects(both[0] as Promise<void>, { code: 'FAILED', errno: 5 }, name);
    await Promise.allSettled(both);
    t.same(
      states.map(({ is }) => is),
      ['broken'],
      `${name}: is told once`,
    );
    await t.rejects(disk.read(Buffer.alloc(100), 0), { code: 'FAILED', errno: 5 }, `${name}: for good`);
  }
});

t.test('without an etag the time of the last change counts', async (t) => {
  const dated =
    (modified: string): Answer =>
    (_, response, { first, last }) => {
      response.writeHead(206, { 'content-range': `bytes ${first}-${last}/${SIZE}`, 'last-modified': modified });
      response.end(BYTES.subarray(first, last + 1));
    };
  const [one, two] = ['Mon, 30 Nov 2026 00:00:00 GMT', 'Mon, 30 Nov 2026 00:00:01 GMT'];
  const { url } = await serve(t, dated(one), dated(one), dated(two));
  const disk = await open(t, url);
  await readAll(t, disk, 0, 100);
  await t.rejects(disk.read(Buffer.alloc(100), 5 * BLOCK), { message: /replaced/ });
});

t.test('the time of the last change counts also with an etag; a weak etag is compared, and never sent', async (t) => {
  const [one, two] = ['Mon, 30 Nov 2026 00:00:00 GMT', 'Mon, 30 Nov 2026 00:00:01 GMT'];
  const named =
    (headers: Record<string, string>): Answer =>
    (_, response, { first, last }) => {
      response.writeHead(206, { 'content-range': `bytes ${first}-${last}/${SIZE}`, ...headers });
      response.end(BYTES.subarray(first, last + 1));
    };
  const dated = named({ etag: '"one"', 'last-modified': one });
  const strong = await serve(t, dated, dated, good, named({ etag: '"one"', 'last-modified': two }));
  const disk = await open(t, strong.url);
  await readAll(t, disk, 0, 100);
  await readAll(t, disk, 3 * BLOCK, 100);
  await t.rejects(disk.read(Buffer.alloc(100), 6 * BLOCK), { message: /replaced/ });
  const weak = await serve(t, named({ etag: 'W/"a"' }), named({ etag: 'W/"a"' }), named({ etag: 'W/"b"' }));
  const other = await open(t, weak.url);
  await readAll(t, other, 0, 100);
  t.equal(weak.requests[1]?.headers['if-match'], undefined);
  await t.rejects(other.read(Buffer.alloc(100), 5 * BLOCK), { message: /replaced/ });
});

t.test('a page that says that the server is maintained is not the end', async (t) => {
  const gzip: Answer = (_, response, { first, last }) => {
    const headers = { 'content-range': `bytes ${first}-${last}/${SIZE}`, etag: '"one"', 'content-encoding': 'gzip' };
    response.writeHead(206, headers).end(Buffer.alloc(last - first + 1));
  };
  const short: Answer = (_, response, { first }) => {
    const headers = { 'content-range': `bytes ${first}-${first + 9}/${SIZE}`, etag: '"one"' };
    response.writeHead(206, headers).end(Buffer.alloc(10));
  };
  const { url, requests } = await serve(t, good, status(200), gzip, short);
  const states: string[] = [];
  const host = { keep: async () => {}, told: ({ is }: ConnectionState) => states.push(is), lost: () => {} };
  await readAll(t, await open(t, url, { host }));
  t.equal(requests.length, 5);
  t.same(states, ['reconnecting', 'connected']);
});

t.test('a server in trouble is asked again', async (t) => {
  const cut: Answer = (_, response, { first, last }) => {
    const headers = { 'content-range': `bytes ${first}-${last}/${SIZE}`, etag: '"one"' };
    response.writeHead(206, { ...headers, 'content-length': last - first + 1 });
    response.write(BYTES.subarray(first, first + 100));
    setImmediate(() => response.destroy());
  };
  const gone: Answer = (request) => request.socket.destroy();
  const { url } = await serve(t, good, status(503), cut, gone, status(429, { 'retry-after': '1' }));
  const states: string[] = [];
  const host = { keep: async () => {}, told: ({ is }: ConnectionState) => states.push(is), lost: () => {} };
  await readAll(t, await open(t, url, { host }));
  t.equal(states[0], 'reconnecting');
  t.equal(states.at(-1), 'connected');
});

t.test('it is given up after the timeout, and then asked anew; each change is told once', async (t) => {
  const { url, answers } = await serve(t, good);
  const states: string[] = [];
  const host = { keep: async () => {}, told: ({ is }: ConnectionState) => states.push(is), lost: () => {} };
  const disk = await open(t, url, { options: { timeout: '2.2' }, host });
  answers.push(...Array(99).fill(status(500)));
  const error = { errno: 5, message: /500, for \d s/ };
  const reads = [0, 3, 6].map((block) => t.rejects(disk.read(Buffer.alloc(10), block * BLOCK), error));
  await Promise.all(reads);
  t.same(states, ['reconnecting']);
  answers.length = 0;
  await readAll(t, disk);
  t.same(states, ['reconnecting', 'connected'], 'a read that succeeds at once ends it');
});

t.test('a server that asks for a longer pause than there is time is asked once more at the end', async (t) => {
  const { url } = await serve(t, good, status(503, { 'retry-after': '120' }));
  const begunMs = performance.now();
  await readAll(t, await open(t, url, { options: { timeout: '1' } }));
  t.ok(performance.now() - begunMs >= 900);
});

t.test('a server that is too slow is asked again', async (t) => {
  const slowly =
    (code: number, headers: (range: { first: number; last: number }) => Record<string, string>): Answer =>
    (_, response, range) => {
      response.writeHead(code, headers(range));
      const timer = setInterval(() => response.write(BYTES.subarray(range.first, range.first + 1)), 200);
      response.on('close', () => clearInterval(timer));
    };
  const reading = await serve(
    t,
    good,
    slowly(206, ({ first, last }) => ({ 'content-range': `bytes ${first}-${last}/${SIZE}`, etag: '"one"' })),
  );
  const target = await serve(t);
  const redirecting = await serve(
    t,
    slowly(302, () => ({ location: target.url })),
    slowly(302, () => ({ location: target.url })),
  );
  const begunMs = performance.now();
  await Promise.all([
    open(t, reading.url).then((disk) => readAll(t, disk, 0, 100)),
    open(t, redirecting.url).then((disk) => readAll(t, disk, 0, 100)),
  ]);
  const seconds = (performance.now() - begunMs) / 1000;
  t.ok(seconds > 23, `${seconds} s: a block may take 24 s`);
});

t.test('redirects are remembered, and asked again when they end', async (t) => {
  const other = await serve(t);
  const { url, requests } = await serve(t, ...Array(9).fill(status(302, { location: other.url })));
  const directory = t.testdir({ headers: 'Authorization: Bearer secret\n' });
  const disk = await open(t, url, { options: { 'header-file': join(directory, 'headers') } });
  await readAll(t, disk, 0, BLOCK);
  t.equal(requests.length, 1);
  t.equal(requests[0]?.headers.authorization, 'Bearer secret');
  t.equal(other.requests[0]?.headers.authorization, undefined, 'secrets are for one server');
  other.answers.push(status(403));
  await readAll(t, disk, 5 * BLOCK, BLOCK);
  t.equal(requests.length, 2, 'the first address is asked again');
});

t.test('a redirect that led to a server in trouble is not remembered', async (t) => {
  const other = await serve(t, good, status(503));
  const { url, requests } = await serve(t, status(302, { location: other.url }));
  const disk = await open(t, url);
  await readAll(t, disk, 0, 100);
  t.equal(requests.length, 2, 'the first address is asked again');
});

t.test('the next server reads the files of options at its first request', async (t) => {
  const { url, requests } = await serve(t);
  const file = join(t.testdir({}), 'headers');
  const fd = BlockCache.create(64 << 20);
  const kept = { facts: { size: SIZE, etag: '"one"', lastModified: null }, fds: [fd] };
  const disk = await open(t, url, { kept, options: { 'header-file': file } });
  await t.rejects(disk.read(Buffer.alloc(10), 0), { errno: 5, message: /cannot be read/ });
  writeFileSync(file, 'X-Token: late\n');
  await readAll(t, disk, 0, 100);
  t.equal(requests.at(-1)?.headers['x-token'], 'late');
  closeSync(fd);
});

t.test('headers are read again when they are refused', async (t) => {
  const directory = t.testdir({ headers: 'X-Token: old\n' });
  const file = join(directory, 'headers');
  const { url, answers, requests } = await serve(t);
  const disk = await open(t, url, { options: { 'header-file': file } });
  writeFileSync(file, 'X-Token: new\n\n');
  answers.push(status(401));
  await readAll(t, disk);
  t.equal(requests.at(-1)?.headers['x-token'], 'new');
  writeFileSync(file, 'no header\n');
  await t.rejects(open(t, url, { options: { 'header-file': file } }), { code: 'USAGE', message: /no header/ });
  await t.rejects(open(t, url, { options: { 'header-file': `${file}x` } }), { code: 'NOT_FOUND' });
});

t.test('the next server goes on with the cache, and asks nothing at its start', async (t) => {
  const { url, requests } = await serve(t);
  let kept: Kept | null = null;
  const keep = async (facts: Json, fds: readonly number[]): Promise<void> => {
    kept = { facts: JSON.parse(JSON.stringify(facts)) as Json, fds };
  };
  const host = { keep, told: () => {}, lost: () => {} };
  await readAll(t, await open(t, url, { host }));
  const asked = requests.length;
  const next = await open(t, url, { kept, host });
  t.equal(next.size, SIZE);
  await readAll(t, next);
  t.equal(requests.length, asked, 'nothing was asked');
  await t.rejects(open(t, url, { kept, host, options: { cache: '2M' } }), /another size/);
  await t.rejects(open(t, url, { kept: { facts: { size: 'x' }, fds: [] } }), { message: /damaged/ });
});

t.test('an earlier server may still use the cache when the next one opens the disk', async (t) => {
  const { url } = await serve(t);
  let kept: Kept | null = null;
  const keep = async (facts: Json, fds: readonly number[]): Promise<void> => {
    kept = { facts: JSON.parse(JSON.stringify(facts)) as Json, fds };
  };
  const host = { keep, told: () => {}, lost: () => {} };
  const old = await open(t, url, { host });
  await readAll(t, old, 0, BLOCK);
  const next = await open(t, url, { kept, host });
  // a cache that has no slot left gives that of the first block to another one
  const cache = new BlockCache((kept as unknown as Kept).fds[0] as number, 64 << 20);
  for (let block = 1; block <= 1024; block++) cache.put(block, Buffer.alloc(BLOCK, 0xee));
  await readAll(t, next, 0, BLOCK);
});

t.test('a cache larger than 4 GiB is not mapped, and ends with its descriptor', (t) => {
  const cacheBytes = 6 * 2 ** 30;
  const fd = BlockCache.create(cacheBytes);
  const slots = cacheBytes / BLOCK;
  writeSync(fd, Uint32Array.of(8), 0, 4, 4 * (slots - 1));
  writeSync(fd, BYTES, 0, BLOCK, 4 * slots + BLOCK * (slots - 1));
  const cache = new BlockCache(fd, cacheBytes);
  const part = Buffer.alloc(1000);
  t.ok(cache.read(7, 50, part), 'the last slot has a block');
  t.ok(part.equals(BYTES.subarray(50, 1050)));
  cache.put(9, BYTES.subarray(BLOCK, BLOCK + 123));
  const next = new BlockCache(fd, cacheBytes);
  t.ok(next.read(9, 23, part.subarray(0, 100)));
  t.ok(part.subarray(0, 100).equals(BYTES.subarray(BLOCK + 23, BLOCK + 123)));
  t.notMatch(readFileSync('/proc/self/maps', 'utf8'), /fusetap-web-cache/);
  closeSync(fd);
  t.end();
});

t.test('a block that cannot be kept is not there', (t) => {
  const fd = BlockCache.create(1 << 20);
  const cache = new BlockCache(fd, 1 << 20);
  cache.put(0, BYTES.subarray(0, BLOCK));
  closeSync(fd);
  cache.put(1, BYTES.subarray(0, BLOCK));
  t.notOk(cache.has(1));
  t.notOk(cache.read(0, 0, Buffer.alloc(1)));
  t.end();
});

t.test('many reads at once are no leak', async (t) => {
  const { url } = await serve(t, good, ...Array(11).fill(status(503)));
  const disk = await open(t, url);
  const warnings: Error[] = [];
  const warned = (warning: Error): number => warnings.push(warning);
  process.on('warning', warned);
  t.teardown(() => process.off('warning', warned));
  await Promise.all(Array.from({ length: 11 }, (_, block) => readAll(t, disk, block * BLOCK, 10)));
  await new Promise((resolve) => setImmediate(resolve));
  t.same(warnings, []);
});

t.test('many reads of one block ask once; reads in order are fetched ahead', async (t) => {
  const { url, requests } = await serve(t);
  const disk = await open(t, url);
  await Promise.all(Array.from({ length: 20 }, (_, i) => readAll(t, disk, i * 100, 100)));
  t.equal(requests.length, 2);
  for (let at = 0; at < SIZE - 4096; at += 4096) await readAll(t, disk, at, 4096);
  t.ok(requests.length < 6, `${requests.length} requests for ${Math.ceil(SIZE / BLOCK)} blocks`);
});

t.test('requests that wait end when the disk is given up, and so do later ones', async (t) => {
  const silent: Answer = () => {};
  const { url } = await serve(t, good, status(503), silent);
  const states: string[] = [];
  const host = { keep: async () => {}, told: ({ is }: ConnectionState) => states.push(is), lost: () => {} };
  const disk = await open(t, url, { options: { timeout: 'never' }, host });
  const front = frontDisk(disk, { readOnly: true });
  const refused = [0, 5 * BLOCK].map((at) =>
    t.rejects(front.read(Buffer.alloc(10), at), { errno: 5, message: /given up/ }),
  );
  setTimeout(() => front.giveUp(), 300);
  await Promise.all(refused);
  await t.rejects(front.read(Buffer.alloc(10), 0), { errno: 5, message: /given up/ });
  t.same(states, []);
});

t.test('requests that wait end when the disk is closed', async (t) => {
  const { url } = await serve(t, good, ...Array(99).fill(status(503)));
  const disk = await open(t, url, { options: { timeout: 'never' } });
  const refused = t.rejects(disk.read(Buffer.alloc(10), 0), { code: 'FAILED', errno: 5 });
  await disk.close();
  await refused;
});

t.test('URLs', (t) => {
  t.equal(canonicalUrl('HTTP://Example.org/a b#c'), 'http://example.org/a%20b');
  t.equal(canonicalUrl('https://h:443/x?y=1'), 'https://h/x?y=1');
  t.throws(() => canonicalUrl('https://u:geheim@h/'), { code: 'USAGE', hint: /header-file/ });
  for (const wrong of ['https://', 'https://u:geheim@:x', `https://h/${'x'.repeat(5000)}`]) {
    try {
      canonicalUrl(wrong);
      t.fail(wrong.slice(0, 40));
    } catch (error) {
      t.match(error, { code: 'USAGE' });
      t.notMatch((error as Error).message, /geheim/);
    }
  }
  t.end();
});

t.test('options', async (t) => {
  const uri = 'http://127.0.0.1:1/';
  for (const options of [
    { timeout: 'x' },
    { cache: '1k' },
    { cache: 'big' },
    { 'header-file': 'a' },
    { color: 'red' },
  ]) {
    await t.rejects(
      open(t, uri, { options: options as unknown as Record<string, string> }),
      { code: 'USAGE' },
      JSON.stringify(options),
    );
  }
});
