/** The first hour of a new user, in real shells: every step does what docs/first-hour.md says. */
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { execute } from '../e2e/command.js';
import { whyNot } from '../e2e/fixtures.js';

t.setTimeout(600_000);

const PROGRAM = fileURLToPath(new URL('../../scripts/lib/first-hour/run.js', import.meta.url));
const NEEDED = ['tmux', 'bash', 'zsh', 'fish', 'mkfs.ext4', 'debugfs', 'sfdisk', 'losetup'];
const isRoot = process.getuid?.() === 0;

t.test('the first hour', { skip: isRoot ? whyNot(...NEEDED) : 'only root mounts with loop devices' }, async (t) => {
  const { status, stderr } = await execute(process.execPath, [PROGRAM, '--check'], { timeoutMs: 500_000 });
  t.equal(status, 0, stderr);
});
