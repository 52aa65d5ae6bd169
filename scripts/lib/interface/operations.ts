/** The requests of the control interface: what each is for, takes and answers. */
import type { GenericSchema } from 'valibot';
import { attachRequest, saveRequest, startRequest, stopRequest, swapRequest } from '../../../mount/control/schemas.js';
import type { AnswerName } from './answers.js';

export interface Operation {
  readonly id: string;
  readonly method: 'get' | 'post' | 'delete';
  /** as OpenAPI has it: `/vbds/{vdev}` */
  readonly path: string;
  readonly summary: string;
  readonly request?: GenericSchema;
  readonly answer: AnswerName;
  /** the answer is an array of such */
  readonly isList?: boolean;
  /** default 200 */
  readonly status?: number;
  /** how far a copy is can be told in lines of JSON */
  readonly tellsProgress?: boolean;
}

const VBD = '/vbds/{vdev}';

export const OPERATIONS: readonly Operation[] = [
  { id: 'version', method: 'get', path: '/version', summary: 'Which interface, which fusetap', answer: 'Version' },
  { id: 'showBus', method: 'get', path: '/bus', summary: 'The bus and its vbds', answer: 'Bus' },
  { id: 'listVbds', method: 'get', path: '/vbds', summary: 'The vbds of the bus', answer: 'Vbd', isList: true },
  {
    ...{ id: 'attach', method: 'post', path: '/vbds', summary: 'Attaches an image' },
    ...{ request: attachRequest, answer: 'AttachedVbd', status: 201, tellsProgress: true },
  },
  {
    ...{ id: 'stats', method: 'get', path: '/stats', answer: 'Stats', isList: true },
    summary: 'What requests did, of each vbd since its attach',
  },
  { id: 'memory', method: 'get', path: '/memory', summary: 'The ram images of all buses', answer: 'Memory' },
  {
    ...{ id: 'detach', method: 'delete', path: VBD, answer: 'Detached' },
    summary: 'Detaches a vbd: its data is durable and its file gone when the answer comes',
  },
  { id: 'pause', method: 'post', path: `${VBD}/pause`, summary: 'Holds the I/O of a vbd', answer: 'Vbd' },
  { id: 'resume', method: 'post', path: `${VBD}/resume`, summary: 'Lets it go on', answer: 'Vbd' },
  {
    ...{ id: 'swap', method: 'post', path: `${VBD}/swap`, request: swapRequest, answer: 'Vbd', tellsProgress: true },
    summary: 'Gives a paused vbd another image of the same size',
  },
  {
    ...{ id: 'save', method: 'post', path: `${VBD}/save`, request: saveRequest, answer: 'Saved', tellsProgress: true },
    summary: 'Makes a file a consistent copy of a vbd',
  },
  {
    ...{ id: 'reset', method: 'post', path: `${VBD}/reset`, answer: 'Vbd', tellsProgress: true },
    summary: 'Copies the image of a ram vbd afresh',
  },
  {
    ...{ id: 'start', method: 'post', path: '/start', request: startRequest, answer: 'Bus' },
    summary: 'The bus stays without vbds from now on',
  },
  {
    ...{ id: 'upgrade', method: 'post', path: '/upgrade', answer: 'Upgraded' },
    summary: 'Puts the code that is installed now under the running bus',
  },
  {
    ...{ id: 'stop', method: 'post', path: '/stop', request: stopRequest, answer: 'Detached' },
    summary: 'Detaches all and ends the bus',
  },
];
