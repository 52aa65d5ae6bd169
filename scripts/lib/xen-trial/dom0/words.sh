# The words that the scenarios are written in: images, guests, what must be left and what must not.
# shellcheck shell=bash

fail() {
  echo "failed: $*" >&2
  exit 1
}

# `eventually SECONDS COMMAND…`: waits until the command succeeds.
eventually() {
  local end=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$end" ] || fail "it did not come to be: $*"
    sleep 0.2
  done
}

# `refused PATTERN COMMAND…`: the command fails, and says so.
refused() {
  local pattern=$1 output
  shift
  if output=$("$@" 2>&1); then fail "it is not refused: $*"; fi
  grep -Eq -- "$pattern" <<<"$output" || fail "not '$pattern' but: $output"
}

same() { [ "$1" = "$2" ] || fail "'$1', not '$2'${3:+: $3}"; }

# `image NAME [MIB]`: a raw image with an ext4 that has the file hello; prints its path.
image() {
  rm -rf "/img/$1" /run/xen-trial/tree
  mkdir -p /run/xen-trial/tree
  echo "hello of $1" >/run/xen-trial/tree/hello
  mkfs.ext4 -q -d /run/xen-trial/tree "/img/$1" "${2:-32}M"
  echo "/img/$1"
}

# `file_of IMAGE NAME`: a file in an ext4, read without fusetap.
file_of() { debugfs -R "cat $2" "$1" 2>/dev/null; }

whole() { e2fsck -fn "$1" >/run/xen-trial/fsck 2>&1 || fail "e2fsck of $1: $(tail -5 /run/xen-trial/fsck)"; }

sum() { sha256sum <"$1"; }

uuid_of() { dumpe2fs -h "$1" 2>/dev/null | sed -n 's/^Filesystem UUID: *//p'; }

# `disk VDEV TARGET [ACCESS]`: as in a domain's configuration.
disk() { echo "format=raw, vdev=$1, access=${3:-rw}, script=block-fusetap, target=$2"; }

# `configure NAME [DISK…]`: writes the configuration of a guest; lines in $more are added.
configure() {
  local name=$1 disks='' each
  shift
  for each in "$@"; do disks+="'$each', "; done
  cat >"/run/xen-trial/$name.cfg" <<CONFIGURATION
name = "$name"
type = "pv"
memory = 192
vcpus = 1
kernel = "/boot/vmlinux"
ramdisk = "/run/xen-trial/guest.img"
extra = "console=hvc0 quiet mitigations=off norandmaps"
disk = [ $disks]
${more:-}
CONFIGURATION
}

# `start NAME [DISK…]`: a guest that takes orders.
start() {
  configure "$@"
  xl create -q "/run/xen-trial/$1.cfg"
  await_ready "$1"
}

domid() { xl domid "$1" 2>/dev/null; }

# `read_guest NAME KEY`
# without -R, xenstore-read prints a newline as \n and a backslash twice
read_guest() { xenstore-read -R "/local/domain/$(domid "$1")/data/$2" 2>/dev/null; }

has_key() { [ -n "$(read_guest "$1" "$2")" ]; }

await_ready() { eventually 120 has_key "$1" ready; }

# `order NAME WORDS`: gives the guest something to do, and does not wait for it.
order() {
  local data
  data=/local/domain/$(domid "$1")/data
  xenstore-rm "$data/output" "$data/status" 2>/dev/null || true
  xenstore-write -R "$data/run" "$2"
}

# `answer NAME`: waits for the end of the order; prints its output, and fails as it did.
answer() {
  local output
  eventually 120 has_key "$1" status
  output=$(read_guest "$1" output) || true
  [ -z "$output" ] || printf '%s\n' "$output"
  return "$(read_guest "$1" status)"
}

# `guest NAME WORDS`: runs a command in a guest.
guest() {
  order "$1" "$2"
  answer "$1" || {
    local status=$?
    echo "in the guest: $2: exit $status" >&2
    return "$status"
  }
}

# `has_disk NAME VDEV`: libxl knows it, connected or not.
has_disk() {
  local backend device
  backend=/local/domain/0/backend/vbd/$(domid "$1")
  for device in $(xenstore-list "$backend" 2>/dev/null || true); do
    [ "$(xenstore-read "$backend/$device/dev" 2>/dev/null)" != "$2" ] || return 0
  done
  return 1
}

# `drop NAME VDEV`: libxl keeps a disk whose block-attach was refused until this. Told by what is left: xl may complain of a disk
# that was never connected.
drop() {
  local output
  has_disk "$1" "$2" || fail "libxl does not have $2"
  output=$(xl block-detach "$1" "$2" 2>&1) || echo "xl block-detach $1 $2: $output"
  ! has_disk "$1" "$2" || fail "$2 is still there: $output"
}

is_gone() { ! xl domid "$1" >/dev/null 2>&1; }

# `finish NAME`: the guest powers itself off, and xl clears it away.
finish() {
  order "$1" 'umount /mnt 2>/dev/null; sync; busybox poweroff -f'
  eventually 60 is_gone "$1"
}

# `no_errors NAME`: the guest's kernel has seen no error of a disk.
no_errors() {
  local errors
  errors=$(guest "$1" 'dmesg | grep -iE "i/o error|ext4-fs error|aborting journal" || true')
  [ -z "$errors" ] || fail "the guest's kernel says: $errors"
}

# Field of `fusetap ls --buses`: BUS STATE VBDS TRANSPORT KEEPER SERVER …
bus_field() { { fusetap ls --buses 2>/dev/null || true; } | awk -v bus="$1" -v field="$2" '$1 == bus { print $field }'; }
state_of() { bus_field "$1" 2; }
keeper_of() { bus_field "$1" 5; }
server_of() { bus_field "$1" 6; }

is_state() { [ "$(state_of "$1")" = "$2" ]; }

has_other_server() { [[ "$(server_of "$1")" =~ ^[0-9]+$ && "$(server_of "$1")" != "$2" ]] && is_state "$1" running; }

attached() { { fusetap ls --bus "$1" 2>/dev/null || true; } | awk 'NR > 1 { print $2 }' | tr '\n' ' '; }

is_empty() { [ -z "$("$@" 2>/dev/null)" ]; }

# What a scenario must not leave, one a line.
rests() {
  xl list | awk 'NR > 1 && $2 != 0 { print "domain " $1 }'
  fusetap ls 2>&1 | awk 'NR > 1 { print "vbd " $0 } /^fusetap:/'
  losetup --noheadings --list --output NAME,BACK-FILE | sed 's/^/loop device /'
  awk '$3 ~ /^fuse/ && $2 ~ /fusetap/ { print "mount " $2 }' /proc/mounts
  pgrep -af 'fusetap/dist/mount' | sed 's/^/process /'
  find /run/fusetap/bus /run/fusetap/hotplug -mindepth 1 2>/dev/null
  systemctl --no-legend --plain list-units 'fusetap*' | sed 's/^/unit /'
  xenstore-list /local/domain/0/backend/vbd 2>/dev/null | sed 's/^/backend of domain /'
}

# Programs that look at devices may have one open for a moment: the rests get some time to go.
nothing_left() {
  local end=$((SECONDS + 20)) left
  while left=$(rests || true) && [ -n "$left" ]; do
    if [ "$SECONDS" -ge "$end" ]; then
      echo "failed: this is left: $left"
      return 1
    fi
    sleep 0.5
  done
}

show_state() {
  local log name
  timeout 20 xl list
  timeout 20 fusetap ls --buses
  losetup --list
  for log in /var/log/xen/xl-?.log; do
    [ -e "$log" ] || continue
    echo "== $log"
    tail -5 "$log"
  done
  for name in $(timeout 20 xl list | awk 'NR > 1 && $2 != 0 { print $1 }'); do
    echo "== console of $name"
    # it ends with its input
    sleep 3 | timeout 10 xl console "$name" 2>&1 | tail -n 15
  done
}

# After a scenario that failed: by all means.
clear_away() {
  local domain device bus backend=/local/domain/0/backend/vbd
  for domain in $(xl list | awk 'NR > 1 && $2 != 0 { print $2 }'); do timeout 60 xl destroy "$domain"; done
  for device in $(xenstore-list $backend/0); do timeout 60 xl block-detach --force 0 "$device"; done
  systemctl stop session-of-admin.scope
  for bus in /run/fusetap/bus/*; do timeout 30 fusetap stop --force --bus "${bus##*/}"; done
  losetup -D
  pkill -KILL -f fusetap/dist/mount
  for bus in /run/fusetap/bus/*; do
    umount -l "$bus"
    timeout 30 fusetap stop --bus "${bus##*/}"
  done
  for domain in $(xenstore-list $backend); do xenstore-rm "$backend/$domain"; done
  rm -f /run/fusetap/hotplug/*
  rmdir /run/fusetap/bus/*
  systemctl reset-failed
}
