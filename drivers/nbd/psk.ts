/** Pre-shared keys, as psktool(1) of GnuTLS writes them. */

/** what GnuTLS, which NBD servers and clients use, offers for pre-shared keys with TLS 1.3; none that also needs a certificate */
export const PSK_CIPHERS = 'PSK:!kRSAPSK:TLS_AES_128_GCM_SHA256';

export interface NamedKey {
  readonly name: string;
  readonly psk: Buffer;
}

/** The keys of a file of lines USER:KEY, the key in hexadecimal. Other lines are ignored. */
export function parseKeys(text: string): NamedKey[] {
  return text.split('\n').flatMap((line) => {
    const [, name, hex] = /^([^#:][^:]*):([\da-fA-F]+)\s*$/.exec(line) ?? [];
    return name === undefined || hex === undefined || hex.length % 2 === 1
      ? []
      : [{ name, psk: Buffer.from(hex, 'hex') }];
  });
}
