/**
 * The vdev field of a disk spec: `xvda`, `51712`, `hdc:cdrom`, and `ioemu:hda` of old xm configurations.
 */
import { quoted } from '../../drivers/quote.js';
import { findSlot, parseSlot } from '../../mount/slots/slots.js';
import { type DeviceType, refuse } from './disk-spec.js';

export interface VdevField {
  /** canonical */
  vdev: string;
  /** null if the field has none */
  devtype: DeviceType | null;
}

function splitField(field: string): { name: string; devtype: string | null } {
  const word = field.startsWith('ioemu:') ? field.slice('ioemu:'.length) : field;
  const colon = word.lastIndexOf(':');
  return colon === -1 ? { name: word, devtype: null } : { name: word.slice(0, colon), devtype: word.slice(colon + 1) };
}

/** Whether a field can only be a vdev. */
export function isVdevField(field: string): boolean {
  return findSlot(splitField(field).name) !== null;
}

/** @throws FusetapError USAGE */
export function parseVdevField(field: string): VdevField {
  const { name, devtype } = splitField(field);
  const { vdev } = parseSlot(name);
  return { vdev, devtype: devtype === null ? null : parseDeviceType(devtype) };
}

/** @throws FusetapError USAGE */
export function parseDeviceType(word: string): DeviceType {
  if (word === 'disk' || word === 'cdrom') return word;
  throw refuse(`no devtype ${quoted(word)}`, 'use disk or cdrom');
}
