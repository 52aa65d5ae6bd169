/** Errors on the command line: the arguments, the exit status, and one line on stderr. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { fusetap, tempDir } from './fake-bus.js';

t.setTimeout(600_000);

/** words, exit status, what the line says; no bus runs */
const TABLE: readonly [words: string, status: number, line: RegExp][] = [
  ['frobnicate', 2, /unknown command 'frobnicate'/],
  ['lss', 2, /unknown command 'lss': did you mean ls\?/],
  ['-q', 2, /no command/],
  ['--bus', 2, /argument missing/],
  ['ls nowhere', 3, /no such image, directory or vbd: 'nowhere'/],
  ['ls --buses xvda', 2, /--buses and xvda contradict each other/],
  ['ls --frobnicate', 2, /unknown option '--frobnicate': see fusetap ls --help/],

  ['ls --bus a*b', 2, /not a name of a bus: 'a\*b'/],
  ['--bus .. ls', 2, /not a name of a bus/],
  ['ls --bus nowhere', 3, /no bus nowhere: .*: fusetap attach or fusetap start/],
  ['ls --bus /nowhere/at/all', 3, /no directory for a bus: \/nowhere\/at\/all: ENOENT: mkdir -p/],
  ['start --bus /nowhere/at/all', 3, /no directory for a bus/],
  ['attach', 2, /nothing to attach/],
  ['attach a b c d', 2, /'b' is neither a vdev nor an image: there is no such file/],
  ['attach disk.img xvda w more', 2, /'more' is not an image/],
  ['attach disk.img xvda w --image x', 2, /'disk\.img' is not a vdev.*give only \[VDEV\] \[MODE\]/],
  ['attach --driver ./xor.js x.img', 2, /'x\.img' is not a vdev.*the image is --image x\.img/],
  ['attach --image x xvda w more', 2, /'more' is not a vdev/],
  ['attach --vdev xvda a aio:b', 2, /--vdev xvda is for one disk, and there are 2/],
  ['attach --vdev xvda disk.img xvdb', 2, /contradict|xvdb in the spec, xvda after it/],
  ['attach --mode rw disk.img', 2, /Allowed choices are r, w, w!/],
  ['attach --private disk.img', 2, /--private: driver aio shares no memory/],
  ['attach --private --share x ram:disk.img', 2, /--private and --share x contradict/],
  ['attach disk.img nonsense', 2, /nonsense/],
  ['attach disk.img xvda rw', 2, /no mode 'rw'/],
  ['attach disk.img,xvda,w xvdb', 2, /xvda in the spec, xvdb after it/],
  ['attach -r disk.img xvda w', 2, /--read-only and mode w contradict each other/],
  ['attach --read-only disk.img xvda w!', 2, /--read-only and mode w! contradict/],
  ['attach -r disk.img,xvda,w', 2, /contradict/],
  ['attach qcow:disk.img', 6, /qcow/],
  ['attach qed:disk.img', 6, /qed/],
  ['attach aio:vhd:disk.img', 2, /aio takes a file, not the disk of vhd: write vhd:/],
  ['attach ram:vhd:', 2, /no image/],
  ['attach nosuch:disk.img', 3, /no driver 'nosuch'/],
  ['attach --image=', 2, /--image is empty/],
  ['attach --driver= --image x', 2, /--driver is empty/],
  ['attach --driver no-such-driver --image x', 3, /no driver 'no-such-driver': .*: drivers are aio, .*ram, .*sync/],
  ['attach --option alone x', 2, /--option alone has no value/],
  ['attach --option a=1 --option a=2 x', 2, /--option a is given twice/],
  ['attach --option =1 x', 2, /--option =1 has no name/],
  ['attach --option file/a=1 x', 2, /--option file\/a: the disk has no driver at 'file': an option of aio has no path/],
  ['attach --option file/file/a=1 ram:tar:x', 2, /no driver at 'file\/file': drivers are at 'file'; an option of ram/],
  ['attach --option /a=1 x', 2, /--option \/a has no name of a driver/],
  ['attach --option file/=1 ram:tar:x', 2, /--option file\/ has no name of an option/],
  ['attach --backing some x', 2, /Allowed choices are same-directory, any, none/],
  ['attach --snapshot --share a ram:x', 2, /the memory of a snapshot is its own: it cannot be shared as a/],
  ['attach --snapshot --private x', 3, /no such image/],
  ['attach --private sync:x', 2, /--private: driver sync shares no memory/],
  ['attach --filter =1 x', 2, /--filter =1 has no name/],
  ['attach --filter error=open x', 2, /'open' is not a rule/],
  ['attach --filter error=read x', 2, /would refuse the attach itself/],
  ['detach', 2, /nothing to detach: give a VBD, or --all/],
  ['detach --all xvda', 2, /--all and xvda contradict/],
  ['detach xvda', 3, /no bus 0/],
  ['detach ./disk.img', 3, /no such vbd: '\.\/disk\.img' on any bus/],
  ['detach --all', 3, /no bus 0/],
  ['detach --wait soon xvda', 2, /give seconds/],
  ['detach --wait -1 xvda', 2, /give seconds/],
  ['detach --wait= xvda', 2, /give seconds/],
  ['show nowhere', 3, /no such vbd: 'nowhere' on any bus/],
  ['show xvda', 3, /no bus 0/],
  ['show a b', 2, /too many arguments/],
  ['stats', 3, /no bus 0/],
  ['stats --bus a*b', 2, /not a name of a bus/],
  ['stats a b', 2, /too many arguments/],
  ['create', 2, /missing required argument 'IMAGE'/],
  ['create disk.img', 2, /missing required argument 'SIZE'/],
  ['create disk.img 0', 2, /SIZE: 0 is too little: give 1 or more/],
  ['create disk.img 10Q', 2, /'10Q' is not a size: give bytes/],
  ['create disk.img 99999999T', 2, /is not a size/],
  ['create disk.img -5', 2, /'-5' is not a size/],
  ['create /nowhere/disk.img 1M', 3, /cannot make the image .*ENOENT: make its directory first/],
  ['create /proc/version 1M', 4, /is there already/],
  ['create --format vhdx disk.img 1M', 2, /Allowed choices are raw, qcow2/],
  ['create --option size=1 disk.img 1M', 2, /no option 'size': its options are preallocation/],
  ['create --option size disk.img 1M', 2, /--option size has no value/],
  ['create --option preallocation=off --option preallocation=off disk.img 1M', 2, /is given twice/],
  [
    'create --backing /dev/null disk.img 1M',
    2,
    /a raw image has no backing file: the formats that have one are qcow2, vhd, vmdk/,
  ],
  ['create --backing-format raw disk.img 1M', 2, /no --backing/],
  ['create --format qcow2 --backing nowhere.img disk.img', 3, /nowhere\.img: no such image/],
  ['create --format qcow2 --backing nbd://host/x disk.img', 5, /not a path but a protocol/],
  ['create --format qcow2 --option compat=0.10 disk.img 1M', 6, /version 2/],
  ['create --format qcow2 -o cluster_size=4K disk.img 1M', 2, /did you mean --option\?/],
  ['info', 2, /missing required argument 'IMAGE\|SPEC'/],
  ['info nowhere.img', 3, /no such image/],
  ['info ram:', 2, /names no image/],
  ['info --backing some disk.img', 2, /Allowed choices are same-directory, any, none/],
  ['check', 1, /missing required argument 'IMAGE\|SPEC'/],
  ['check nowhere.img', 1, /no such image/],
  ['check --repair all disk.img', 1, /Allowed choices are leaks/],
  ['check a b', 1, /too many arguments/],
  ['slot', 2, /missing required argument/],
  ['slot xvd', 2, /'xvd' is not a vdev/],
  ['slot 99999999999', 2, /is not a vdev/],
  ['config nowhere', 3, /no bus nowhere/],
  ['diff', 2, /missing required argument 'VBD\|SPEC'/],
  ['diff xvda', 3, /no bus 0/],
  ['diff xvda xvdb', 3, /no bus 0/],
  ['diff xvda xvdb xvdc', 2, /too many arguments/],
  ['export', 2, /missing required argument 'VBD'/],
  ['export xvda', 3, /no bus 0/],
  ['export xvda --listen nowhere', 2, /give ADDRESS:PORT or PORT/],
  ['export xvda --listen 0.0.0.0:1', 5, /other machines can reach 0\.0\.0\.0/],
  ['export xvda --socket a --listen 1', 2, /cannot be used together/],
  ['export xvda --tls a --tls-psk b', 2, /cannot be used together/],
  ['export xvda --tls-verify-peer', 2, /is about certificates/],
  ['map', 2, /missing required argument 'VBD\|SPEC'/],
  ['map xvda', 3, /no bus 0/],
  ['map 51712', 3, /no bus 0/],
  ['map nowhere.img', 3, /nowhere\.img: no such image/],
  ['map --bus 1 nowhere.img', 3, /no bus 1/],
  ['map a.img b.img', 2, /too many arguments/],
  ['map tap:aio:/a.img,xvda,w', 2, /has a place on a bus/],
  ['map --backing some a.img', 2, /Allowed choices are same-directory, any, none/],
  ['map --option size /a.img', 2, /--option size has no value/],
  ['commit', 2, /missing required argument 'VBD'/],
  ['commit xvda', 3, /no bus 0/],
  ['commit xvda base.img', 2, /too many arguments/],
  ['commit --force xvda', 2, /unknown option '--force'/],
  ['config --bus 1 2', 2, /the buses 2 and --bus 1 contradict/],
  ['upgrade', 3, /no bus 0/],
  ['upgrade xvda', 2, /too many arguments/],
  ['log', 3, /no log of bus 0/],
  ['log --bus ..', 2, /not a name of a bus/],
  ['doctor all', 2, /too many arguments/],
  ['completion', 2, /missing required argument/],
  ['completion tcsh', 2, /Allowed choices are bash, zsh, fish/],
  ['stop', 3, /no bus 0/],
  ['stop --all --bus 1', 2, /--all and --bus 1 contradict/],
  ['run', 125, /no command to run/],
  ['run disk.img', 125, /no command to run/],
  ['run disk.img --', 125, /no command to run/],
  ['run -- true', 125, /nothing to attach/],
  ['run --frobnicate disk.img -- true', 125, /unknown option '--frobnicate'/],
  ['run --bus 1 disk.img -- true', 125, /run starts a new bus, it cannot use 1/],
  ['run disk.img,nonsense -- true', 125, /nonsense/],
  ['run --image x disk.img -- true', 125, /there is no SPEC: 'disk\.img'/],
  ['run --vdev xvda a b -- true', 125, /--vdev xvda is for one disk/],
  ['run --config nowhere -- true', 125, /cannot read nowhere/],
];

for (const [words, status, line] of TABLE) {
  t.test(`fusetap ${words}`, async (t) => {
    const args = words.split(' ');
    // in front, because behind `--` it would be a word of the command's
    const [plain, json] = await Promise.all([fusetap(tempDir(t), args), fusetap(tempDir(t), ['--json', ...args])]);
    t.equal(plain.status, status);
    t.equal(plain.stdout, '');
    t.match(plain.stderr, line);
    t.match(plain.stderr, /^fusetap: [^\n]+: [^\n]+\n$/, 'one line, with how to fix it');
    t.equal(json.status, status);
    // each has a directory of its own
    const [ofPlain, ofJson] = [plain, json].map(({ stderr }) => stderr.replaceAll(/fusetap-test-\w+/g, 'DIR'));
    t.equal(ofJson, ofPlain);
    const { error } = JSON.parse(json.stdout) as { error: { code: string; message: string } };
    t.ok(json.stderr.includes(error.message));
    t.type(error.code, 'string');
  });
}

t.test('without words: a short help, and it is an error', async (t) => {
  const { status, stdout, stderr } = await fusetap(tempDir(t), []);
  t.equal(status, 2);
  t.equal(stdout, '');
  t.match(stderr, /^Usage: fusetap/);
});

t.test('a stack only with --debug', async (t) => {
  const { status, stderr } = await fusetap(tempDir(t), ['ls', '--bus', '..', '--debug']);
  t.equal(status, 2);
  t.match(stderr, /^fusetap: [^\n]+\nFusetapError: .*\n {4}at /);
});

t.test('a name that tries to write a second line stays in one', async (t) => {
  const { stderr } = await fusetap(tempDir(t), ['ls', '--bus', '/a\nfusetap: all is well\x1b[2J']);
  t.equal(stderr.split('\n').length, 2);
  t.notOk(stderr.includes('\x1b'));
});

t.test('a runtime directory that cannot be used', async (t) => {
  const file = join(tempDir(t), 'file');
  writeFileSync(file, '');
  mkdirSync(`${file}.d`);
  const { status, stderr } = await fusetap(join(file, 'run'), ['start']);
  t.equal(status, 3);
  t.match(stderr, /^fusetap: cannot make the directory [^\n]+\n$/);
});
