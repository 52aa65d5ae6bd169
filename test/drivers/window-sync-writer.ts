/** A thread of window-sync.test.ts: writes one byte's value over a window again and again. */
import { workerData } from 'node:worker_threads';
import type { Window } from '../../drivers/driver.js';
import { writeWindow } from '../../drivers/segments/window-sync.js';
import { addressOf } from '../../system/libc.js';

const { w, byte } = workerData as { w: Window; byte: number };
const bytes = Buffer.alloc(w.size, byte);
for (let i = 0; i < 400; i++) writeWindow(w, addressOf(bytes), 0, w.size);
