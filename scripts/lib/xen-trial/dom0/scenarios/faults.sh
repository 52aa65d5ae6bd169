# Scenarios: what xl is refused, what libxl kills, and processes of fusetap that are killed under a guest.
# shellcheck shell=bash

scenario_errors() {
  local word target
  image a.img >/dev/null
  image b.img >/dev/null
  truncate -s 0 /img/empty.img
  fusetap attach --quiet --bus 0 /img/b.img xvda w >/dev/null
  # at xl create: the domain is not made
  for word in 'missing.img: no such image' 'b.img is attached' 'empty'; do
    case $word in missing*) target=/img/missing.img ;; b.img*) target=/img/b.img ;; *) target=aio:/img/empty.img ;; esac
    configure g "$(disk xvda aio:/img/a.img)" "$(disk xvdb "$target")"
    refused "$word" xl create /run/xen-trial/g.cfg
    is_gone g || fail 'the domain is there'
  done
  configure g "$(disk xvda a.img)"
  refused 'is a relative path: it must begin with /' xl create /run/xen-trial/g.cfg
  configure g "$(disk xvda vhdz:/img/a.img)"
  refused "no driver 'vhdz'" xl create /run/xen-trial/g.cfg
  # at xl block-attach: libxl keeps the device until block-detach, then a good image attaches
  start g
  for target in /img/missing.img /img/b.img aio:/img/empty.img; do
    refused 'domain [0-9]+ \(g\), disk xvda: .*(no such image|is attached|empty)' xl block-attach g "$(disk xvda "$target")"
    drop g xvda
  done
  xl block-attach g "$(disk xvda aio:/img/a.img)"
  guest g 'until [ -b /dev/xvda ]; do sleep 0.1; done; mount -o ro /dev/xvda /mnt && umount /mnt'
  finish g
  fusetap detach --quiet --bus 0 xvda
}

# Writes and reads with comparison, until data/over is there; prints the number of rounds.
# shellcheck disable=SC2016 # the guest's shell expands it
exercise='dd if=/dev/urandom of=/tmp/data bs=64k count=64 2>/dev/null; i=0
until xenstore-read data/over >/dev/null 2>&1; do
  dd if=/tmp/data of=/dev/xvda bs=64k conv=fsync 2>/dev/null && echo 3 >/proc/sys/vm/drop_caches || exit 1
  dd if=/dev/xvda bs=64k count=64 2>/dev/null | cmp - /tmp/data || exit 1
  i=$((i + 1)); xenstore-write data/rounds $i
done; echo $i rounds'

# `has_rounds NAME N`: at least that many
has_rounds() { [ "$(read_guest "$1" rounds || echo 0)" -ge "$2" ]; }

scenario_kills() {
  local target bus server rounds
  for target in aio ram; do
    image a.img >/dev/null
    start g "$(disk xvda "$target:/img/a.img")"
    bus=$(domid g)
    order g "$exercise"
    eventually 120 has_rounds g 1
    for _ in 1 2; do
      server=$(server_of "$bus")
      rounds=$(read_guest g rounds)
      kill -9 "$server"
      eventually 120 has_other_server "$bus" "$server"
      eventually 120 has_rounds g $((rounds + 2))
    done
    xenstore-write "/local/domain/$bus/data/over" 1
    echo "$target: $(answer g)"
    no_errors g
    finish g
  done
}

scenario_keeper() {
  local bus
  image a.img >/dev/null
  image b.img >/dev/null
  start g "$(disk xvda aio:/img/a.img)"
  bus=$(domid g)
  order g "$exercise"
  eventually 120 has_rounds g 1
  kill -9 "$(keeper_of "$bus")"
  eventually 120 is_state "$bus" orphaned
  eventually 120 has_rounds g $(($(read_guest g rounds) + 2))
  xenstore-write "/local/domain/$bus/data/over" 1
  answer g
  refused 'domain [0-9]+ \(g\), disk xvdb: ' xl block-attach g "$(disk xvdb aio:/img/b.img)"
  no_errors g
  xl destroy g
}

scenario_both() {
  local bus
  image a.img >/dev/null
  start g "$(disk xvda aio:/img/a.img)"
  bus=$(domid g)
  guest g 'mount /dev/xvda /mnt && echo written >/mnt/new && sync && umount /mnt'
  kill -9 "$(keeper_of "$bus")" "$(server_of "$bus")"
  if guest g 'echo 3 >/proc/sys/vm/drop_caches; dd if=/dev/xvda of=/dev/null bs=1M 2>&1' 2>/dev/null; then
    fail 'the guest can read'
  fi
  xl destroy g
  eventually 60 is_empty rests
  whole /img/a.img
  same "$(file_of /img/a.img new)" written 'what was synced is in the image'
}

scenario_unit() {
  local bus
  image a.img >/dev/null
  configure g "$(disk xvda aio:/img/a.img)"
  systemd-run --quiet --scope --collect --unit=session-of-admin xl create -q /run/xen-trial/g.cfg
  await_ready g
  bus=$(domid g)
  order g "$exercise"
  eventually 120 has_rounds g 1
  systemctl stop session-of-admin.scope
  eventually 120 has_rounds g $(($(read_guest g rounds) + 2))
  is_state "$bus" running || fail "the bus is $(state_of "$bus")"
  xenstore-write "/local/domain/$bus/data/over" 1
  answer g
  no_errors g
  xl destroy g
}

scenario_killed() {
  local begun
  image a.img >/dev/null
  start g
  # an attach whose answer comes too late, as of a large ram image; nothing can be executed in /run
  cat >/img/slow <<'SLOW'
#!/bin/sh
fusetap "$@"
[ "$1" != attach ] || sleep 60
SLOW
  chmod 755 /img/slow
  begun=$SECONDS
  FUSETAP=/img/slow refused 'was not attached within 30 s; a large ram image: attach it before' \
    xl block-attach g "$(disk xvda ram:/img/a.img)"
  [ $((SECONDS - begun)) -lt 40 ] || fail "it took $((SECONDS - begun)) s"
  same "$(attached "$(domid g)")" '' 'the attach is undone'
  drop g xvda
  # as the page advises: held on another bus, the domain's attach is quick
  fusetap attach --quiet --bus hold ram:/img/a.img >/dev/null
  xl block-attach g "$(disk xvda ram:/img/a.img)"
  guest g 'until [ -b /dev/xvda ]; do sleep 0.1; done; mount -o ro /dev/xvda /mnt && umount /mnt'
  finish g
  fusetap stop --quiet --bus hold
  rm /img/slow
}

scenario_locked() {
  local bus holder begun
  image a.img >/dev/null
  image b.img >/dev/null
  start g
  start h
  bus=$(domid g)
  mkdir -p /run/fusetap/hotplug
  flock "/run/fusetap/hotplug/$bus" sleep 100 &
  holder=$!
  eventually 10 is_held "/run/fusetap/hotplug/$bus"
  begun=$SECONDS
  refused 'another hotplug script has worked on this domain for more than 15 s' xl block-attach g "$(disk xvda aio:/img/a.img)"
  [ $((SECONDS - begun)) -lt 40 ] || fail "it took $((SECONDS - begun)) s"
  # another domain does not wait for it
  begun=$SECONDS
  xl block-attach h "$(disk xvda aio:/img/b.img)"
  [ $((SECONDS - begun)) -lt 15 ] || fail "another domain waited for $((SECONDS - begun)) s"
  pkill -P "$holder" || true
  wait "$holder" || true
  drop g xvda
  xl block-attach g "$(disk xvda aio:/img/a.img)"
  finish g
  finish h
}

is_held() { ! flock --nonblock "$1" true; }
