/** Kept for keepers of the version before, which start their next server from here after an update in place. */
import '../server/main.js';
