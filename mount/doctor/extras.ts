/**
 * Optional parts: loop devices, programs that mount without loop devices, libfuse for the second transport, and Xen's hotplug
 * script.
 */
import { accessSync, constants, existsSync, readFileSync, realpathSync } from 'node:fs';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { FUSE_PROGRAMS } from '../file-system/tools/fuse-programs.js';
import { canMountByLoop } from '../file-system/tools/loop-mount.js';
import { isInstalled } from '../file-system/tools/run-tool.js';
import { type Check, type Finding, fine, lacking } from './check.js';

/** Whether loop devices can be used to mount the file system of a vbd. */
export function lookAtLoop(
  isThere: boolean = existsSync('/dev/loop-control'),
  isAllowed: boolean = canMountByLoop(),
): Finding {
  if (!isThere) return lacking('there are no loop devices', 'modprobe loop; in a container, pass them in');
  if (isAllowed) return fine('loop devices can be made and mounted');
  return lacking(
    'only root may make and mount loop devices',
    'mke2fs, debugfs, mtools, qemu, guestfish work on a vbd directly; fusetap mount uses fuse2fs and other FUSE programs',
  );
}

/** Whether programs are installed that mount file systems for users without loop devices. */
export async function lookAtFuseProgram(
  isThere: (program: string) => Promise<boolean> | boolean = isInstalled,
  isRoot = process.geteuid?.() === 0,
): Promise<Finding> {
  const found: string[] = [];
  const missing: string[] = [];
  for (const { program, packageName, types } of FUSE_PROGRAMS.filter(({ isForRoot }) => isRoot || !isForRoot)) {
    if (await isThere(program)) found.push(`${program} (${types.join(', ')})`);
    else missing.push(packageName);
  }
  const detail = found.length === 0 ? 'only root can mount file systems' : found.join(', ');
  // any of them is useful, but most images need fuse2fs
  return found.length === 0 || missing.includes('fuse2fs')
    ? lacking(detail, `as root: apt install ${missing.join(' ')}`)
    : fine(detail);
}

const LIBRARY = 'libfuse.so.2';
const DIRECTORIES = ['/lib', '/lib64', '/usr/lib', '/usr/lib64', '/lib/x86_64-linux-gnu', '/usr/lib/x86_64-linux-gnu'];

/** Whether libfuse 2 is installed, which the transport fuse-native needs. */
export function lookAtLibfuse(): Finding {
  if (isInCache() || DIRECTORIES.some((directory) => existsSync(`${directory}/${LIBRARY}`))) return fine(LIBRARY);
  return lacking(
    `${LIBRARY} is not installed: --transport fuse-native does not work`,
    'apt install libfuse2, or dnf install fuse-libs',
  );
}

/** Whether the library is in ldconfig's cache, which contains the names of all libraries as plain text. */
function isInCache(): boolean {
  try {
    return readFileSync('/etc/ld.so.cache', 'latin1').includes(`${LIBRARY}\0`);
  } catch {
    return false;
  }
}

const XEN_SCRIPTS = '/etc/xen/scripts';
const OWN_SCRIPT = fileURLToPath(new URL('../../../scripts/block-fusetap', import.meta.url));

/** The check of the hotplug script, on a host that has such scripts. */
export function xenChecks(directory = XEN_SCRIPTS): Check[] {
  if (!existsSync(directory)) return [];
  return [{ name: 'xen-script', needed: false, look: () => lookAtXenScript(directory) }];
}

/** Whether xl finds the script of this installation. */
export function lookAtXenScript(directory = XEN_SCRIPTS, own = OWN_SCRIPT): Finding {
  const path = join(directory, basename(own));
  const hint = `as root: ln -sf ${own} ${path}`;
  let real: string;
  try {
    real = realpathSync(path);
    accessSync(real, constants.X_OK);
  } catch {
    return lacking("xl's script=block-fusetap does not work: it is not installed", hint);
  }
  if (real === realpathSync(own)) return fine(path);
  return lacking(`${path} is that of another installation: ${real}`, hint);
}
