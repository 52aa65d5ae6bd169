/** MBR: what sfdisk makes is read as sfdisk reads it; what is no table makes no partitions. */
import t from 'tap';
import { whyNot } from '../../e2e/fixtures.js';
import { SFDISK_PROGRAMS } from './sfdisk.js';
import { bySfdisk, flawOf, putMbr, SECTOR, tableOf } from './tables.js';

const MIB = 1 << 20;
const SCRIPT = 'label: dos\n,10M,83\n,5M,c\n,20M,5\n,4M,82\n,3M,83\n,4M,7\n,5M,83\n';

t.test('primary and logical partitions', { skip: whyNot(...SFDISK_PROGRAMS) }, async (t) => {
  const { disk, partitions } = bySfdisk(SCRIPT, 64 * MIB);
  const diskNumber = disk.readUInt32LE(440).toString(16).padStart(8, '0');
  const { table, partitions: found, notes } = await tableOf(disk);
  t.equal(table, 'mbr');
  t.same(notes, []);
  const wanted = partitions
    .filter(({ type }) => type !== '5')
    .map(({ node, start, size, type }) => {
      const number = Number(/\d+$/.exec(node)?.[0]);
      const uuid = `${diskNumber}-${String(number).padStart(2, '0')}`;
      return { number, offset: start * SECTOR, size: size * SECTOR, type, name: null, uuid, readOnly: false };
    });
  t.equal(wanted.length, 6);
  t.same(
    found,
    wanted.sort((a, b) => a.number - b.number),
  );
});

t.test('the place of an entry is its number', { skip: whyNot(...SFDISK_PROGRAMS) }, async (t) => {
  const { disk } = bySfdisk('label: dos\n4: start=2048, size=100, type=83\n2: start=4096, size=1, type=83\n', MIB * 4);
  t.same(
    (await tableOf(disk)).partitions.map(({ number, offset, size }) => [number, offset, size]),
    [
      [2, 4096 * SECTOR, SECTOR],
      [4, MIB, 100 * SECTOR],
    ],
  );
});

t.test('what is no partition table', async (t) => {
  const cases: [what: string, sector: Buffer, why: RegExp][] = [
    ['zeros', Buffer.alloc(SECTOR), /no partition table/],
    ['0xff', Buffer.alloc(SECTOR, 0xff), /no partition table/],
    ['text and a signature', putMbr(Buffer.alloc(SECTOR, 'Press any key '), 0, []), /boot sector of another kind/],
    ['FAT', fatSector(), /begins with FAT/],
    ['NTFS', namedSector('NTFS    '), /begins with NTFS/],
    ['exFAT', namedSector('EXFAT   '), /begins with exFAT/],
    ['less than a sector', Buffer.alloc(511), /too small/],
  ];
  for (const [what, disk, why] of cases) {
    const { table, partitions, notes } = await tableOf(disk);
    t.same({ table, partitions }, { table: null, partitions: [] }, what);
    t.match(notes, [why]);
    t.equal(notes.length, 1);
  }
});

t.test('an empty table is one', async (t) => {
  t.same(await tableOf(putMbr(Buffer.alloc(SECTOR), 0, [])), { table: 'mbr', partitions: [], notes: [] });
});

t.test('a boot loader with a table behind it', async (t) => {
  // the jump and the name that loaders have there too, without the parameters of a file system
  const disk = Buffer.alloc(MIB);
  disk.write('\xebc\x90GRUB', 'latin1');
  putMbr(disk, 0, [{ type: 0x83, start: 63, count: 100, boot: 0x80 }]);
  t.match(await tableOf(disk), { table: 'mbr', partitions: [{ number: 1, offset: 63 * SECTOR }] });
});

t.test('a file system that was there before the table', async (t) => {
  // sfdisk leaves what mkfs.fat wrote into the first 446 bytes
  const disk = Buffer.concat([fatSector(), Buffer.alloc(100 * SECTOR)]);
  disk.fill(0, 446, 510);
  t.match(await tableOf(disk), { table: null, notes: [/begins with FAT/] }, 'without entries it is the file system');
  putMbr(disk, 0, [{ type: 0x83, start: 8, count: 50 }]);
  t.match(await tableOf(disk), { table: 'mbr', partitions: [{ number: 1, offset: 8 * SECTOR }], notes: [] });
  putMbr(disk, 0, [{ type: 0x0c, start: 0, count: 101 }]);
  t.match(await tableOf(disk), { table: null }, 'mkfs.fat itself makes an entry for the whole disk');
  putMbr(disk, 0, [{ type: 0x83, start: 500, count: 50 }]);
  t.match(await tableOf(disk), { table: null }, 'an entry outside the disk proves nothing');
  putMbr(disk, 0, [{ type: 0xee, start: 1, count: 100 }]);
  t.match(await tableOf(disk), { notes: [/protective MBR/] });
});

t.test('sectors of another size', async (t) => {
  for (const sectorBytes of [1024, 2048, 4096] as const) {
    const disk = Buffer.alloc(100 * sectorBytes);
    putMbr(disk, 0, [
      { type: 0x83, start: 10, count: 20 },
      { type: 5, start: 40, count: 50 },
    ]);
    putMbr(disk.subarray(40 * sectorBytes), 0, [{ type: 0x82, start: 2, count: 3 }]);
    const { partitions, notes } = await tableOf(disk, disk.byteLength, sectorBytes);
    t.same(notes, []);
    t.same(
      partitions.map(({ number, offset, size }) => [number, offset / sectorBytes, size / sectorBytes]),
      [
        [1, 10, 20],
        [5, 42, 3],
      ],
    );
  }
});

t.test('tables that are not read are named', async (t) => {
  const cases: [name: RegExp, at: number, bytes: string][] = [
    [/Apple partition map/, 512, '504d0000'],
    [/Sun label/, 508, 'dabe'],
    [/SGI label/, 0, '0be5a941'],
    [/BSD label/, 512, '57455682'],
    [/BSD label/, 64, '57455682'],
    [/Amiga/, 0, '5244534b'],
  ];
  for (const [name, at, bytes] of cases) {
    const disk = Buffer.alloc(8 * SECTOR);
    disk.write(bytes, at, 'hex');
    const { table, partitions, notes } = await tableOf(disk);
    t.same({ table, partitions }, { table: null, partitions: [] });
    t.match(notes, [name]);
    t.match(notes[0], /which fusetap does not read$/);
  }
  const slices = putMbr(Buffer.alloc(100 * SECTOR), 0, [{ type: 0xa5, start: 10, count: 50 }]);
  t.match(await tableOf(slices), { partitions: [{ number: 1 }], notes: [] }, 'a slice without a label');
  slices.write('57455682', 11 * SECTOR, 'hex');
  t.match(await tableOf(slices), { partitions: [{ number: 1 }], notes: [/^partition 1 has a BSD label/] });
});

t.test('partitions that are not all inside the disk, or in another, may only be read', async (t) => {
  const disk = putMbr(Buffer.alloc(100 * SECTOR), 0, [
    { type: 0x83, start: 10, count: 90 },
    { type: 0x83, start: 99, count: 2 },
    { type: 0x83, start: 2 ** 32 - 1, count: 2 ** 32 - 1 },
    { type: 0x83, start: 99, count: 1 },
  ]);
  const { partitions, notes } = await tableOf(disk);
  t.same(
    partitions.map(({ number, size, readOnly }) => [number, size / SECTOR, readOnly]),
    [
      [1, 90, false],
      [2, 1, true],
      [4, 1, true],
    ],
  );
  t.match(notes, [
    /^partition 2 is read-only: it ends at byte 51712, and is cut at the end of the disk, 51200; it shares bytes with/,
    /^partition 3 is left out: it starts at byte/,
    /^partition 4 is read-only: it shares bytes with partition 1$/,
  ]);
});

t.test('neighbours do not overlap', async (t) => {
  const disk = putMbr(Buffer.alloc(100 * SECTOR), 0, [
    { type: 0x83, start: 50, count: 50 },
    { type: 0x83, start: 1, count: 49 },
  ]);
  t.match(await tableOf(disk), { partitions: [{ number: 1 }, { number: 2 }], notes: [] });
});

t.test('an entry without sectors is not used, one without a type is', async (t) => {
  const disk = putMbr(Buffer.alloc(100 * SECTOR), 0, [
    { type: 0, start: 10, count: 10 },
    { type: 0x83, start: 10, count: 0 },
    { type: 0x83, start: 30, count: 10 },
  ]);
  t.match(await tableOf(disk), { partitions: [{ number: 1, type: '0' }, { number: 3 }], notes: [] });
});

t.test('a hybrid ISO: the image is a partition, and another is in it', async (t) => {
  const disk = putMbr(Buffer.alloc(1000 * SECTOR), 0, [
    { type: 0, start: 0, count: 1000, boot: 0x80 },
    { type: 0xef, start: 100, count: 50 },
  ]);
  const { partitions, notes } = await tableOf(disk);
  t.match(partitions, [
    { number: 1, offset: 0, size: 1000 * SECTOR, readOnly: false },
    { number: 2, offset: 100 * SECTOR, readOnly: true },
  ]);
  t.match(notes, [/^partition 2 is read-only: it shares bytes with partition 1$/]);
});

t.test('a chain of logical partitions ends', async (t) => {
  const extended = (count: number): Buffer =>
    putMbr(Buffer.alloc(1000 * SECTOR), 0, [{ type: 0x0f, start: 100, count }]);
  const link = (start: number, next: number) => [
    { type: 0x83, start, count: 1 },
    { type: 5, start: next, count: 100 },
  ];
  t.test('that bites its tail', async (t) => {
    const disk = putMbr(putMbr(extended(900), 100, link(1, 10)), 110, link(1, 0));
    const { partitions, notes } = await tableOf(disk);
    t.same(
      partitions.map(({ number, offset }) => [number, offset / SECTOR]),
      [
        [5, 101],
        [6, 111],
      ],
    );
    t.match(notes, [/sector 100 is linked twice/]);
  });
  t.test('that leads out of the disk', async (t) => {
    t.match(await tableOf(putMbr(extended(900), 100, link(1, 2 ** 32 - 200))), {
      partitions: [{ number: 5 }],
      notes: [/beyond the end of the disk/],
    });
  });
  t.test('that leads to what is no table', async (t) => {
    t.match(await tableOf(extended(900)), { partitions: [], notes: [/sector 100 is not a table/] });
  });
  t.test('that has no end', async (t) => {
    const disk = extended(900);
    for (let i = 0; i < 200; i++) putMbr(disk, 100 + 2 * i, link(1, 2 * i + 2));
    const { partitions, notes } = await tableOf(disk);
    t.equal(partitions.length, 128);
    t.match(notes, [/more than 128/]);
  });
  t.test('a logical one outside keeps its number', async (t) => {
    const disk = putMbr(putMbr(extended(900), 100, link(5000, 10)), 110, [{ type: 0x83, start: 1, count: 5 }]);
    t.match(await tableOf(disk), { partitions: [{ number: 6 }], notes: [/^partition 5 is left out/] });
  });
});

t.test('random entries never give a window outside the disk', async (t) => {
  const seed = Number(process.env.FUSETAP_SEED ?? Date.now() % 2 ** 32);
  t.comment(`seed ${seed}`);
  const random = randomFrom(seed);
  const sizeBytes = 2000 * SECTOR + 77;
  for (let round = 0; round < 3000; round++) {
    const disk = Buffer.alloc(sizeBytes);
    for (const sector of [0, 1, 2, 3]) {
      const some = (): number => [random(2100), random(8), 2 ** 32 - 1 - random(3000)][random(3)] as number;
      putMbr(
        disk,
        sector,
        [0, 1, 2, 3].map(() => ({ type: [0, 0x83, 5, 0x0f][random(4)] as number, start: some(), count: some() })),
      );
    }
    const flaw = flawOf(await tableOf(disk), sizeBytes);
    if (flaw !== null) return t.fail(`round ${round}: ${flaw}`);
  }
});

/** Numbers below a limit, the same for the same seed. */
function randomFrom(seed: number): (limit: number) => number {
  let state = seed >>> 0;
  return (limit) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * limit);
  };
}

function namedSector(name: string): Buffer {
  const sector = putMbr(Buffer.alloc(SECTOR), 0, [{ type: 0x83, start: 1, count: 1 }]);
  sector.write(`\xebR\x90${name}`, 'latin1');
  return sector;
}

/** As mkfs.fat begins a file system: the code behind the parameters leaves zeros where an MBR has its entries. */
function fatSector(): Buffer {
  const sector = namedSector('mkfs.fat');
  sector.writeUInt16LE(512, 11);
  sector.writeUInt8(4, 13);
  sector.writeUInt16LE(4, 14);
  sector.writeUInt8(2, 16);
  sector.writeUInt8(0xf8, 21);
  return sector;
}
