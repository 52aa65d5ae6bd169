/** Errors as a shell sees them: the words, the exit status, and one line on stderr. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { fusetap, tempDir } from './fake-bus.js';

/** words, exit status, what the line says; no bus runs */
const TABLE: readonly [words: string, status: number, line: RegExp][] = [
  ['frobnicate', 2, /unknown command 'frobnicate'/],
  ['lss', 2, /unknown command 'lss': did you mean ls\?/],
  ['-q', 2, /no command/],
  ['--bus', 2, /argument missing/],
  ['ls --frobnicate', 2, /unknown option '--frobnicate': see fusetap ls --help/],
  ['ls extra', 2, /too many arguments/],
  ['ls --bus a*b', 2, /not a name of a bus: 'a\*b'/],
  ['--bus .. ls', 2, /not a name of a bus/],
  ['ls --bus nowhere', 3, /no bus nowhere: .*: fusetap attach or fusetap start/],
  ['ls --bus /nowhere/at/all', 3, /no directory for a bus: \/nowhere\/at\/all: ENOENT: mkdir -p/],
  ['start --bus /nowhere/at/all', 3, /no directory for a bus/],
  ['attach', 2, /nothing to attach/],
  ['attach a b c d', 2, /too many arguments/],
  ['attach disk.img xvda w --image x', 2, /too many words: w/],
  ['attach disk.img nonsense', 2, /nonsense/],
  ['attach disk.img xvda rw', 2, /no mode 'rw'/],
  ['attach disk.img,xvda,w xvdb', 2, /xvda in the spec, xvdb beside it/],
  ['attach -r disk.img xvda w', 2, /--read-only and mode w contradict each other/],
  ['attach --read-only disk.img xvda w!', 2, /--read-only and mode w! contradict/],
  ['attach -r disk.img,xvda,w', 2, /contradict/],
  ['attach vhd:disk.img', 6, /vhd/],
  ['attach nosuch:disk.img', 3, /no driver 'nosuch'/],
  ['attach --image=', 2, /--image is empty/],
  ['attach --driver= --image x', 2, /--driver is empty/],
  ['detach', 2, /nothing to detach: give a VBD, or --all/],
  ['detach --all xvda', 2, /--all and xvda contradict/],
  ['detach xvda', 3, /no bus 0/],
  ['detach ./disk.img', 3, /no such vbd: '\.\/disk\.img' on any bus/],
  ['detach --all', 3, /no bus 0/],
  ['detach --wait soon xvda', 2, /give seconds/],
  ['detach --wait -1 xvda', 2, /give seconds/],
  ['detach --wait= xvda', 2, /give seconds/],
  ['stop', 3, /no bus 0/],
  ['stop --all --bus 1', 2, /--all and --bus 1 contradict/],
  ['run', 125, /no command to run/],
  ['run disk.img', 125, /no command to run/],
  ['run disk.img --', 125, /no command to run/],
  ['run -- true', 125, /nothing to attach/],
  ['run --frobnicate disk.img -- true', 125, /unknown option '--frobnicate'/],
  ['run --bus 1 disk.img -- true', 125, /run has a bus of its own/],
  ['run disk.img,nonsense -- true', 125, /nonsense/],
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
    t.equal(json.stderr, plain.stderr.replaceAll(/fusetap-test-\w+/g, /fusetap-test-\w+/.exec(json.stderr)?.[0] ?? ''));
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

t.test('a stack only where it is asked for', async (t) => {
  const { status, stderr } = await fusetap(tempDir(t), ['ls', '--bus', '..', '--debug']);
  t.equal(status, 2);
  t.match(stderr, /^fusetap: [^\n]+\nFusetapError: .*\n {4}at /);
});

t.test('a name that tries to write a second line stays in one', async (t) => {
  const { stderr } = await fusetap(tempDir(t), ['ls', '--bus', '/a\nfusetap: all is well\x1b[2J']);
  t.equal(stderr.split('\n').length, 2);
  t.notOk(stderr.includes('\x1b'));
});

t.test('a runtime directory that cannot be', async (t) => {
  const file = join(tempDir(t), 'file');
  writeFileSync(file, '');
  mkdirSync(`${file}.d`);
  const { status, stderr } = await fusetap(join(file, 'run'), ['start']);
  t.equal(status, 3);
  t.match(stderr, /^fusetap: cannot make the directory [^\n]+\n$/);
});
