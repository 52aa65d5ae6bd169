/**
 * The colours of the picture of a disk, in light and dark. The palette is that of Okabe and Ito, which people with any
 * colour vision can tell apart; compressed, allocated and absent ranges have a pattern, so no two kinds differ only in colour.
 */
import { CLASSES, DEPTHS } from './cells.js';

interface Colours {
  readonly paper: string;
  readonly ink: string;
  readonly faint: string;
  readonly zeros: string;
  readonly depths: readonly string[];
}

const LIGHT: Colours = {
  paper: '#ffffff',
  ink: '#1f2328',
  faint: '#59636e',
  zeros: '#dfe3e8',
  depths: ['#0072b2', '#e69f00', '#009e73', '#cc79a7', '#56b4e9', '#d55e00', '#c4b000', '#6e7781'],
};

const DARK: Colours = {
  paper: '#0d1117',
  ink: '#f0f3f6',
  faint: '#9da7b3',
  zeros: '#2f363f',
  depths: ['#3d8fd1', '#e69f00', '#10b286', '#d98fb7', '#9ad6f8', '#e8743b', '#f0e442', '#98a1ab'],
};

/** The names of the patterns that are drawn over the colour of a class. */
export function patternOf(which: number): 'hatch' | 'dots' | null {
  const kind = CLASSES[which]?.kind;
  if (kind === 'compressed' || kind === 'allocated') return 'hatch';
  return kind === 'absent' ? 'dots' : null;
}

/** The name of the style of a class. */
export function styleOf(which: number): string {
  const found = CLASSES[which];
  if (found === undefined || found.kind === 'absent') return 'a';
  return found.kind === 'data' || found.kind === 'compressed' ? `d${found.depth}` : 'z';
}

function rules({ paper, ink, faint, zeros, depths }: Colours): string {
  const ofDepths = depths.slice(0, DEPTHS).map((colour, depth) => `.d${depth}{fill:${colour}}`);
  return [
    `.p,.a{fill:${paper}}.z{fill:${zeros}}text,.m{fill:${ink}}.f{fill:${faint}}`,
    `.g{stroke:${paper}}.k{stroke:${ink}}.h{stroke:${paper}}.o{fill:${faint}}`,
    ...ofDepths,
  ].join('');
}

/** The style sheet, and the patterns. */
export function styleSheet(): string {
  return [
    '<style>text{font:12px system-ui,sans-serif}.t{font-size:15px;font-weight:600}.f{font-size:11px}',
    '.g,.k,.h{fill:none}.k{stroke-width:2}.w{fill:none;pointer-events:all}',
    `${rules(LIGHT)}@media(prefers-color-scheme:dark){${rules(DARK)}}</style>`,
    '<defs><pattern id="hatch" width="4" height="4" patternUnits="userSpaceOnUse">',
    '<path class="h" d="M-1 5L5-1M-1 1L1-1M3 5L5 3"/></pattern>',
    '<pattern id="dots" width="12" height="14" patternUnits="userSpaceOnUse">',
    '<circle class="o" cx="6" cy="7" r="1"/></pattern></defs>',
  ].join('');
}
