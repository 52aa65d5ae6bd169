/** Kept for servers of the version before, whose keeper dies after an update in place. */
export { Orphan } from '../server/orphan.js';
