/** The formats that can be examined, by the names that QEMU gives them. The code is loaded when it is asked for. */
import type { Examiner } from './examiner.js';

const EXAMINERS = {
  qcow2: () => import('../qcow2/examine.js'),
  vdi: () => import('../vdi/examine.js'),
  vpc: () => import('../vhd/examine.js'),
  vhdx: () => import('../vhdx/examine.js'),
  vmdk: () => import('../vmdk/examine.js'),
} satisfies Record<string, () => Promise<{ readonly default: Examiner }>>;

/** The examiner of a format; undefined if it has none. */
export async function examinerOf(format: string): Promise<Examiner | undefined> {
  if (!Object.hasOwn(EXAMINERS, format)) return undefined;
  return (await EXAMINERS[format as keyof typeof EXAMINERS]()).default;
}
