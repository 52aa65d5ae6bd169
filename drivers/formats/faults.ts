/** The errors of drivers that read a format. They name no path: fusetap adds it. */
import { FusetapError } from '../errors.js';

const CONVERT = 'convert it: qemu-img convert -O raw IMAGE disk.img';

/** The image breaks the rules of its format. @param what for example `the checksum of its footer is wrong` */
export function broken(format: string, what: string): FusetapError {
  return new FusetapError('FAILED', `the ${format} is damaged: ${what}`, {
    hint: 'restore it from a copy; other programs may still read it: qemu-img convert -O raw IMAGE disk.img',
  });
}

/** A format has used up the device that its image is on. */
export function deviceFull(): FusetapError {
  return new FusetapError('NO_SPACE', 'the image is full: it is on a device, which cannot become larger', {
    errno: 28,
    hint: 'make the device larger',
  });
}

/** The image is a variant that the driver cannot serve. @param what a sentence */
export function unsupported(what: string, hint = CONVERT): FusetapError {
  return new FusetapError('UNSUPPORTED', what, { hint });
}
