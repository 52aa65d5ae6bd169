/**
 * Mounts the file system in a file of the bus: by a loop device, or by a FUSE program for users who may not make one, and
 * for file systems that the kernel does not know.
 */
import { FusetapError } from '../../../drivers/errors.js';
import { type Content, isReadOnlyType } from './blkid.js';
import { mountHint, whyNoFileSystem } from './failure-hints.js';
import { type FuseProgram, findFuseProgram, fuseProgramFor, mountByFuse } from './fuse-programs.js';
import { canMountByLoop, MAKING_LOOP, mountByLoop } from './loop-mount.js';
import { MountCheck } from './mount-check.js';
import { isInstalled, type TellWait } from './run-tool.js';

export interface FileToMount {
  /** the file of a vbd or of a partition */
  readonly file: string;
  /** its real path */
  readonly directory: string;
  readonly readOnly: boolean;
  readonly content: Content;
  /** given by the user; null: detect it */
  readonly type: string | null;
  /** for mount(8) or the FUSE program */
  readonly options: readonly string[];
  readonly waits?: TellWait | undefined;
}

export interface MountedFile {
  /** the loop device; null if a FUSE program mounted it */
  readonly device: string | null;
  /** for the user */
  readonly remarks: readonly string[];
}

/** @throws FusetapError; nothing is mounted then */
export async function mountFile(request: FileToMount): Promise<MountedFile> {
  const type = request.type ?? request.content.type;
  if (!canMountByLoop()) return await byProgram(request, await programFor(request));
  try {
    return await byLoop(request);
  } catch (error) {
    if (!(error instanceof FusetapError)) throw error;
    const { code, message, operation } = error;
    const isUnknown = /unknown filesystem/.test(message);
    if (isUnknown || operation === MAKING_LOOP) {
      const program = type === null ? undefined : fuseProgramFor(type);
      if (program !== undefined && (await isInstalled(program.program))) return await byProgram(request, program);
    }
    const known = mountHint({ ...request, message, byKernel: true });
    const hint = isUnknown && request.content.isFileSystem ? noModule(String(type)) : known;
    throw new FusetapError(code, message, { ...error, hint });
  }
}

function noModule(type: string): string {
  const program = fuseProgramFor(type);
  const other = program === undefined ? 'use other tools on the vbd' : `apt install ${program.packageName}`;
  return `this kernel has no ${type}: modprobe ${type}, or ${other}`;
}

/** Why a file system can only be read, whatever is asked for; null if it can be written. */
export function whyReadOnly(type: string | null): string | null {
  if (type === null) return null;
  if (isReadOnlyType(type)) return `${type} cannot be written`;
  const program = canMountByLoop() ? undefined : fuseProgramFor(type);
  return program?.canWrite === false ? `${program.program} cannot write` : null;
}

async function programFor({ file, type, content }: FileToMount): Promise<FuseProgram> {
  if (type !== null) return await findFuseProgram(type);
  if (content.type !== null && content.isFileSystem) return await findFuseProgram(content.type);
  const found = content.type === null ? 'blkid finds none that it knows' : `it has ${content.type}`;
  throw new FusetapError('USAGE', `cannot tell the file system of ${file}: ${found}`, {
    hint: whyNoFileSystem(content) ?? 'name it with --type, or choose a partition with --partition N',
    path: file,
  });
}

async function byLoop(request: FileToMount): Promise<MountedFile> {
  const { file, directory, readOnly } = request;
  const check = await MountCheck.begin(directory);
  const device = await mountByLoop({ ...request, remarks: (line: string) => check.note(line) });
  return { device, remarks: await check.finish({ file, readOnly }) };
}

async function byProgram(request: FileToMount, program: FuseProgram): Promise<MountedFile> {
  const { file, directory } = request;
  const readOnly = request.readOnly || !program.canWrite;
  const check = await MountCheck.begin(directory);
  const remarks = (line: string): void => {
    if (!program.isTalkative) check.note(line);
  };
  const options = request.options.filter((word) => !word.startsWith('helper='));
  try {
    await mountByFuse(program, { ...request, readOnly, options, remarks });
    const said = await check.finish({ file, readOnly });
    const isRemarkable = readOnly && !request.readOnly;
    return {
      device: null,
      remarks: isRemarkable ? [...said, `${directory} is mounted read-only: ${program.program} cannot write`] : said,
    };
  } catch (error) {
    if (!(error instanceof FusetapError) || error.code === 'UNSUPPORTED') throw error;
    const { code, message } = error;
    throw new FusetapError(code, message, { ...error, hint: mountHint({ ...request, message, byKernel: false }) });
  }
}
