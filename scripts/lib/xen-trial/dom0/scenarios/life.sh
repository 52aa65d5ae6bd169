# Scenarios: the life of a domain: destroy, reboot, save, restore, and the shutdown of the dom0 under it.
# shellcheck shell=bash disable=SC2016,SC2034,SC2154

scenario_destroy() {
  image a.img >/dev/null
  start g "$(disk xvda aio:/img/a.img)"
  order g "$exercise"
  eventually 120 has_rounds g 1
  local begun=$SECONDS
  xl destroy g
  eventually 20 is_empty rests
  echo "destroyed within $((SECONDS - begun)) s"
}

is_other() { [ -n "$(domid "$1")" ] && [ "$(domid "$1")" != "$2" ]; }

scenario_reboot() {
  local before
  image a.img >/dev/null
  image c.img >/dev/null
  more='on_reboot = "restart"' start g "$(disk xvda aio:/img/a.img)" "$(disk xvdb ram:/img/c.img)"
  before=$(domid g)
  guest g 'for d in xvda xvdb; do mount /dev/$d /mnt && echo kept >/mnt/new && umount /mnt || exit 1; done'
  order g 'sync; reboot -f'
  eventually 120 is_other g "$before"
  await_ready g
  same "$(guest g 'mount /dev/xvda /mnt && cat /mnt/new && umount /mnt')" kept 'aio has what was written'
  same "$(guest g 'mount /dev/xvdb /mnt && ls /mnt | grep new; umount /mnt')" '' 'ram is read anew'
  no_errors g
  finish g
}

scenario_save() {
  image a.img >/dev/null
  start g "$(disk xvda aio:/img/a.img)"
  guest g 'mount /dev/xvda /mnt; (exec 3>>/mnt/lines; echo one >&3; sync; touch /tmp/one
    until xenstore-read data/over >/dev/null 2>&1; do sleep 0.2; done
    echo two >&3; sync; exec 3>&-; touch /tmp/done) >/dev/null 2>&1 &
    until [ -e /tmp/one ]; do sleep 0.1; done'
  xl save g /img/g.save >/dev/null
  eventually 20 is_empty rests
  xl restore /img/g.save >/dev/null
  xenstore-write "/local/domain/$(domid g)/data/over" 1
  guest g 'until [ -e /tmp/done ]; do sleep 0.1; done; umount /mnt'
  no_errors g
  finish g
  rm -f /img/g.save
  whole /img/a.img
  same "$(file_of /img/a.img lines | tr '\n' ' ')" 'one two '
}

# Writes a number to each disk again and again, each synced, and tells the dom0.
# shellcheck disable=SC2016 # the guest's shell expands it
counting='mkdir -p /mnt/2; mount /dev/xvda /mnt && mkdir -p /mnt/2 && mount /dev/xvdb /mnt/2
(i=0; until [ -e /tmp/over ]; do i=$((i + 1))
  echo $i >>/mnt/lines && echo $i >>/mnt/2/lines && sync || { xenstore-write data/error $i; exit; }
  xenstore-write data/count $i; sleep 0.2
done; touch /tmp/ended) >/dev/null 2>&1 &'

has_count() { [ "$(read_guest "$1" count || echo 0)" -ge "$2" ]; }

# The host shuts the dom0 down after this one, boots it again, and asks for after-shutdown.
scenario_shutdown() {
  image a.img >/dev/null
  qemu-img create -q -f qcow2 /img/d.qcow2 48M
  start g "$(disk xvda aio:/img/a.img)" "$(disk xvdb qcow2:/img/d.qcow2)"
  guest g '/bin/mke2fs -q -t ext4 /dev/xvdb'
  guest g "$counting"
  eventually 120 has_count g 5
  sync
  goes_on=1
}

scenario_after_shutdown() {
  local count
  # xendomains has saved and restored it
  [ -n "$(domid g)" ] || fail 'the guest was not restored'
  eventually 120 has_key g count
  count=$(read_guest g count)
  echo "the guest goes on at $count"
  eventually 120 has_count g $((count + 5))
  same "$(read_guest g error || true)" '' 'no write has failed'
  guest g 'touch /tmp/over; until [ -e /tmp/ended ]; do sleep 0.1; done; umount /mnt/2; umount /mnt; tail -n 1 /tmp/ended'
  count=$(read_guest g count)
  no_errors g
  finish g
  whole /img/a.img
  same "$(file_of /img/a.img lines | tr '\n' ' ')" "$(seq -s ' ' "$count") " 'each line is there once'
  qemu-img check -q /img/d.qcow2
  qemu-img convert -f qcow2 -O raw /img/d.qcow2 /img/d.raw
  whole /img/d.raw
  same "$(file_of /img/d.raw lines | tr '\n' ' ')" "$(seq -s ' ' "$count") " 'and in the qcow2'
}
