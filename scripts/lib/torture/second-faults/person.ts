/** Who runs the buses: root, or an ordinary user. The torture itself, and the faults it makes, are root's. */
import { chownSync } from 'node:fs';

/** a user who has nothing; on Debian it is called nobody */
const USER_ID = 65_534;

export interface Person {
  readonly name: 'root' | 'user';
  /** whether the kernel lets the person have passthrough */
  readonly passesThrough: boolean;
  /** how a program is started as this person */
  readonly spawnOptions: { readonly uid?: number; readonly gid?: number };
  /** what mount(8) is told for a file system whose root is the person's */
  readonly mountOptions: readonly string[];
  /** gives a file or directory to the person */
  give(path: string): void;
}

export const ROOT: Person = {
  name: 'root',
  passesThrough: true,
  spawnOptions: {},
  mountOptions: [],
  give: () => {},
};

export const USER: Person = {
  name: 'user',
  passesThrough: false,
  spawnOptions: { uid: USER_ID, gid: USER_ID },
  mountOptions: [`uid=${USER_ID}`, `gid=${USER_ID}`],
  give: (path) => chownSync(path, USER_ID, USER_ID),
};
