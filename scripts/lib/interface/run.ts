/** Writes docs/openapi.json. */
import { writeFileSync } from 'node:fs';
import { makeOpenApi } from './openapi.js';

const target = new URL('../../../../docs/openapi.json', import.meta.url);
writeFileSync(target, `${JSON.stringify(makeOpenApi(), null, 2)}\n`);
