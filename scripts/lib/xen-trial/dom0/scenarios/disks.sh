# Scenarios: disks of all kinds, as domains begin with them and while they run.
# shellcheck shell=bash disable=SC2016

scenario_main() {
  fusetap doctor
  local driver path
  image a.img >/dev/null
  for driver in aio sync ram; do
    path=$(fusetap attach --quiet "$driver:/img/a.img")
    dumpe2fs -h "$path" >/dev/null 2>&1
    fusetap detach --quiet "$path"
  done
}

scenario_aio() {
  image a.img >/dev/null
  start g "$(disk xvda aio:/img/a.img)"
  same "$(guest g 'mount /dev/xvda /mnt && cat /mnt/hello && echo written >/mnt/new && sync')" 'hello of a.img'
  no_errors g
  finish g
  whole /img/a.img
  same "$(file_of /img/a.img new)" written
}

scenario_hotplug() {
  local before
  image a.img >/dev/null
  image c.img >/dev/null
  before=$(sum /img/c.img)
  start g
  xl block-attach g "$(disk xvda aio:/img/a.img)"
  guest g 'until [ -b /dev/xvda ]; do sleep 0.1; done; mount /dev/xvda /mnt && echo hot >/mnt/new && umount /mnt'
  xl block-detach g xvda
  same "$(file_of /img/a.img new)" hot
  xl block-attach g "$(disk xvdb ram:/img/c.img)"
  xl block-attach g "$(disk xvdc ram:/img/c.img ro)"
  guest g 'until [ -b /dev/xvdb ] && [ -b /dev/xvdc ]; do sleep 0.1; done; blkdiscard /dev/xvdb && /bin/mke2fs -q -t ext4 /dev/xvdb'
  guest g 'mount /dev/xvdb /mnt && echo one >/mnt/file && umount /mnt && [ "$(cat /sys/block/xvdc/ro)" = 1 ]'
  no_errors g
  xl block-detach g xvdb
  xl block-detach g xvdc
  finish g
  same "$(sum /img/c.img)" "$before" 'a ram disk never writes to its image'
  whole /img/a.img
}

scenario_share() {
  local before own name
  image c.img >/dev/null
  before=$(sum /img/c.img)
  own=$(fusetap block-attach 0 tap:ram:/img/c.img xvda w)
  [ -n "$own" ] || own=/run/fusetap/bus/0/xvda
  for name in g h; do
    start "$name"
    xl block-attach "$name" "$(disk xvda ram:/img/c.img)"
  done
  guest g 'until [ -b /dev/xvda ]; do sleep 0.1; done; /bin/mke2fs -q -t ext4 -U 11111111-2222-3333-4444-555555555555 /dev/xvda'
  guest g 'mount /dev/xvda /mnt && echo shared >/mnt/file && umount /mnt'
  same "$(uuid_of "$own")" 11111111-2222-3333-4444-555555555555 'the dom0 sees what a guest wrote'
  same "$(guest h 'until [ -b /dev/xvda ]; do sleep 0.1; done; mount -o ro /dev/xvda /mnt && cat /mnt/file && umount /mnt')" shared
  finish g
  finish h
  same "$(file_of "$own" file)" shared 'the dom0 keeps the memory'
  same "$(sum /img/c.img)" "$before" 'a ram disk never writes to its image'
  fusetap detach --quiet --bus 0 xvda
}

scenario_share0() {
  local before
  image c.img >/dev/null
  before=$(sum /img/c.img)
  xl block-attach 0 "$(disk xvdj ram:/img/c.img)"
  eventually 30 test -b /dev/xvdj
  same "$(uuid_of /dev/xvdj)" "$(uuid_of /img/c.img)"
  mkfs.ext4 -q -F /dev/xvdj
  [ "$(uuid_of /dev/xvdj)" != "$(uuid_of /img/c.img)" ] || fail 'mkfs has changed the image'
  xl block-detach 0 xvdj
  same "$(sum /img/c.img)" "$before" 'a ram disk never writes to its image'
}

scenario_waive() {
  image a.img >/dev/null
  image c.img >/dev/null
  start g "$(disk xvda aio:/img/a.img)" "$(disk xvdc ram:/img/c.img)" "$(disk xvdd ram:/img/c.img)"
  refused 'is attached with mode w by domain [0-9]+ as xvda; w!: before the image in target= waives the check' \
    xl block-attach g "$(disk xvdb aio:/img/a.img)"
  drop g xvdb
  xl block-attach g "$(disk xvdb w!:aio:/img/a.img)"
  refused 'unknown value' xl block-attach g "$(disk xvde aio:/img/a.img w!)"
  guest g 'until [ -b /dev/xvdb ]; do sleep 0.1; done; ls /dev/xvd*'
  no_errors g
  finish g
}

scenario_formats() {
  local format
  qemu-img create -q -f qcow2 /img/d.qcow2 48M
  fusetap create --force --quiet --format vhd /img/d.vhd 48M
  start g "$(disk xvda qcow2:/img/d.qcow2)" "$(disk xvdb vhd:/img/d.vhd)"
  for format in xvda xvdb; do
    guest g "/bin/mke2fs -q -t ext4 /dev/$format && mount /dev/$format /mnt && echo in $format >/mnt/file && umount /mnt"
  done
  no_errors g
  finish g
  qemu-img check -q /img/d.qcow2
  fusetap check --quiet /img/d.qcow2
  fusetap check --quiet /img/d.vhd
  qemu-img convert -f qcow2 -O raw /img/d.qcow2 /img/d.raw
  same "$(file_of /img/d.raw file)" 'in xvda'
  qemu-img convert -f vpc -O raw /img/d.vhd /img/d.raw
  same "$(file_of /img/d.raw file)" 'in xvdb'
  # again, through fusetap, while the domain is made
  start g "$(disk xvda qcow2:/img/d.qcow2)" "$(disk xvdb vhd:/img/d.vhd ro)"
  same "$(guest g 'mount /dev/xvda /mnt && cat /mnt/file && umount /mnt')" 'in xvda'
  same "$(guest g 'mount -o ro /dev/xvdb /mnt && cat /mnt/file && umount /mnt')" 'in xvdb'
  finish g
  rm -f /img/d.*
}

scenario_pygrub() {
  mkdir -p /run/xen-trial/boot/boot/grub
  cp /boot/vmlinuz-* /run/xen-trial/boot/boot/vmlinuz
  gzip -1 </run/xen-trial/guest.img >/run/xen-trial/boot/boot/initrd
  cat >/run/xen-trial/boot/boot/grub/grub.cfg <<'GRUB'
set default="0"
menuentry 'guest' {
  linux /boot/vmlinuz console=hvc0 quiet mitigations=off norandmaps
  initrd /boot/initrd
}
GRUB
  mkfs.ext4 -q -F -d /run/xen-trial/boot /img/boot.img 64M
  configure p "$(disk xvda aio:/img/boot.img)"
  sed -i -e '/^kernel/d' -e '/^ramdisk/d' -e '/^extra/d' /run/xen-trial/p.cfg
  echo 'bootloader = "pygrub"' >>/run/xen-trial/p.cfg
  xl create -q /run/xen-trial/p.cfg
  await_ready p
  same "$(guest p 'mount -o ro /dev/xvda /mnt && ls /mnt/boot && umount /mnt' | tr '\n' ' ')" 'grub initrd vmlinuz '
  finish p
  rm -rf /img/boot.img /run/xen-trial/boot
}

scenario_old_specs() {
  image a.img >/dev/null
  start g
  xl block-attach g tap:aio:/img/a.img,xvdb,w
  losetup --noheadings --list --output BACK-FILE | grep -qx '/img/a.img' || fail 'no loop device on /img/a.img itself'
  same "$(attached "$(domid g)")" '' 'fusetap is not asked'
  xl block-detach g xvdb
  refused 'unknown deprecated disk prefix|prefix' xl block-attach g tap:ram:/img/a.img,xvdc,w
  refused 'no suitable backend|not valid|invalid|backend' xl block-attach g 'backendtype=tap, vdev=xvdd, access=rw, target=/img/a.img'
  finish g
}
