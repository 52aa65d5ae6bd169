/** The first hour, in the order in which a new user goes: what is typed, and what must be on the screen then. */

/** A command that ends. */
export interface CommandStep {
  readonly is: 'command';
  readonly line: string;
  /** default: 0 */
  readonly status?: number;
  /** must be in the output */
  readonly shows?: RegExp;
}

/** A word that Tab completes, or completions that it lists. */
export interface TabStep {
  readonly is: 'tab';
  /** without the Tab at the end */
  readonly typed: string;
  /** must be on the screen */
  readonly shows: RegExp;
}

/** A command that copies for some seconds, while the width of the terminal changes. */
export interface BarStep {
  readonly is: 'bar';
  readonly line: string;
  /** the widths, one after the other */
  readonly columns: readonly number[];
}

/** A command in a second terminal that prints what the commands in the first one do. */
export interface BesideStep {
  readonly is: 'beside';
  readonly line: string;
  /** typed in the first terminal when the second one shows `begins` */
  readonly meanwhile: readonly string[];
  readonly begins: RegExp;
  readonly shows: RegExp;
}

/** A sentence between commands. */
export interface SayStep {
  readonly is: 'say';
  readonly text: string;
}

export type Step = CommandStep | TabStep | BarStep | BesideStep | SayStep;

export interface Chapter {
  readonly title: string;
  readonly text: string;
  /** default: bash */
  readonly shell?: 'bash' | 'zsh' | 'fish';
  /** typed before, and not shown */
  readonly before?: readonly string[];
  readonly steps: readonly Step[];
}

function command(line: string, shows?: RegExp, status = 0): CommandStep {
  return { is: 'command', line, status, ...(shows !== undefined && { shows }) };
}

function say(text: string): SayStep {
  return { is: 'say', text };
}

function fails(line: string, status: number, shows: RegExp): CommandStep {
  return command(line, shows, status);
}

function tab(typed: string, shows: RegExp): TabStep {
  return { is: 'tab', typed, shows };
}

/** What is completed, in each of the shells. */
const TABS: readonly TabStep[] = [
  tab('fusetap att', /fusetap attach/),
  tab('fusetap attach ram:gol', /fusetap attach ram:golden\.img/),
  tab('fusetap detach x', /fusetap detach xvda/),
];

export const CHAPTERS: readonly Chapter[] = [
  {
    title: 'A disk that is a file',
    text:
      'You make an image with a file system, and attach it. The path that `attach` prints is the disk. With `ram:` it is ' +
      'a copy in memory: whatever you do to it, `golden.img` stays as it is.',
    steps: [
      command('fusetap create golden.img 64M'),
      command('mkfs.ext4 -q -L golden golden.img'),
      command('fusetap attach ram:golden.img', /bus\/0\/xvda$/m),
      command('fusetap ls', /xvda .* ram .* golden\.img|golden\.img/),
      command('e2label /run/fusetap/bus/0/xvda scratch'),
      command('e2label /run/fusetap/bus/0/xvda', /^scratch$/m),
      command('fusetap show xvda', /^driver +ram$/m),
      command('fusetap detach xvda'),
      command('e2label golden.img', /^golden$/m),
    ],
  },
  {
    title: 'Files in an image',
    text: '`mount` takes you from an image to its files in one step, and `umount` takes you back.',
    steps: [
      command('mkdir mnt'),
      command('fusetap mount golden.img mnt'),
      command("echo 'hello from a vbd' > mnt/hello"),
      command('ls mnt', /hello/),
      command('fusetap ls', /golden\.img/),
      command('fusetap umount mnt'),
      command("debugfs -R 'cat hello' golden.img 2>/dev/null", /hello from a vbd/),
    ],
  },
  {
    title: 'A disk for one command',
    text:
      '`run` attaches, runs a command, and detaches, whatever happens. `{}` is the path of the disk. The exit status is that of the command, so it fits ' +
      'into scripts and CI jobs.',
    steps: [
      command("fusetap run ram:golden.img -- sh -c 'e2label {} test; e2label {}'", /^test$/m),
      command('e2label golden.img', /^golden$/m),
      command('fusetap run ram:golden.img -- false; echo $?', /^1$/),
      command('fusetap ls', /^BUS/m),
    ],
  },
  {
    title: 'A copy, and a fresh start',
    text:
      '`save` writes a copy of a disk to a file, while the disk stays attached. `reset` gives a ram disk the bytes of its ' +
      'image again: a fresh disk for each test.',
    steps: [
      command('fusetap attach ram:golden.img', /xvda$/m),
      command('e2label /run/fusetap/bus/0/xvda mine'),
      command('fusetap save xvda mine.img', /mine\.img$/m),
      command('fusetap reset xvda'),
      command('e2label /run/fusetap/bus/0/xvda; e2label mine.img', /^golden\nmine$/m),
      command('fusetap detach xvda'),
    ],
  },
  {
    title: 'An image with partitions',
    text: 'The image of a Raspberry Pi, for example, has two partitions. `--partitions` makes a file of ' + 'each.',
    steps: [
      command('fusetap create rpi.img 64M'),
      command("printf 'label: dos\\n,32M,83\\n,,83\\n' | sfdisk -q rpi.img"),
      command('fusetap attach --partitions rpi.img', /xvda$/),
      command('cd /run/fusetap/bus/0; ls; mkfs.ext4 -q xvda1; mkfs.ext4 -q xvda2; cd', /xvda1\b.*xvda2\b/s),
      command('fusetap detach xvda'),
      say('Both partitions can be mounted at once, by their number, name, label or UUID:'),
      command('fusetap mount --partition 2 rpi.img mnt'),
      command('mkdir mnt/boot'),
      command('fusetap mount --partition 1 rpi.img mnt/boot'),
      command('df -h mnt mnt/boot', /mnt\/boot$/m),
      command('fusetap umount mnt/boot'),
      command('fusetap umount mnt'),
    ],
  },
  {
    title: 'Mistakes',
    text: 'An error is one line: what failed, where, and how to fix it. Exit codes tell kinds of errors apart.',
    steps: [
      fails('fusetap atach golden.img', 2, /attach/),
      fails('fusetap attach goldn.img', 3, /no such image/),
      fails('fusetap detach xvdq', 3, /^fusetap: /m),
      command('fusetap attach golden.img', /xvda$/),
      say('One image cannot be written by two, and a disk in use is not detached. Here the shell itself has it open:'),
      fails('fusetap attach golden.img', 4, /golden\.img/),
      command('exec 9</run/fusetap/bus/0/xvda'),
      fails('fusetap detach xvda', 4, /in use by/),
      command('exec 9<&-'),
      command('fusetap detach xvda; echo $?', /^0$/),
    ],
  },
  {
    title: 'Work that takes time',
    text:
      'This disk is slow on purpose: each of its requests takes 150 ms more. `save` shows how far it is, on one line, ' +
      'however wide the terminal is. Here its width changes from 40 columns to 100 and to 60.',
    before: ['head -c 64M /dev/urandom > data.img'],
    steps: [
      command('fusetap attach --filter delay=150 data.img', /xvda$/m),
      { is: 'bar', line: 'fusetap save xvda copy.img', columns: [40, 100, 60] },
      command('cmp copy.img data.img; echo $?', /^0$/),
      command('fusetap detach xvda'),
    ],
  },
  {
    title: 'What happened',
    text: '`log -f`, in a second terminal, prints what happens on the bus until the bus ends.',
    before: ['fusetap start'],
    steps: [
      {
        is: 'beside',
        line: 'fusetap log -f',
        begins: / started /,
        meanwhile: ['fusetap attach golden.img', 'fusetap detach xvda', 'fusetap stop'],
        shows: / attached .* detached .* ended /s,
      },
    ],
  },
  {
    title: 'Tab, in bash',
    text: 'Tab completes commands, options, images, vbds and mounted directories. `⇥` is the Tab key.',
    before: [
      'fusetap attach golden.img',
      'fusetap create other.img 16M; mkfs.ext4 -q other.img',
      'fusetap mount other.img mnt',
    ],
    steps: [
      command('source <(fusetap completion bash)'),
      ...TABS,
      tab('fusetap umount ', /umount mnt/),
      tab('fusetap attach --file-mode ', /0600 +0640 +0644 +0660|06/),
      tab('fusetap run ram:golden.img -- e2lab', /-- e2label/),
      command('fusetap umount mnt'),
    ],
  },
  {
    title: 'Tab, in zsh',
    text: 'The same, with a word about each completion.',
    shell: 'zsh',
    before: ['autoload -U compinit; compinit -u -D'],
    steps: [command('source <(fusetap completion zsh)'), ...TABS, tab('fusetap attach --driver ', /aio.*ram.*sync/s)],
  },
  {
    title: 'Tab, in fish',
    text: 'And in fish.',
    shell: 'fish',
    steps: [command('fusetap completion fish | source'), ...TABS, tab('fusetap attach --driver ', /aio.*ram.*sync/s)],
  },
  {
    title: 'The end',
    text: '`stop` detaches everything on the bus and ends it.',
    steps: [command('fusetap stop'), command('fusetap ls', /^BUS/m)],
  },
];
