/** Kept for servers of the previous version, which load this when their keeper dies after an update in place. */
export { Orphan } from '../server/orphan.js';
