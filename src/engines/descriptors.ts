/**
 * The descriptors of a libkcapi handle, which no call of libkcapi returns.
 *
 * They are read from the handle's memory. From libkcapi 1.1.0 on (2018), lib/internal.h has
 *
 *     struct kcapi_handle {
 *       struct kcapi_handle_tfm *tfm;  // shared by the handles of one key
 *       int pipes[2];                  // read end, write end
 *       int opfd;                      // the stream's socket, -1 before the first stream
 *       …
 *     };
 *     struct kcapi_handle_tfm {
 *       int tfmfd;                     // the socket that has the key
 *       …
 *     };
 *
 * A descriptor is used only if the kernel confirms that it is an AF_ALG socket, or a pipe.
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

/** The size of the first fields: a pointer and three ints. */
const HEAD = 20;

/** The descriptors that a handle has from the start. */
export interface Descriptors {
  /** The socket that has the key. */
  readonly keySocket: number;
  readonly pipe: readonly number[];
}

/** The descriptors of `handle`; undefined if they are not certain. */
export function descriptorsOf(library: Library, handle: Address): Descriptors | undefined {
  const head = headOf(library, handle);
  if (!head) return undefined;
  const keySocket = new Int32Array(read(library, head.shared, 4).buffer)[0]!;
  if (!isAlgSocket(library, keySocket)) return undefined;
  return { keySocket, pipe: head.pipe.filter((fd) => fd > 0 && library.call.fcntl(fd, F_GETPIPE_SZ, 0) > 0) };
}

/** The socket of the stream. The first stream of a handle opens it. */
export function streamSocketOf(library: Library, handle: Address): number | undefined {
  const socket = headOf(library, handle)?.streamSocket;
  return socket !== undefined && isAlgSocket(library, socket) ? socket : undefined;
}

/** Makes child processes not inherit the descriptors: they could encrypt with the key. */
export function closeOnExec({ call }: Library, descriptors: readonly (number | undefined)[]): void {
  for (const fd of descriptors) if (fd !== undefined) call.fcntl(fd, F_SETFD, FD_CLOEXEC);
}

/** The first fields of a handle. */
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

/** An integer option of a socket, at level SOL_SOCKET; undefined if getsockopt(2) fails. */
export function socketOption(call: Calls, socket: number, option: number): number | undefined {
  const value = new Int32Array(new ArrayBuffer(8));
  const [size, length] = [new Uint8Array(value.buffer, 0, 4), new Uint8Array(value.buffer, 4, 4)];
  value[1] = 4;
  return call.getsockopt(socket, SOL_SOCKET, option, size, length) < 0 ? undefined : value[0];
}

/** A copy of the library's memory at `address`. Its buffer has whole words of 8 bytes. */
function read({ call, word }: Library, address: Address, length: number): Bytes {
  const copy = new Uint8Array(new ArrayBuffer(Math.ceil(length / 8) * 8));
  call.memmove(copy.subarray(0, length), address, word(length));
  return copy;
}
