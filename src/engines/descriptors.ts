/**
 * The descriptors behind a handle of libkcapi, which has no call that tells them.
 *
 * From 1.1.0 on (2018), `struct kcapi_handle` begins with a pointer to what the handles of one key share, and that with the
 * socket that has the key; behind the pointer are the two ends of a pipe, and the socket of the stream, -1 before the
 * first (lib/internal.h). What is read is believed only if the kernel says that it is what it should be.
 *
 * @module
 */

import type { Address, Calls, Library } from "../../ffi/adapter.ts";
import type { Bytes } from "../bytes.ts";

// linux/socket.h, asm-generic/socket.h, asm-generic/fcntl.h, linux/fcntl.h
export const AF_ALG = 38;
const SOL_SOCKET = 1;
const SO_DOMAIN = 39;
const F_SETFD = 2;
const FD_CLOEXEC = 1;
const F_GETPIPE_SZ = 1032;

const FIRST_VERSION = 1_010_000;

/** `sizeof` of the fields in front: a pointer and three ints. */
const HEAD = 20;

/** What one handle has open from its beginning. */
export interface Descriptors {
  /** The socket that has the key. */
  readonly keySocket: number;
  readonly pipe: readonly number[];
}

/** The descriptors of `handle`; undefined where they cannot be told for certain. */
export function descriptorsOf(library: Library, handle: Address): Descriptors | undefined {
  const head = headOf(library, handle);
  if (!head) return undefined;
  const keySocket = new Int32Array(read(library, head.shared, 4).buffer)[0]!;
  if (!isAlgSocket(library, keySocket)) return undefined;
  return { keySocket, pipe: head.pipe.filter((fd) => fd > 0 && library.call.fcntl(fd, F_GETPIPE_SZ, 0) > 0) };
}

/** The socket of the stream, which the first one opens. */
export function streamSocketOf(library: Library, handle: Address): number | undefined {
  const socket = headOf(library, handle)?.streamSocket;
  return socket !== undefined && isAlgSocket(library, socket) ? socket : undefined;
}

/** Keeps descriptors from the programs that this process starts: they could encrypt under the key. */
export function closeOnExec({ call }: Library, descriptors: readonly (number | undefined)[]): void {
  for (const fd of descriptors) if (fd !== undefined) call.fcntl(fd, F_SETFD, FD_CLOEXEC);
}

/** The fields in front, as they stand there. */
interface Head {
  readonly shared: Address;
  readonly pipe: readonly number[];
  readonly streamSocket: number;
}

function headOf(library: Library, handle: Address): Head | undefined {
  if (library.call.kcapi_version() < FIRST_VERSION) return undefined;
  const { buffer } = read(library, handle, HEAD);
  const shared = library.cells(buffer).get(0);
  const [readEnd, writeEnd, streamSocket] = new Int32Array(buffer, 8) as Iterable<number> as [number, number, number];
  return Number(shared) === 0 ? undefined : { shared, pipe: [readEnd, writeEnd], streamSocket };
}

function isAlgSocket({ call }: Library, fd: number): boolean {
  return fd > 0 && socketOption(call, fd, SO_DOMAIN) === AF_ALG;
}

/** An option of a socket, at SOL_SOCKET, that is an int; undefined where the kernel does not tell. */
export function socketOption(call: Calls, socket: number, option: number): number | undefined {
  const value = new Int32Array(new ArrayBuffer(8));
  const [size, length] = [new Uint8Array(value.buffer, 0, 4), new Uint8Array(value.buffer, 4, 4)];
  value[1] = 4;
  return call.getsockopt(socket, SOL_SOCKET, option, size, length) < 0 ? undefined : value[0];
}

/** Memory of the library's, in whole words of 8 bytes. */
function read({ call, word }: Library, address: Address, length: number): Bytes {
  const copy = new Uint8Array(new ArrayBuffer(Math.ceil(length / 8) * 8));
  call.memmove(copy.subarray(0, length), address, word(length));
  return copy;
}
