import t from 'tap';
import { isReadOnlyType, NOTHING_FOUND, parseProbe } from '../../../../mount/file-system/tools/blkid.js';

t.test('the output of blkid, whatever the file contains', async (t) => {
  t.same(parseProbe(''), NOTHING_FOUND);
  t.same(parseProbe('ID_PART_TABLE_TYPE=dos\nID_PART_TABLE_UUID=159ab4e4\n'), NOTHING_FOUND, 'a partition table');
  const ext4 = [
    'ID_FS_LABEL=a_TYPE=x_',
    String.raw`ID_FS_LABEL_ENC=a\x0aID_FS_TYPE=x\x1b\x20=`,
    'ID_FS_UUID=45359df0',
    'ID_FS_UUID_ENC=45359df0',
    'ID_FS_TYPE=ext4',
    'ID_FS_USAGE=filesystem',
    '',
  ].join('\n');
  const label = 'a\nID_FS_TYPE=x\u001b =';
  t.same(parseProbe(ext4), { type: 'ext4', isFileSystem: true, label, uuid: '45359df0' });
  const swap = parseProbe('ID_FS_TYPE=swap\nID_FS_USAGE=other\nID_FS_LABEL_ENC=\n');
  t.same(swap, { type: 'swap', isFileSystem: false, label: null, uuid: null });
  t.match(parseProbe('ID_FS_LABEL_ENC=Grüße\n'), { label: 'Grüße' });
});

t.test('types that nobody can write', async (t) => {
  t.ok(isReadOnlyType('squashfs') && isReadOnlyType('iso9660'));
  t.notOk(isReadOnlyType('ext4') || isReadOnlyType('vfat') || isReadOnlyType(null));
});
