/** From images to files and back, for programs. */

export { busOfDirectory, type MountedImage, type MountRequest, mountImage } from './file-system/mount-image.js';
export { listMountedImages } from './file-system/mounted-images.js';
export { unmountImage } from './file-system/unmount-image.js';
