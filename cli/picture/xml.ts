/** Text in XML. Names of images, buses and partitions come from others: whatever they contain, the document stays valid. */
import { escapeControls } from '../../drivers/quote.js';

const ENTITIES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&apos;',
};

/** For text and for values of attributes. Characters that XML 1.0 does not have are shown as escapes. */
export function escapeXml(text: string): string {
  const visible = escapeControls(text).replace(/[\ufffe\uffff]/g, '\ufffd');
  return visible.replace(/[&<>"']/g, (character) => ENTITIES[character] ?? character);
}

/** Cuts a text that is too long for its place in the middle: the end of a path tells more than its middle. */
export function shorten(text: string, most: number): string {
  const characters = [...text];
  if (characters.length <= most) return text;
  const head = Math.floor((most - 1) / 3);
  return `${characters.slice(0, head).join('')}…${characters.slice(-(most - 1 - head)).join('')}`;
}
