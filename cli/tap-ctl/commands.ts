/** The table of tap-ctl's commands. A command's file is loaded only when it is needed. */
import type { TapCommand } from './command.js';

/** The commands, in the order of the help. */
export const TAP_COMMANDS: Readonly<Record<string, () => Promise<{ command: TapCommand }>>> = {
  list: () => import('./commands/list.js'),
  allocate: () => import('./commands/allocate.js'),
  free: () => import('./commands/free.js'),
  create: () => import('./commands/create.js'),
  destroy: () => import('./commands/destroy.js'),
  spawn: () => import('./commands/spawn.js'),
  attach: () => import('./commands/attach.js'),
  detach: () => import('./commands/detach.js'),
  open: () => import('./commands/open.js'),
  close: () => import('./commands/close.js'),
  pause: () => import('./commands/pause.js'),
  unpause: () => import('./commands/unpause.js'),
  stats: () => import('./commands/stats.js'),
  major: () => import('./commands/major.js'),
  check: () => import('./commands/check.js'),
};
