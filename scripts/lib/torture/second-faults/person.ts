/** The user who runs the buses: root, or an ordinary user. Root runs the torture itself and makes the faults. */
import { chownSync } from 'node:fs';

/** a user without any files; nobody on Debian */
const USER_ID = 65_534;

export interface Person {
  readonly name: 'root' | 'user';
  /** whether the kernel allows this user passthrough */
  readonly passesThrough: boolean;
  /** spawn options to start a program as this user */
  readonly spawnOptions: { readonly uid?: number; readonly gid?: number };
  /** options of mount(8) for a file system whose root directory this user owns */
  readonly mountOptions: readonly string[];
  /** makes this user the owner of a file or directory */
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
