/** Seccomp filters, as in containers. */
import { readFileSync } from "node:fs";
import process from "node:process";

/** The numbers of system calls. */
const NUMBERS: Record<string, Record<"prctl" | "seccomp" | "socket" | "vmsplice" | "add_key" | "request_key", number>> =
  {
    x64: { prctl: 157, seccomp: 317, socket: 41, vmsplice: 278, add_key: 248, request_key: 249 },
    arm64: { prctl: 167, seccomp: 277, socket: 198, vmsplice: 75, add_key: 217, request_key: 218 },
  };
export const numbers = NUMBERS[process.arch];

export const hasSeccomp: boolean = numbers !== undefined &&
  /^Seccomp:/m.test(readFileSync("/proc/self/status", "utf8"));

/**
 * Returns a program for `seccomp(SECCOMP_SET_MODE_FILTER)` in hexadecimal digits. It refuses a call with these first
 * and third arguments, and allows all other calls (linux/filter.h, linux/seccomp.h).
 */
export function filter(call: number, errno: number, args: { first?: number; third?: number } = {}): string {
  const [LOAD, JUMP_IF_EQUAL, RETURN] = [0x20, 0x15, 0x06];
  const conditions = [[0, call], [16, args.first], [32, args.third]].filter(([, value]) => value !== undefined);
  const program = conditions.flatMap(([offset, value], i) => [
    [LOAD, 0, 0, offset!],
    [JUMP_IF_EQUAL, 0, 2 * (conditions.length - i) - 1, value!],
  ]);
  program.push([RETURN, 0, 0, 0x0005_0000 | errno], [RETURN, 0, 0, 0x7fff_0000]);
  const bytes = program.flatMap(([code, yes, no, k]) => [code!, 0, yes!, no!, k!, k! >>> 8, k! >>> 16, k! >>> 24]);
  return Uint8Array.from(bytes).toHex();
}

/** Returns the launcher of a command under a filter. Like a container, it sets PR_SET_NO_NEW_PRIVS, then the filter. */
export function under(program: string): string[] {
  const script = `my $f = pack("H*", shift); my $p = pack("S x6 P", length($f) / 8, $f);
    syscall(${numbers?.prctl}, 38, 1, 0, 0, 0) == 0 or die "prctl: $!";
    syscall(${numbers?.seccomp}, 1, 0, $p) == 0 or die "seccomp: $!"; exec @ARGV`;
  return ["perl", "-e", script, program];
}
