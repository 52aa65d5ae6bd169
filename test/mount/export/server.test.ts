/** What an exporter answers to clients that are wrong, old, slow or hostile. */
import { execFileSync } from 'node:child_process';
import { chmodSync, copyFileSync, existsSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import {
  COMMAND,
  COMMAND_FLAG,
  EXPORT_FLAG,
  INFO,
  OPTION,
  OPTION_ERROR,
  OPTION_REPLY,
} from '../../../drivers/nbd/protocol.js';
import { ExportServer } from '../../../mount/export/server.js';
import { checkTlsFiles } from '../../../mount/export/tls.js';
import { makeCertificates } from '../../drivers/nbd/certificates.js';
import { isInstalled } from '../../e2e/command.js';
import { randomNumbers, seedOf } from '../../rules/random.js';
import { exportFile, goData, optionBytes, RawClient, requestBytes, SIZE, shortDirectory, uint32 } from './client.js';

t.setTimeout(300_000);

t.test('options', async (t) => {
  const { socket } = await exportFile(t);
  const open = async (): Promise<RawClient> => {
    const client = await RawClient.connect(t, socket);
    await client.greet();
    return client;
  };
  await t.test('are refused one by one, and the client goes on', async (t) => {
    const client = await open();
    const refused = async (number: number, data: Buffer, type: number): Promise<void> => {
      client.option(number, data);
      t.match(await client.reply(), { option: number, type }, `option ${number}`);
    };
    await refused(11, Buffer.alloc(0), OPTION_ERROR.unsupported);
    await refused(999, Buffer.from('x'), OPTION_ERROR.unsupported);
    await refused(OPTION.list, Buffer.from('x'), OPTION_ERROR.invalid);
    await refused(OPTION.startTls, Buffer.alloc(0), OPTION_ERROR.policy);
    await refused(OPTION.structuredReply, Buffer.from('x'), OPTION_ERROR.invalid);
    await refused(OPTION.setMetaContext, goData('disk'), OPTION_ERROR.invalid);
    await refused(OPTION.go, goData('other'), OPTION_ERROR.unknown);
    for (const data of [Buffer.alloc(3), uint32(9), Buffer.concat([goData('disk'), Buffer.alloc(1)])]) {
      await refused(OPTION.go, data, OPTION_ERROR.invalid);
      await refused(OPTION.info, data, OPTION_ERROR.invalid);
    }
    client.option(OPTION.structuredReply);
    t.match(await client.reply(), { type: OPTION_REPLY.ack });
    const query = Buffer.concat([goData('disk').subarray(0, 8), uint32(0xffff_ffff), uint32(4), Buffer.from('base')]);
    await refused(OPTION.setMetaContext, query, OPTION_ERROR.invalid);
    client.option(OPTION.list);
    t.match(await client.reply(), { type: OPTION_REPLY.server, data: Buffer.concat([uint32(4), Buffer.from('disk')]) });
    t.match(await client.reply(), { type: OPTION_REPLY.ack });
    client.option(OPTION.abort);
    t.match(await client.reply(), { type: OPTION_REPLY.ack });
    t.equal((await client.untilClosed()).byteLength, 0);
  });
  await t.test('INFO tells, GO begins', async (t) => {
    const client = await open();
    for (const option of [OPTION.info, OPTION.go]) {
      client.option(option, goData('disk', INFO.name, INFO.description));
      const told = new Map<number, Buffer>();
      for (let reply = await client.reply(); reply.type !== OPTION_REPLY.ack; reply = await client.reply()) {
        told.set(reply.data.readUInt16BE(0), reply.data.subarray(2));
      }
      t.equal(told.get(INFO.export)?.readBigUInt64BE(0), BigInt(SIZE));
      t.equal(told.get(INFO.name)?.toString(), 'disk');
      t.equal(told.get(INFO.description)?.toString(), 'a disk');
      t.equal(told.get(INFO.blockSize)?.readUInt32BE(0), 1);
    }
    client.request({ command: COMMAND.flush });
    t.same(await client.simple(), { error: 0, low: 1 });
  });
  await t.test('EXPORT_NAME of old clients, with and without zeroes', async (t) => {
    for (const [flags, bytes] of [
      [1, 134],
      [3, 10],
    ] as const) {
      const client = await RawClient.connect(t, socket);
      await client.greet(flags);
      client.option(OPTION.exportName, Buffer.from('disk'));
      t.equal((await client.take(bytes)).readBigUInt64BE(0), BigInt(SIZE));
      client.request({ command: COMMAND.read, offset: 2048, length: 4 });
      t.same(await client.simple(), { error: 0, low: 1 });
      t.same(await client.take(4), Buffer.alloc(4, 2));
    }
    const wrong = await open();
    wrong.option(OPTION.exportName, Buffer.from('other'));
    t.equal((await wrong.untilClosed()).byteLength, 0);
  });
});

t.test('nonsense ends the connection', async (t) => {
  const { socket } = await exportFile(t);
  const closed = async (why: string, flags: number, ...bytes: Buffer[]): Promise<void> => {
    const client = await RawClient.connect(t, socket);
    await client.greet(flags);
    client.send(...bytes);
    t.equal((await client.untilClosed()).byteLength, 0, why);
  };
  await closed('unknown flags of the client', 0x8000_0003);
  await closed('no option', 3, Buffer.alloc(16, 0xff));
  await closed('an option of 4 GiB', 3, optionBytes(OPTION.go).subarray(0, 12), uint32(0xffff_ffff));
  const many = await RawClient.connect(t, socket);
  await many.greet();
  for (let count = 0; count < 130; count++) many.option(OPTION.structuredReply);
  t.equal((await many.untilClosed()).byteLength, 128 * 20, 'options without an end');
});

t.test('requests that are refused', async (t) => {
  const { socket } = await exportFile(t);
  const client = await RawClient.connect(t, socket);
  await client.go();
  const answers = async (error: number, request: Parameters<typeof requestBytes>[0], data?: Buffer): Promise<void> => {
    client.request(request, data);
    t.same(await client.simple(), { error, low: 1 }, JSON.stringify(request));
  };
  const { read, write, trim, writeZeroes, blockStatus } = COMMAND;
  await answers(22, { command: read, offset: SIZE - 1, length: 2 });
  await answers(22, { command: read, offset: 2 ** 53, length: 1 });
  await answers(22, { command: read, offset: 0, length: 0xffff_ffff });
  await answers(28, { command: write, offset: SIZE - 1, length: 2 }, Buffer.from('ab'));
  await answers(28, { command: writeZeroes, offset: SIZE, length: 1 });
  await answers(28, { command: trim, offset: SIZE, length: 1 });
  await answers(22, { command: blockStatus, offset: 0, length: 512 });
  await answers(22, { command: read, flags: 2, length: 1 });
  await answers(22, { command: write, flags: COMMAND_FLAG.noHole, length: 1 }, Buffer.from('a'));
  await answers(22, { command: writeZeroes, flags: 16, length: 1 });
  for (const command of [5, 8, 77, 0xffff]) await answers(22, { command });
  await answers(0, { command: read, offset: SIZE, length: 0 });
  await answers(0, { command: write, offset: 0, length: 0 });
  await answers(0, { command: write, offset: SIZE - 2, length: 2, flags: COMMAND_FLAG.fua }, Buffer.from('ab'));
  await answers(0, { command: read, offset: SIZE - 2, length: 2 });
  t.same(await client.take(2), Buffer.from('ab'));
  client.send(Buffer.alloc(28, 0xff));
  t.equal((await client.untilClosed()).byteLength, 0, 'no request');
});

t.test('a write that is longer than allowed ends the connection', async (t) => {
  const { socket } = await exportFile(t);
  const client = await RawClient.connect(t, socket);
  await client.go();
  client.request({ command: COMMAND.write, length: (32 << 20) + 1 });
  t.equal((await client.untilClosed()).byteLength, 0);
});

t.test('a read-only export', async (t) => {
  const { socket, file } = await exportFile(t, { readOnly: true });
  const client = await RawClient.connect(t, socket);
  await client.greet();
  client.option(OPTION.exportName);
  const flags = (await client.take(10)).readUInt16BE(8);
  t.ok(flags & EXPORT_FLAG.readOnly);
  t.notOk(flags & (EXPORT_FLAG.writeZeroes | EXPORT_FLAG.trim));
  t.notOk(flags & EXPORT_FLAG.dontFragment, 'there are no chunks');
  client.request({ command: COMMAND.write, length: 1 }, Buffer.from('a'));
  client.request({ command: COMMAND.writeZeroes, length: 1 });
  for (let count = 0; count < 2; count++) t.same(await client.simple(), { error: 1, low: 1 });
  t.equal(file.readOnly, true);
});

t.test('a stream in pieces of any length is understood', async (t) => {
  const { socket } = await exportFile(t);
  const random = randomNumbers(seedOf(t));
  const data = Buffer.from(Array.from({ length: 10_000 }, () => random(256)));
  const stream = Buffer.concat([
    uint32(3),
    optionBytes(OPTION.go, goData('disk')),
    requestBytes({ command: COMMAND.write, offset: 333, length: data.byteLength, cookie: { high: 0, low: 1 } }),
    data,
    requestBytes({ command: COMMAND.write, offset: 0, length: 3, cookie: { high: 0, low: 2 } }),
    Buffer.from('abc'),
  ]);
  for (const most of [1, 40, 5000]) {
    const client = await RawClient.connect(t, socket);
    client.socket.setNoDelay(true);
    await client.take(18);
    for (let at = 0; at < stream.byteLength; ) {
      const length = 1 + random(most);
      client.send(stream.subarray(at, at + length));
      at += length;
      if (most > 1 || random(200) === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    for (let type = 0; type !== 1; type = (await client.reply()).type);
    const done = new Set([(await client.simple()).low, (await client.simple()).low]);
    t.same([...done].sort(), [1, 2]);
    client.request({ command: COMMAND.read, offset: 333, length: data.byteLength });
    await client.simple();
    t.ok((await client.take(data.byteLength)).equals(data), `pieces of at most ${most} bytes`);
    client.request({ command: COMMAND.disconnect });
    t.equal((await client.untilClosed()).byteLength, 0);
  }
});

t.test('a client that reads no replies is not served without end', async (t) => {
  const { socket } = await exportFile(t);
  const client = await RawClient.connect(t, socket);
  await client.go();
  client.socket.pause();
  const before = process.memoryUsage().arrayBuffers;
  const request = requestBytes({ command: COMMAND.read, length: SIZE });
  // 4 GiB of replies
  for (let count = 0; count < 4096; count++) client.socket.write(request);
  const other = await RawClient.connect(t, socket);
  await other.go();
  for (let count = 0; count < 200; count++) {
    other.request({ command: COMMAND.read, length: 1 });
    await other.simple();
    await other.take(1);
  }
  const grown = process.memoryUsage().arrayBuffers - before;
  t.ok(grown < 256 << 20, `${grown >> 20} MiB more`);
  client.socket.destroy();
});

t.test('a client that sends all at once, and no more, gets all replies', async (t) => {
  const { socket } = await exportFile(t);
  const client = await RawClient.connect(t, socket);
  await client.go();
  const count = 300;
  for (let low = 0; low < count; low++)
    client.request({ command: COMMAND.read, length: 65_536, cookie: { high: 0, low } });
  client.socket.end();
  const seen = new Set<number>();
  for (let i = 0; i < count; i++) {
    seen.add((await client.simple()).low);
    await client.take(65_536);
  }
  t.equal(seen.size, count);
  t.equal((await client.untilClosed()).byteLength, 0);
});

t.test('a slow client gets all replies when the server ends', async (t) => {
  const { socket, server } = await exportFile(t);
  const client = await RawClient.connect(t, socket);
  await client.go();
  client.socket.pause();
  const count = 12;
  for (let low = 0; low < count; low++)
    client.request({ command: COMMAND.read, length: SIZE, cookie: { high: 0, low } });
  const other = await RawClient.connect(t, socket);
  await other.go();
  // the requests of the first client were parsed before this answer
  other.request({ command: COMMAND.read, length: 1 });
  await other.simple();
  const closed = server.close();
  client.socket.resume();
  for (let low = 0; low < count; low++) {
    t.match(await client.simple(), { error: 0 });
    t.equal((await client.take(SIZE)).byteLength, SIZE);
  }
  await closed;
});

t.test('each client learns once of a flush that failed', async (t) => {
  const { socket, file } = await exportFile(t);
  const clients = [await RawClient.connect(t, socket), await RawClient.connect(t, socket)];
  for (const client of clients) await client.go();
  file.failures.count += 1;
  file.failures.last = Object.assign(new Error('no space'), { errno: -28, code: 'ENOSPC' });
  clients.push(await RawClient.connect(t, socket));
  await clients[2]?.go();
  for (const [i, client] of clients.entries()) {
    for (const error of i < 2 ? [28, 0] : [0]) {
      client.request({ command: COMMAND.flush });
      t.same(await client.simple(), { error, low: 1 }, `client ${i}`);
    }
  }
});

t.test('a client that leaves in the middle', async (t) => {
  const { socket, server } = await exportFile(t);
  for (const stage of ['greeting', 'option', 'data', 'replies']) {
    const client = await RawClient.connect(t, socket);
    if (stage === 'greeting') await client.take(3);
    else if (stage === 'option') {
      await client.greet();
      client.send(optionBytes(OPTION.go, goData('disk')).subarray(0, 17));
    } else {
      await client.go();
      if (stage === 'data') client.request({ command: COMMAND.write, length: 9000 }, Buffer.alloc(100));
      else for (let count = 0; count < 500; count++) client.request({ command: COMMAND.read, length: 65536 });
    }
    client.socket.destroy();
  }
  const last = await RawClient.connect(t, socket);
  await last.go();
  last.request({ command: COMMAND.read, length: 1 });
  t.same(await last.simple(), { error: 0, low: 1 });
  await server.close();
  t.notOk(existsSync(socket), 'its socket is gone');
});

t.test('with certificates', { skip: isInstalled('openssl') ? false : 'openssl is not installed' }, async (t) => {
  const tls = { certificates: makeCertificates(), verifiesPeer: false, pskFile: null };
  const { socket } = await exportFile(t, { tls });
  await t.test('nothing is told before the stream is encrypted', async (t) => {
    const client = await RawClient.connect(t, socket);
    await client.greet();
    for (const option of [OPTION.list, OPTION.info, OPTION.go, OPTION.structuredReply, OPTION.setMetaContext]) {
      client.option(option, goData('disk'));
      t.match(await client.reply(), { type: OPTION_ERROR.tlsRequired }, `option ${option}`);
    }
    client.option(OPTION.exportName, Buffer.from('disk'));
    t.equal((await client.untilClosed()).byteLength, 0);
  });
  await t.test('a key that is not that of the certificate is refused at the start', async (t) => {
    const { certificates } = tls;
    const wrong = shortDirectory(t);
    copyFileSync(join(certificates, 'server-cert.pem'), join(wrong, 'server-cert.pem'));
    copyFileSync(join(certificates, 'client-key.pem'), join(wrong, 'server-key.pem'));
    await t.rejects(checkTlsFiles({ ...tls, certificates: wrong }), { code: 'USAGE', message: /key/ });
    writeFileSync(join(wrong, 'server-key.pem'), 'no key');
    await t.rejects(checkTlsFiles({ ...tls, certificates: wrong }), { code: 'USAGE' });
    await checkTlsFiles(tls);
  });
  await t.test('bytes that came before the encryption are not taken for encrypted ones', async (t) => {
    const client = await RawClient.connect(t, socket);
    await client.greet();
    client.send(optionBytes(OPTION.startTls), optionBytes(OPTION.go, goData('disk')));
    t.equal((await client.untilClosed()).byteLength, 0);
  });
});

t.test('large writes come whole, in whatever pieces they are sent', async (t) => {
  const { socket, server, path } = await exportFile(t);
  const random = randomNumbers(seedOf(t));
  const expected = readFileSync(path);
  const client = await RawClient.connect(t, socket);
  await client.go();
  for (let round = 0; round < 12; round++) {
    // so many replies that nobody reads make the server stop to read: what it has then got comes before the rest
    const reads = round % 3 === 2 ? 80 : random(3);
    const stream: Buffer[] = [];
    for (let low = 0; low < reads; low++) stream.push(requestBytes({ command: COMMAND.read, length: 65_536 }));
    const count = 1 + random(4);
    for (let low = 0; low < count; low++) {
      const length = 100_000 + random(SIZE - 100_000);
      const offset = random(SIZE - length + 1);
      const data = Buffer.alloc(length, `round ${round}, write ${low}, at ${offset}; `);
      stream.push(requestBytes({ command: COMMAND.write, offset, length }), data);
      data.copy(expected, offset);
      // one after the other: writes that overlap may be done in any order
      stream.push(requestBytes({ command: COMMAND.flush }));
      await sendInPieces(client, Buffer.concat(stream.splice(0)), random);
      const replies = low === 0 ? reads : 0;
      for (let i = 0; i < replies; i++) {
        t.equal((await client.simple()).error, 0);
        await client.take(65_536);
      }
      t.same([(await client.simple()).error, (await client.simple()).error], [0, 0]);
    }
    t.ok(readFileSync(path).equals(expected), `round ${round}`);
  }
  const data = Buffer.alloc(SIZE, 'the last');
  client.send(requestBytes({ command: COMMAND.write, length: SIZE }), data);
  client.socket.end();
  t.equal((await client.simple()).error, 0, 'also if the client sends no more');
  t.ok(readFileSync(path).equals(data));
  t.equal((await client.untilClosed()).byteLength, 0);
  await server.close();
});

/** Sends a stream in pieces of random lengths, with pauses. */
async function sendInPieces(client: RawClient, stream: Buffer, random: (below: number) => number): Promise<void> {
  const most = [3_000, 100_000, 1 << 20][random(3)] ?? 0;
  for (let at = 0; at < stream.byteLength; ) {
    const length = 1 + random(most);
    client.send(stream.subarray(at, at + length));
    at += length;
    if (random(4) === 0) await new Promise((resolve) => setImmediate(resolve));
  }
}

t.test('a write that does not come completely is not done', async (t) => {
  const { socket, path } = await exportFile(t);
  const before = readFileSync(path);
  const client = await RawClient.connect(t, socket);
  await client.go();
  client.request({ command: COMMAND.write, length: SIZE }, Buffer.alloc(SIZE - 1, 'x'));
  client.socket.end();
  t.equal((await client.untilClosed()).byteLength, 0);
  t.ok(readFileSync(path).equals(before));
});

t.test('a disk that has another size than before', async (t) => {
  const { socket, path } = await exportFile(t);
  const come = async (sizeBytes: number): Promise<RawClient> => {
    const client = await RawClient.connect(t, socket);
    await client.greet();
    client.option(OPTION.exportName);
    t.equal((await client.take(10)).readBigUInt64BE(0), BigInt(sizeBytes));
    return client;
  };
  const answers = async (client: RawClient, error: number, offset: number): Promise<void> => {
    const command = COMMAND.write;
    client.request({ command, offset, length: 4 }, Buffer.from('grow'));
    t.same(await client.simple(), { error, low: 1 }, `a write at ${offset}`);
    client.request({ command: COMMAND.writeZeroes, offset: offset + 2, length: 2 });
    t.same(await client.simple(), { error, low: 1 }, `zeros at ${offset}`);
    client.request({ command: COMMAND.read, offset, length: 4 });
    const read = await client.simple();
    t.same(read, { error: error === 0 ? 0 : 22, low: 1 }, `a read at ${offset}`);
    if (read.error === 0) t.same(await client.take(4), Buffer.from('gr\0\0'));
  };
  const early = await come(SIZE);
  truncateSync(path, 3 * SIZE);
  await answers(early, 28, SIZE);
  const later = await come(3 * SIZE);
  await answers(later, 0, 3 * SIZE - 4);
  await answers(later, 28, 3 * SIZE);
  await answers(early, 28, SIZE);
  await answers(early, 0, SIZE - 4);
  truncateSync(path, SIZE / 2);
  const last = await come(SIZE / 2);
  for (const client of [early, later, last]) {
    await answers(client, 28, SIZE / 2);
    await answers(client, 0, SIZE / 2 - 4);
  }
  t.equal(statSync(path).size, SIZE / 2);
});

t.test('where it listens', async (t) => {
  const { file } = await exportFile(t);
  const directory = shortDirectory(t);
  const socket = join(directory, 's');
  const listen = async (): Promise<ExportServer> => {
    const server = new ExportServer({ socket }, { file, name: '', description: '', tls: null });
    await server.listen();
    return server;
  };
  const first = await listen();
  t.equal(statSync(socket).mode & 0o777, 0o600, 'only its owner can connect');
  await t.rejects(listen(), { code: 'BUSY', message: /another program listens at/ });
  t.ok(existsSync(socket), 'which is not disturbed');
  await first.close();
  writeFileSync(socket, 'precious');
  await t.rejects(listen(), { code: 'FAILED', message: /is no socket/ });
  t.equal(readFileSync(socket, 'utf8'), 'precious');
  const long = join(directory, 'x'.repeat(120));
  const server = new ExportServer({ socket: long }, { file, name: '', description: '', tls: null });
  await t.rejects(server.listen(), { code: 'USAGE', message: /at most 107 bytes/ });
  const taken = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => taken.once('listening', resolve));
  t.teardown(() => taken.close());
  const { port } = taken.address() as { port: number };
  const second = new ExportServer({ host: '127.0.0.1', port }, { file, name: '', description: '', tls: null });
  await t.rejects(second.listen(), { message: /another program listens there/ });
});

/** The path of a socket whose server was killed. */
function staleSocket(t: Test): string {
  const socket = join(shortDirectory(t), 's');
  const script = `require('node:net').createServer().listen(${JSON.stringify(socket)}, () => process.kill(process.pid, 'SIGKILL'))`;
  t.throws(() => execFileSync(process.execPath, ['-e', script]));
  t.ok(existsSync(socket));
  chmodSync(socket, 0o600);
  return socket;
}

t.test('of servers that start at once, one gets the socket of a killed one', async (t) => {
  const { file } = await exportFile(t);
  const socket = staleSocket(t);
  const names = ['one', 'two', 'three', 'four'];
  const started = await Promise.allSettled(
    names.map(async (name) => {
      const server = new ExportServer({ socket }, { file, name, description: '', tls: null });
      await server.listen();
      t.teardown(() => server.close());
      return name;
    }),
  );
  const winners = started.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value] : []));
  t.equal(winners.length, 1, winners.join());
  for (const outcome of started) {
    if (outcome.status === 'rejected') t.match(outcome.reason, { code: 'BUSY', message: /another program listens at/ });
  }
  const client = await RawClient.connect(t, socket);
  await client.greet();
  client.option(OPTION.list);
  t.equal((await client.reply()).data.subarray(4).toString(), winners[0], 'and clients reach it');
});

t.test('the socket of a server that was killed is replaced', async (t) => {
  const { file } = await exportFile(t);
  const socket = staleSocket(t);
  const server = new ExportServer({ socket }, { file, name: '', description: '', tls: null });
  await server.listen();
  await server.close();
});
