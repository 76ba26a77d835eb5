/*
 * Loaded into linux.uml (LD_PRELOAD) if the processor has AMX. Linux sets the floating-point registers of a traced
 * process only as a whole (xstateregs_set() in arch/x86/kernel/fpu/regset.c). With AMX they have 11,008 bytes.
 * User-Mode Linux 6.1 saves only 2,696 of them (HOST_FP_SIZE), so the call fails and it panics before it runs init.
 * This ptrace() adds the current values of the remaining registers, which no process of the guest uses.
 */
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { PEEK_FIRST = 1, PEEK_LAST = 3, GET_REGISTERS = 0x4204, SET_REGISTERS = 0x4205, X86_XSTATE = 0x202 };

long ptrace(int request, ...) {
  va_list arguments;
  va_start(arguments, request);
  int process = va_arg(arguments, int);
  long address = va_arg(arguments, long);
  void *data = va_arg(arguments, void *);
  va_end(arguments);

  if (request >= PEEK_FIRST && request <= PEEK_LAST) { /* the C library returns what the system call stores */
    long word;
    if (syscall(SYS_ptrace, request, process, address, &word) < 0) return -1;
    errno = 0;
    return word;
  }
  if (request == SET_REGISTERS && address == X86_XSTATE) {
    struct iovec *given = data;
    static char whole[64 * 1024];
    struct iovec all = {whole, sizeof whole};
    if (syscall(SYS_ptrace, GET_REGISTERS, process, address, &all) == 0 && all.iov_len > given->iov_len) {
      memcpy(whole, given->iov_base, given->iov_len);
      return syscall(SYS_ptrace, request, process, address, &all);
    }
  }
  return syscall(SYS_ptrace, request, process, address, data);
}
