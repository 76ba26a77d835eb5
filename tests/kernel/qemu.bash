# The guest as a virtual machine, sourced by boot. The second disk is boot's working directory and returns the results.

machine=QEMU

prepare_guest() {
  watched=$work/output # results come at the end, but each finished test prints a line
  type -P qemu-system-x86_64 >/dev/null || fail 125 "no qemu-system-x86_64: run tests/kernel/install --matrix"
  PATH=$PATH:/usr/sbin:/sbin
  local version
  version=$(cat "$qemu/version" 2>/dev/null) || fail 125 "$qemu is not what tests/kernel/image made"
  write_modprobe "$version" "/lib/modules/$version"
}

start_guest() {
  mkdir "$work/disk" "$work/disk/results"
  cp -a "$work"/{init,af-alg,job,modprobe,root,control,guest} "$work/disk"
  truncate -s 256M "$work/disk.ext4"
  mkfs.ext4 -q -E root_owner=0:0 -d "$work/disk" "$work/disk.ext4"

  # Emulated, because /dev/kvm is rarely available, and with nested virtualization Linux may crash.
  # One thread emulates both processors: with two threads, one Node in ten ends with SIGSEGV or a failed check of V8.
  # No protection keys: V8 uses them if available, and then one Node in twenty crashes at startup.
  # The disks have different types, because the names of two disks of one type are random. NVMe needs no module.
  start qemu-system-x86_64 -machine q35 -accel "tcg,thread=${KCAPI_QEMU_THREADS:-single}" -cpu max,-pku -smp 2 \
    -m "$mem" -nodefaults -display none -no-reboot \
    -kernel "$qemu/vmlinuz" \
    -append "root=/dev/nvme0n1 rootfstype=ext4 rw init=/init work=$work console=ttyS0 quiet panic=-1" \
    -drive "if=none,id=root,file=$qemu/root.ext4,format=raw,snapshot=on" \
    -drive "if=none,id=work,file=$work/disk.ext4,format=raw,cache=unsafe" \
    -device nvme,drive=root,serial=root -device virtio-blk-pci,drive=work \
    -chardev file,id=out,path=/dev/fd/3 -chardev file,id=err,path=/dev/fd/4 \
    -serial "file:$work/console" -serial chardev:out -serial chardev:err >"$work/qemu" 2>&1
}

end_guest() {
  cat "$work/qemu" >>"$work/console"
  mkdir "$work/back"
  debugfs -R "rdump /control /results $work/back" "$work/disk.ext4" >/dev/null 2>&1 || true
  cp -r "$work/back/results/." "$KCAPI_RESULTS" || true
  cp -r "$work/back/control/." "$work/control" || true
}
