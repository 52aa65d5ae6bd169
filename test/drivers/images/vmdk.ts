/** Writes VMDK descriptors as VMware's programs do, for tests. */

export interface DescriptorFields {
  readonly type?: string;
  readonly parent?: string;
  /** more settings */
  readonly settings?: readonly string[];
  readonly newline?: string;
}

export function vmdkDescriptor(extents: readonly string[], fields: DescriptorFields = {}): Buffer {
  const { type = 'monolithicFlat', parent = 'ffffffff', settings = [], newline = '\n' } = fields;
  const lines = [
    '# Disk DescriptorFile',
    'version=1',
    'CID=12345678',
    `parentCID=${parent}`,
    `createType="${type}"`,
    ...settings,
    '',
    '# Extent description',
    ...extents,
    '',
    '# The Disk Data Base',
    '#DDB',
    '',
    'ddb.adapterType = "ide"',
    'ddb.geometry.cylinders = "20"',
    '',
  ];
  return Buffer.from(lines.join(newline), 'latin1');
}
