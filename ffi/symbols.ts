/**
 * The table of bound functions, each with its C prototype: those of libkcapi (kcapi.h), and a few of libc, found
 * through the library's handle. The libc functions measure socket buffers, return addresses, set FD_CLOEXEC, and call
 * the kernel's keyring.
 *
 * @module
 */

/**
 * The C types that the adapters map:
 *
 * - `buffer`: the address of a Uint8Array's first byte, valid during the call (null is NULL)
 * - `address`: a pointer as a value, a bigint in Deno and Node, a number in Bun
 * - `size`: size_t, passed like `address`
 * - `i32`: int and ssize_t. Counts are below 2³¹ and errors are negative errno values, so the low 32 bits of a ssize_t
 *   hold the whole value on little-endian machines, and every runtime returns them as a number
 */
export type CType = "buffer" | "address" | "size" | "i32" | "u32" | "void";

/** One C function: the types of its parameters and of its result. */
export interface CFunction {
  readonly parameters: readonly CType[];
  readonly result: CType;
}

/** The bound functions. */
export const symbols = {
  // int kcapi_cipher_init(struct kcapi_handle **handle, const char *ciphername, uint32_t flags);
  kcapi_cipher_init: { parameters: ["buffer", "buffer", "u32"], result: "i32" },
  // void kcapi_cipher_destroy(struct kcapi_handle *handle);
  kcapi_cipher_destroy: { parameters: ["address"], result: "void" },
  // int kcapi_cipher_setkey(struct kcapi_handle *handle, const uint8_t *key, uint32_t keylen);
  kcapi_cipher_setkey: { parameters: ["address", "buffer", "u32"], result: "i32" },
  // uint32_t kcapi_cipher_blocksize(struct kcapi_handle *handle);
  kcapi_cipher_blocksize: { parameters: ["address"], result: "u32" },
  // uint32_t kcapi_cipher_ivsize(struct kcapi_handle *handle);
  kcapi_cipher_ivsize: { parameters: ["address"], result: "u32" },
  // ssize_t kcapi_cipher_stream_init_enc(struct kcapi_handle *handle, const uint8_t *iv, struct iovec *iov,
  //                                      size_t iovlen);
  kcapi_cipher_stream_init_enc: { parameters: ["address", "buffer", "address", "size"], result: "i32" },
  // ssize_t kcapi_cipher_stream_init_dec(struct kcapi_handle *handle, const uint8_t *iv, struct iovec *iov,
  //                                      size_t iovlen);
  kcapi_cipher_stream_init_dec: { parameters: ["address", "buffer", "address", "size"], result: "i32" },
  // ssize_t kcapi_cipher_stream_update(struct kcapi_handle *handle, struct iovec *iov, size_t iovlen);
  kcapi_cipher_stream_update: { parameters: ["address", "address", "size"], result: "i32" },
  // ssize_t kcapi_cipher_stream_update_last(struct kcapi_handle *handle, struct iovec *iov, size_t iovlen);
  kcapi_cipher_stream_update_last: { parameters: ["address", "address", "size"], result: "i32" },
  // ssize_t kcapi_cipher_stream_op(struct kcapi_handle *handle, struct iovec *iov, size_t iovlen);
  kcapi_cipher_stream_op: { parameters: ["address", "address", "size"], result: "i32" },
  // int kcapi_handle_reinit(struct kcapi_handle **newhandle, struct kcapi_handle *existing, uint32_t flags);
  kcapi_handle_reinit: { parameters: ["buffer", "address", "u32"], result: "i32" },
  // uint32_t kcapi_version(void);
  kcapi_version: { parameters: [], result: "u32" },
  // void kcapi_set_verbosity(enum kcapi_verbosity level);
  kcapi_set_verbosity: { parameters: ["u32"], result: "void" },
  // void *memmove(void *dest, const void *src, size_t n); a length of 0 only returns the address of dest
  memmove: { parameters: ["buffer", "address", "size"], result: "address" },
  // int socket(int domain, int type, int protocol);
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  // int getsockopt(int sockfd, int level, int optname, void *optval, socklen_t *optlen);
  getsockopt: { parameters: ["i32", "i32", "i32", "buffer", "buffer"], result: "i32" },
  // int setsockopt(int sockfd, int level, int optname, const void *optval, socklen_t optlen);
  setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" },
  // long syscall(long number, ...); variadic like fcntl; the calls in use return an int
  syscall: { parameters: ["size", "size", "size", "size", "size", "size"], result: "i32" },
  // int *__errno_location(void); the macro errno reads it in glibc and in musl
  __errno_location: { parameters: [], result: "address" },
  // int close(int fd);
  close: { parameters: ["i32"], result: "i32" },
  // int fcntl(int fd, int op, ... /* arg */); x86-64 and arm64 pass a variadic int like a fixed one
  fcntl: { parameters: ["i32", "i32", "i32"], result: "i32" },
  // int getpagesize(void);
  getpagesize: { parameters: [], result: "i32" },
} as const satisfies Record<string, CFunction>;
