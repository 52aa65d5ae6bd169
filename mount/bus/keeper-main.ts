/** Kept for programs that loaded the version before, and begin a bus after an update in place. */
import '../keeper/main.js';
