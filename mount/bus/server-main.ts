/** Kept for keepers of the previous version, which start their next server from here after an update in place. */
import '../server/main.js';
