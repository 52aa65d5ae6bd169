import t from 'tap';
import { parseMountWords } from '../../cli/disk-spec/mount-words.js';

t.test('words of -o and of fstab', async (t) => {
  const none = { readOnly: false, snapshot: false, ours: {}, passedOn: [] };
  t.same(parseMountWords(''), none);
  t.same(parseMountWords('rw,defaults,noauto,nofail,_netdev,user,x-systemd.requires=c,X-mount.mkdir,comment=b'), none);
  t.same(parseMountWords('loop'), none, 'fusetap makes the loop device');
  t.same(parseMountWords('loop=/dev/loop7,relatime'), none);
  t.same(parseMountWords('helper=fusetap,noatime,,data=journal'), {
    ...none,
    passedOn: ['helper=fusetap', 'noatime', 'data=journal'],
  });
  t.match(parseMountWords('ro'), { readOnly: true });
  t.match(parseMountWords('ro,rw'), { readOnly: false }, 'the last one counts, as with mount(8)');
  t.match(parseMountWords('rw,ro'), { readOnly: true });
  t.match(parseMountWords('partition=root fs,fstype=xfs,bus=7,offset=1M,sizelimit=2M,share=a,driver=sync,image=/a=b'), {
    ours: {
      ...{ partition: 'root fs', type: 'xfs', bus: '7', offset: '1M' },
      ...{ sizelimit: '2M', share: 'a', driver: 'sync', image: '/a=b' },
    },
    passedOn: [],
  });
  t.match(parseMountWords('snapshot,backing=none'), { snapshot: true, ours: { backing: 'none' }, passedOn: [] });
  t.match(parseMountWords('partition=2,partition=2'), { ours: { partition: '2' } });
  for (const wrong of ['partition=1,partition=2', 'partition', 'offset=', 'bus']) {
    t.throws(() => parseMountWords(wrong), { code: 'USAGE' }, wrong);
  }
});
