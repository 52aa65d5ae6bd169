import t from 'tap';
import { mountWords, umountWords } from '../../cli/mount-helper/words.js';

t.test('arguments of mount(8), translated for the command line', async (t) => {
  const kept = 'helper=fusetap';
  const cases: [said: string[], words: string[] | null][] = [
    [
      ['a.img', '/mnt'],
      ['mount', '--options', kept, '--', 'a.img', '/mnt'],
    ],
    [
      ['ram:a.img', '/mnt', '-o', 'rw'],
      ['mount', '--options', `${kept},rw`, '--', 'ram:a.img', '/mnt'],
    ],
    [
      ['a', '/b', '-sv', '-o', 'ro'],
      ['mount', '--options', `${kept},ro`, '--', 'a', '/b'],
    ],
    [
      ['a', '/b', '-n', '-o', 'partition=2,bus=7,noatime', '-t', 'fusetap'],
      ['mount', '--options', `${kept},partition=2,bus=7,noatime`, '--', 'a', '/b'],
    ],
    [['a', '/b', '-f'], null],
  ];
  for (const [said, words] of cases) t.same(mountWords(said), words, said.join(' '));
  for (const said of [[], ['a'], ['a', 'b', 'c']]) t.throws(() => mountWords(said), { code: 'USAGE' });
});

t.test('arguments of umount(8)', async (t) => {
  t.same(umountWords(['/mnt', '-nlfv', '-t', 'ext4']), ['umount', '--', '/mnt']);
  t.throws(() => umountWords([]), { code: 'USAGE' });
});
