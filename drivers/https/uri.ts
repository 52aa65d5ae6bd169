/** The URLs that name images on web servers. */
import { FusetapError } from '../errors.js';
import { quoted } from '../quote.js';

const MOST_CHARACTERS = 4096;

/** Whether a text can only be the URL of a web server. */
export function isHttpUrl(text: string): boolean {
  return /^https?:\/\//i.test(text);
}

/**
 * The canonical form of a URL.
 * @throws FusetapError USAGE; its message does not show a password
 */
export function canonicalUrl(text: string): string {
  const hint = 'write https://HOST/PATH';
  if (text.length > MOST_CHARACTERS) throw new FusetapError('USAGE', 'the URL is too long', { hint });
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    throw new FusetapError('USAGE', `${quoted(text.replace(/\/\/[^/]*@/, '//…@'))} is no URL`, { hint });
  }
  if (url.protocol !== 'https:' && url.protocol !== 'http:') {
    throw new FusetapError('USAGE', `${quoted(text)} is no URL of a web server`, { hint });
  }
  if (url.username !== '' || url.password !== '') {
    throw new FusetapError('USAGE', `the URL of ${url.host} has a password, which others could see`, {
      hint: 'put the header Authorization into a file: --option header-file=/PATH',
    });
  }
  url.hash = '';
  return url.href;
}

export const httpUris = { driver: 'https', matches: isHttpUrl, canonical: canonicalUrl, instead: 'download the image' };
