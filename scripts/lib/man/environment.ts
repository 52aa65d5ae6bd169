/** The environment variables and files of the man page fusetap(1). */
import { type Block, bold, italic, plain } from './roff.js';

/** Every variable of ours that fusetap reads or sets. A test compares them with the code. */
export const VARIABLES: readonly (readonly [name: string, meaning: string])[] = [
  ['FUSETAP_BUS', 'The bus, if --bus is omitted.'],
  ['FUSETAP_RUNTIME_DIR', 'The runtime directory. See FILES.'],
  ['XDG_RUNTIME_DIR', 'For users other than root: the runtime directory is fusetap below this directory.'],
  [
    'FUSETAP_RAM_LIMIT',
    'The limit for the memory of all ram images, for example 8G. Default: the memory of the machine.',
  ],
  ['FUSETAP_DEVICE', 'Set by fusetap run: the path of the first vbd.'],
  ['FUSETAP_DEVICES', 'Set by fusetap run: the paths of all vbds, one per line.'],
  ['FUSETAP_EXTRA_CA_CERTS', 'Set by fusetap on Node 20 for its own processes: what NODE_EXTRA_CA_CERTS was.'],
  ['FUSETAP_FLUSH_LIMIT_MS', 'The time limit for the end of a bus by force or by a signal, in ms. Default: 75000.'],
  [
    'FUSETAP_USERS_LIMIT_MS',
    'How long a bus whose systemd unit is stopped waits for its users, in ms. Default: 60000.',
  ],
  ['FUSETAP_SCOPE', 'no: a new bus stays in the systemd unit of the command that starts it.'],
  ['FUSETAP_SILENCE_LIMIT_MS', 'A server that is silent for this time is replaced, in ms. Default: 30000.'],
  ['FUSETAP_START_LIMIT_MS', 'A bus without a server is given up after this time, in ms. Default: 600000.'],
];

const PATHS: readonly (readonly [path: string, meaning: string])[] = [
  ['/run/fusetap', 'The runtime directory of root.'],
  [
    '$XDG_RUNTIME_DIR/fusetap',
    'The runtime directory of another user; /tmp/fusetap-UID if XDG_RUNTIME_DIR is not set.',
  ],
  ['RUNTIME/bus/NAME', 'The directory of a bus: its vbds are files in it.'],
  ['RUNTIME/state/NAME/control.sock', 'The control socket of a bus.'],
  ['RUNTIME/state/NAME/log', 'The log of a bus, one JSON document per line; fusetap log prints it.'],
  ['/etc/fusetap/VDEV.conf', 'The configuration of a vbd for the systemd unit fusetap-vbd@VDEV.'],
  ['/etc/fusetap/INSTANCE.mount.conf', 'The configuration of the systemd unit fusetap-mount@INSTANCE.'],
];

export const ENVIRONMENT: readonly Block[] = VARIABLES.map(([name, meaning]) => ({
  kind: 'item',
  term: bold(name),
  text: plain(meaning),
}));

export const FILES: readonly Block[] = PATHS.map(([path, meaning]) => ({
  kind: 'item',
  term: italic(path),
  text: plain(meaning),
}));
