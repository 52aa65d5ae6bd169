/**
 * The program and the table of its commands. A command's file is loaded only when it is needed: loading takes longer
 * than most commands do.
 */
import { Command } from 'commander';
import { VERSION } from '../mount/version.js';
import { addSharedOptions } from './options.js';

/** A command's file adds it to the program. */
export interface CommandFile {
  register(program: Command): void;
}

/** The commands, in the order of the help: one line each. */
export const COMMANDS: Readonly<Record<string, () => Promise<CommandFile>>> = {
  attach: () => import('./commands/attach.js'),
  detach: () => import('./commands/detach.js'),
  ls: () => import('./commands/ls.js'),
  show: () => import('./commands/show.js'),
  stats: () => import('./commands/stats.js'),
  top: () => import('./commands/top.js'),
  metrics: () => import('./commands/metrics.js'),
  web: () => import('./commands/web.js'),
  start: () => import('./commands/start.js'),
  stop: () => import('./commands/stop.js'),
  run: () => import('./commands/run.js'),
  create: () => import('./commands/create.js'),
  info: () => import('./commands/info.js'),
  check: () => import('./commands/check.js'),
  memory: () => import('./commands/memory.js'),
  swap: () => import('./commands/swap.js'),
  resize: () => import('./commands/resize.js'),
  reread: () => import('./commands/reread.js'),
  save: () => import('./commands/save.js'),
  diff: () => import('./commands/diff.js'),
  map: () => import('./commands/map.js'),
  export: () => import('./commands/export.js'),
  commit: () => import('./commands/commit.js'),
  reset: () => import('./commands/reset.js'),
  slot: () => import('./commands/slot.js'),
  config: () => import('./commands/config.js'),
  pause: () => import('./commands/pause.js'),
  resume: () => import('./commands/resume.js'),
  'block-attach': () => import('./commands/block-attach.js'),
  'block-list': () => import('./commands/block-list.js'),
  'block-detach': () => import('./commands/block-detach.js'),
  upgrade: () => import('./commands/upgrade.js'),
  log: () => import('./commands/log.js'),
  doctor: () => import('./commands/doctor.js'),
  mount: () => import('./commands/mount.js'),
  umount: () => import('./commands/umount.js'),
  completion: () => import('./commands/completion.js'),
};

/** The program without its commands. */
export function makeProgram(): Command {
  const program = new Command('fusetap')
    .summary('attach disk images as files')
    .description('Attaches disk images as files, in userspace: each file is a disk.')
    .usage('[options] COMMAND')
    .version(VERSION, '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print this help')
    .helpCommand(false)
    // commander would not wrap the right column on a narrow terminal
    .configureHelp({ showGlobalOptions: true, minWidthToWrap: 20 })
    // commander's own message would be a second line
    .configureOutput({ writeErr: () => {} })
    .exitOverride();
  addSharedOptions(program);
  program.addHelpText('after', '\nfusetap help COMMAND is fusetap COMMAND --help; fusetap status is fusetap ls.');
  return program;
}

/** Loads commands by name and adds them, in the order given. */
export async function addCommands(program: Command, names: readonly string[]): Promise<void> {
  const files = await Promise.all(names.map((name) => COMMANDS[name]?.()));
  for (const file of files) file?.register(program);
}
