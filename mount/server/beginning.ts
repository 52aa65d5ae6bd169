/** What the server does first. It loads as little as it can. */
import { beginThreads } from '../fuse/event-loop/begin-threads.js';
import type { ServerStart } from './commands.js';

export const start = JSON.parse(process.argv[2] ?? '') as ServerStart;

/** null with transport fuse-native, which has no threads */
export const threads = start.transport === 'kernel' ? beginThreads(start) : null;
