# The guest as a User-Mode Linux kernel; sourced by boot.

machine='User-Mode Linux'

prepare_guest() {
  uml=$(type -P "${uml:-linux.uml}") || fail 125 "no AF_ALG in this kernel, and no linux.uml to boot: run tests/kernel/install"
  PATH=$PATH:/usr/sbin:/sbin type -P modprobe >/dev/null || fail 125 "no modprobe: run tests/kernel/install"
  local version
  version=$("$uml" --version)
  modules=${modules:-/usr/lib/uml/modules/$version}
  [[ -e $modules/modules.dep ]] || fail 125 "no modules for kernel $version in $modules"
  mkdir "$work/uml"
  write_modprobe "$version" "$(cd "$modules" && pwd)"
}

start_guest() {
  # The guest's memory is a file that its kernel maps, executable: in RAM if there is room, for a full disk is a SIGBUS.
  local memory=$work shm
  shm=$(findmnt --bytes --noheadings --raw --output AVAIL,OPTIONS --target /dev/shm || true)
  if [[ -w /dev/shm && $shm != *noexec* ]] && ((${shm%% *} > $(numfmt --from=iec "$mem"))); then memory=/dev/shm; fi

  # Each system call of the guest goes back and forth between two processes: four times as fast if they share a CPU. The
  # one on which the scheduler has just put a new process is a good choice.
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

end_guest() { # what it wrote are the host's own files
  if grep -q 'ran out of memory on the host side' "$work/console"; then
    echo "boot: processes of the guest were killed for want of mappings: raise this machine's vm.max_map_count" >&2
  fi
}
