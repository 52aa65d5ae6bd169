/** From images to files and back, for programs. */

export { type MountedImage, type MountRequest, mountImage } from './mount-image.js';
export { listMountedImages } from './mounted-images.js';
export { unmountImage } from './unmount-image.js';
