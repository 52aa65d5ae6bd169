/** The program files of a bus are missing for a while, as if a package manager replaced them: the package, or node. */
import { rename } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Stage } from '../stage.js';
import { always, type Fault } from './fault.js';

function movedAway(name: string, what: string, pathIn: (stage: Stage) => string): Fault {
  return {
    name,
    about: `${what} is moved away for 1 to 3 s while a server is killed`,
    whyNot: always,
    begin: async (bus, random) => {
      const path = pathIn(bus.stage);
      await rename(path, `${path}.away`);
      let restarts = 0;
      return {
        // neither a new server nor a new bus can be loaded
        standing: bus.journal.begin(name, what, { commands: { kinds: ['upgrade', 'start', 'attach'] } }),
        during: async () => {
          restarts = await bus.killServer();
          await delay(random.between(1_000, 3_000));
        },
        undo: () => rename(`${path}.away`, path),
        after: () => bus.settled(restarts),
      };
    },
  };
}

export const movedPackage = movedAway('package', 'the package', ({ packageDir }) => join(packageDir, 'dist'));
export const movedNode = movedAway('node', 'the node program', ({ node }) => node);
