# A guest that is a User-Mode Linux kernel. boot sources this file.

machine='User-Mode Linux'

prepare_guest() {
  uml=$(type -P "${uml:-linux.uml}") ||
    fail 125 "no AF_ALG in this kernel, and no linux.uml to boot: run tests/kernel/install"
  PATH=$PATH:/usr/sbin:/sbin type -P modprobe >/dev/null || fail 125 "no modprobe: run tests/kernel/install"
  local version
  version=$("$uml" --version)
  modules=${modules:-/usr/lib/uml/modules/$version}
  [[ -e $modules/modules.dep ]] || fail 125 "no modules for kernel $version in $modules"
  mkdir "$work/uml"
  write_modprobe "$version" "$(cd "$modules" && pwd)"
}

start_guest() {
  # The guest's kernel maps a file as its memory, executable. The file is in RAM if there is room, because a full disk
  # would cause a SIGBUS.
  local memory=$work shm
  shm=$(findmnt --bytes --noheadings --raw --output AVAIL,OPTIONS --target /dev/shm || true)
  if [[ -w /dev/shm && $shm != *noexec* ]] && ((${shm%% *} > $(numfmt --from=iec "$mem"))); then memory=/dev/shm; fi

  # Each system call of the guest switches between two processes, which is four times as fast if they share a CPU. Takes
  # the CPU on which the scheduler has put this process.
  local pin
  pin=(taskset --cpu-list "$(cut -d ' ' -f 39 /proc/self/stat)")
  "${pin[@]}" true 2>/dev/null || pin=()
  local preload=()
  if grep -qw amx_tile /proc/cpuinfo; then
    gcc -O2 -shared -fPIC -o "$work/ptrace.so" "$here/ptrace.c" ||
      fail 125 "User-Mode Linux needs a C compiler on a processor with AMX (packages gcc, libc6-dev)"
    preload=(env "LD_PRELOAD=$work/ptrace.so")
  fi
  TMPDIR=$memory start "${preload[@]}" "${pin[@]}" "$uml" "mem=$mem" umid=guest "uml_dir=$work/uml/" \
    root=/dev/root rootfstype=hostfs rootflags=/ ro "init=$work/init" \
    con=null ssl=null con0=null,fd:1 con1=null,fd:3 con2=null,fd:4 >"$work/console" 2>&1
}

end_guest() { # the guest writes directly to the host's files
  if grep -q 'ran out of memory on the host side' "$work/console"; then
    echo "boot: the guest had too few memory mappings and killed processes: raise this machine's vm.max_map_count" >&2
  fi
}
