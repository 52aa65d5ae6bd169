/** All second faults of buses that must live. The faults that end a bus are in ../endings.ts. */
import { deadImage } from './dead-image.js';
import type { Fault } from './fault.js';
import { fewDescriptors } from './few-descriptors.js';
import { frozenImage } from './frozen-image.js';
import { fullDisk } from './full-disk.js';
import { fullRuntime } from './full-runtime.js';
import { hangingImage } from './hanging-image.js';
import { idleSignals } from './idle-signals.js';
import { interruptedAct } from './interrupted-act.js';
import { lockedImage } from './locked-image.js';
import { movedNode, movedPackage } from './moved-away.js';

export const FAULTS: readonly Fault[] = [
  lockedImage,
  fullRuntime,
  fewDescriptors,
  movedPackage,
  movedNode,
  hangingImage,
  deadImage,
  frozenImage,
  fullDisk,
  idleSignals,
  interruptedAct,
];
