/** Checks whether this user can mount a bus, by which means, and whether other users may be allowed to use it. */
import { readFileSync, statSync } from 'node:fs';
import { CAP_SYS_ADMIN, hasCapability } from '../../system/capabilities.js';
import { findFusermount } from '../../system/programs.js';
import { type Finding, fine, lacking } from './check.js';

/** The means by which this process can mount a bus; a parameter, so that tests can set it. */
export interface MountMeans {
  /** mount(2) */
  readonly canMount: boolean;
  readonly isRoot: boolean;
  /** the path of fusermount3, which mounts for unprivileged users */
  readonly helper: string | null;
}

export function mountMeans(): MountMeans {
  const isRoot = process.geteuid?.() === 0;
  return { canMount: hasCapability(CAP_SYS_ADMIN), isRoot, helper: findFusermount() };
}

/** Whether a bus can be mounted. */
export function lookAtMounting({ canMount, isRoot, helper }: MountMeans = mountMeans()): Finding {
  if (canMount) return fine('mount(2) is allowed');
  if (isRoot)
    return lacking('root without CAP_SYS_ADMIN may not mount', 'in a container, add the capability SYS_ADMIN');
  if (helper === null) return lacking('a user needs fusermount3, which is not installed', INSTALL);
  return lookAtHelper(helper, `${helper} mounts for this user`);
}

const INSTALL = 'as root: apt install fuse3, or dnf install fuse3';

/** Whether fusermount3 is usable. It mounts for unprivileged users, also for libfuse. */
export function lookAtHelper(found: string | null = findFusermount(), detail: string = found ?? ''): Finding {
  if (found === null) return lacking('fusermount3 is not installed: only root can mount', INSTALL);
  const isSetuid = (statSync(found).mode & 0o4000) !== 0;
  return isSetuid ? fine(detail) : lacking(`${found} is not setuid root`, `as root: chmod u+s ${found}`);
}

const CONFIGURATION = '/etc/fuse.conf';

/** Whether `--allow-other` would be granted. */
export function lookAtAllowOther(canMount: boolean = mountMeans().canMount, text: string = configuration()): Finding {
  if (canMount) return fine('--allow-other is allowed');
  if (/^\s*user_allow_other\s*$/m.test(text)) return fine(`--allow-other is allowed, by ${CONFIGURATION}`);
  return lacking('this user may not use --allow-other', `as root: echo user_allow_other >> ${CONFIGURATION}`);
}

function configuration(): string {
  try {
    return readFileSync(CONFIGURATION, 'utf8');
  } catch {
    return '';
  }
}
