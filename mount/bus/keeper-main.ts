/** Kept for programs of the previous version, which start their next bus from here after an update in place. */
import '../keeper/main.js';
