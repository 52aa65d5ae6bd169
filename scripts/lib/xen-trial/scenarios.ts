/** The scenarios of scripts/xen-trial: their names, in the order in which they run, and what each shows. dom0/scenarios/ has them. */

export interface Scenario {
  readonly name: string;
  readonly about: string;
  /** the second half, for which the dom0 is shut down and booted again */
  readonly afterBoot?: string;
}

export const SCENARIOS: readonly Scenario[] = [
  { name: 'main', about: '`fusetap doctor`; attach, `dumpe2fs` and detach in the dom0: aio, sync, ram' },
  { name: 'aio', about: '`xl create` with an aio disk: mount, read and write in the guest' },
  {
    name: 'hotplug',
    about: '`xl block-attach` and `block-detach` of aio and ram, also `ro`; mkfs and `blkdiscard` in the guest',
  },
  { name: 'share', about: 'one ram image for the dom0 and two guests: each sees what the others write' },
  { name: 'share0', about: '`xl block-attach 0`: a ram image as a block device of the dom0' },
  { name: 'waive', about: 'one image twice: aio is refused, `w!:` in `target=` waives that, ram is shared' },
  { name: 'formats', about: '`target=qcow2:` and `target=vhd:`, judged by `qemu-img` afterwards' },
  { name: 'pygrub', about: 'kernel and initramfs from the image' },
  { name: 'old-specs', about: '`tap:aio:` is served by xl itself; `tap:ram:` and `backendtype=tap` are refused' },
  {
    name: 'errors',
    about: 'missing, empty or used images, at `xl create` and `block-attach`: refused with the reason',
  },
  { name: 'kills', about: '`kill -9` of the server, twice, while the guest writes, reads and compares: aio, ram' },
  { name: 'keeper', about: '`kill -9` of the keeper: the guest goes on' },
  { name: 'both', about: '`kill -9` of both: EIO in the guest; `xl destroy` clears everything away' },
  { name: 'unit', about: 'the systemd scope in which `xl create` ran is stopped: the guest goes on' },
  { name: 'killed', about: 'an attach that takes longer than libxl waits: refused in time, and undone' },
  { name: 'locked', about: 'a hotplug script that hangs: refused in time; other domains do not wait' },
  { name: 'destroy', about: '`xl destroy` while the guest writes' },
  { name: 'reboot', about: '`reboot` in the guest: aio has what was written, ram is read anew' },
  { name: 'save', about: '`xl save` and `xl restore` with a file open on the disk' },
  {
    name: 'shutdown',
    about:
      'the dom0 is shut down and booted again while a guest writes to aio and qcow2: xendomains saves and restores it',
    afterBoot: 'after-shutdown',
  },
];
