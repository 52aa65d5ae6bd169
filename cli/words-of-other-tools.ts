/**
 * Words that users of other tools type (losetup, qemu-nbd, guestmount, mount, systemctl, docker), and what they mean
 * here. Some are translated; for the others the error says which word to use. A test checks that each word is one that
 * fusetap has.
 */
import { existsSync, statSync } from 'node:fs';
import { named } from '../drivers/quote.js';

/**
 * Translates `help [CMD]`, `version` and `status` to words that fusetap has.
 * @param commands the names of the commands
 */
export function translate(argv: readonly string[], commands: readonly string[]): string[] {
  const index = commandIndex(argv);
  const [before, rest] = [argv.slice(0, index), argv.slice(index + 1)];
  switch (argv[index]) {
    case 'help': {
      const words = translate(rest, commands);
      const name = words[commandIndex(words)];
      // for a command that does not exist, an error is better than the help of the program
      return [...before, ...words, ...(name === undefined || commands.includes(name) ? ['--help'] : [])];
    }
    case 'version':
      return [...before, '--version'];
    case 'status':
      return [...before, 'ls', ...rest];
    default:
      return [...argv];
  }
}

/** The index of the command's name: the first word that is neither an option nor the value of one. */
function commandIndex(argv: readonly string[]): number {
  const index = argv.findIndex((word, i) => !word.startsWith('-') && argv[i - 1] !== '--bus');
  return index < 0 ? argv.length : index;
}

type Hints = Readonly<Record<string, string>>;

/** One hint for several words. */
const all = (words: string, hint: string): Hints => Object.fromEntries(words.split(' ').map((word) => [word, hint]));

const COMMANDS: Hints = {
  ...all('rm remove delete del eject unplug disconnect close unmap', 'did you mean detach?'),
  ...all('add insert plug connect open', 'did you mean attach?'),
  ...all('losetup', 'its words here are attach, detach, ls and show'),
  ...all('list lsblk ps', 'did you mean ls?'),
  ...all('inspect describe', 'did you mean show? For an image: fusetap info'),
  ...all('fsck', 'did you mean check?'),
  ...all('backup copy cp', 'did you mean save?'),
  ...all('snapshot', 'did you mean attach --snapshot? To copy a vbd: fusetap save'),
  ...all('revert rollback', 'did you mean reset?'),
  ...all('merge flatten', 'did you mean commit?'),
  ...all('kill halt shutdown destroy', 'did you mean stop?'),
  ...all('restart reload', 'did you mean upgrade?'),
  ...all('iostat', 'did you mean stats --interval 1, or top?'),
  ...all('mem free df', 'did you mean memory?'),
  ...all('exec', 'did you mean run?'),
  ...all('logs journal', 'did you mean log?'),
  ...all('unpause continue', 'did you mean resume?'),
  ...all('suspend freeze', 'did you mean pause?'),
  ...all('unmount', 'did you mean umount?'),
  ...all('restore import', 'fusetap attach --config FILE attaches what fusetap ls --json has printed'),
  ...all('grow extend', 'did you mean resize?'),
  ...all('partprobe partx', 'did you mean reread?'),
  ...all('nbd serve share', 'did you mean export?'),
  ...all('convert', 'qemu-img convert -O raw IMAGE disk.img'),
};

/** Options of losetup(8) and qemu-nbd(8), which have no commands. */
const WITHOUT_COMMAND: Hints = {
  ...all('-d --detach --disconnect', 'did you mean fusetap detach VBD?'),
  ...all('-D --detach-all', 'did you mean fusetap detach --all?'),
  ...all('-a --all -l --list', 'did you mean fusetap ls?'),
  ...all('-j --associated', 'did you mean fusetap ls IMAGE?'),
  ...all('-f --find --show --connect', 'did you mean fusetap attach IMAGE?'),
  ...all('-c --set-capacity', 'did you mean fusetap resize VBD? To attach: fusetap attach IMAGE'),
  ...all('-P --partscan', 'did you mean fusetap attach --partitions IMAGE?'),
};

const OF_ATTACH: Hints = {
  ...WITHOUT_COMMAND,
  ...all('-P --partscan', 'did you mean --partitions?'),
  ...all('-f --find', 'omit it: the first free vdev is the default'),
  ...all('--show', 'omit it: the path is always printed'),
  ...all('-o', 'did you mean --offset?'),
  ...all('--ro', 'did you mean --read-only?'),
  ...all('-w --rw', 'omit it: mode w is the default'),
  ...all('-L --nooverlap', 'omit it: an image that is attached for writing is refused'),
  ...all('-s', 'did you mean --snapshot?'),
  ...all('--format', 'name the driver before the path: fusetap attach vhd:IMAGE'),
};

const ALL_AND_FORCE: Hints = {
  ...all('-a -D --detach-all', 'did you mean --all?'),
  ...all('-f', 'did you mean --force?'),
  ...all('-w --timeout', 'did you mean --wait?'),
};

const OPTIONS: Readonly<Record<string, Hints>> = {
  '': { ...WITHOUT_COMMAND, ...all('-r --read-only', 'did you mean fusetap attach -r IMAGE?') },
  attach: OF_ATTACH,
  run: OF_ATTACH,
  detach: { ...ALL_AND_FORCE, ...all('-d', 'omit it: fusetap detach VBD') },
  stop: ALL_AND_FORCE,
  ls: {
    ...all('-a --all -l --long --list', 'omit it: ls shows all vbds of all buses'),
    ...all('-j --associated', 'the image needs no option: fusetap ls IMAGE'),
  },
  mount: {
    ...all(
      '-a --add',
      'the image has no option: fusetap mount IMAGE DIR; to mount the lines of fstab: mount -a -t fusetap',
    ),
    ...all('-m -i --inspector', 'did you mean --partition?'),
    ...all('--ro', 'did you mean --read-only?'),
    ...all('-w --rw --loop', 'omit it: this is the default'),
  },
  umount: {
    ...all('-a --all', 'name the directory: fusetap umount DIR'),
    ...all('-l --lazy', 'omit it: fusetap umount waits until the data is durable'),
  },
  save: all('-f', 'did you mean --force?'),
  check: all('-r', 'did you mean --repair?'),
  log: all('-n --tail --lines', 'fusetap log | tail'),
  create: {
    ...all('-f', 'did you mean --format?'),
    ...all('-b', 'did you mean --backing?'),
    ...all('-F', 'did you mean --backing-format?'),
    ...all('-o', 'did you mean --option?'),
    ...all('-s --size', 'the size needs no option: fusetap create IMAGE SIZE'),
  },
};

/** The hint for a command that fusetap does not have. */
export function hintForCommand(word: string): string | undefined {
  if (Object.hasOwn(COMMANDS, word)) return COMMANDS[word];
  return existsSync(word) && statSync(word).isFile() ? `did you mean fusetap attach ${named(word)}?` : undefined;
}

/** The hint for an option that the command does not have. @param command empty if no command was given */
export function hintForOption(command: string, flag: string): string | undefined {
  const hints = Object.hasOwn(OPTIONS, command) ? OPTIONS[command] : undefined;
  return hints !== undefined && Object.hasOwn(hints, flag) ? hints[flag] : undefined;
}

/** commands on a bus, to which users of other tools give its name as an argument */
const ON_A_BUS = ['start', 'stop', 'upgrade', 'log'];

/** The hint for an argument that the command does not take. */
export function hintForArgument(command: string, word: string): string | undefined {
  return ON_A_BUS.includes(command) ? `did you mean fusetap ${command} --bus ${named(word)}?` : undefined;
}

/** All fixed hints, for the test, and the command that prints each; empty if there is none. */
export const HINTS: readonly (readonly [command: string, hint: string])[] = [
  ...Object.values(COMMANDS).map((hint) => ['', hint] as const),
  ...Object.entries(OPTIONS).flatMap(([command, hints]) =>
    Object.values(hints).map((hint) => [command, hint] as const),
  ),
];
