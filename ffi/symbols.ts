/**
 * The functions bound, once, each with its C prototype: libkcapi's (kcapi.h), and through the library's own
 * handle the few of libc that measure the socket buffers, tell an address, keep descriptors from other programs, and
 * reach the kernel's keyring.
 *
 * @module
 */

/**
 * The C types used here, as each adapter maps them:
 *
 * - `buffer`: the address of a Uint8Array's first byte, for the time of the call (null: NULL)
 * - `address`: a pointer as a value: a bigint in Deno and Node, a number in Bun
 * - `size`: size_t, likewise
 * - `i32`: int, and ssize_t too: counts stay below 2³¹ and errors are a negative errno, so that the low half is
 *   the whole truth on little-endian machines, and a plain number in all runtimes
 */
export type CType = "buffer" | "address" | "size" | "i32" | "u32" | "void";

/** One C function: the types of its parameters and of its result. */
export interface CFunction {
  readonly parameters: readonly CType[];
  readonly result: CType;
}

/** The functions bound. */
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
  // void *memmove(void *dest, const void *src, size_t n); with a length of 0 it returns the address of dest
  memmove: { parameters: ["buffer", "address", "size"], result: "address" },
  // int socket(int domain, int type, int protocol);
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  // int getsockopt(int sockfd, int level, int optname, void *optval, socklen_t *optlen);
  getsockopt: { parameters: ["i32", "i32", "i32", "buffer", "buffer"], result: "i32" },
  // int setsockopt(int sockfd, int level, int optname, const void *optval, socklen_t optlen);
  setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" },
  // long syscall(long number, ...); as fcntl's; those in use here return an int
  syscall: { parameters: ["size", "size", "size", "size", "size", "size"], result: "i32" },
  // int *__errno_location(void); what the macro errno is of, in glibc and in musl
  __errno_location: { parameters: [], result: "address" },
  // int close(int fd);
  close: { parameters: ["i32"], result: "i32" },
  // int fcntl(int fd, int op, ... /* arg */); on x86-64 and on arm64 an int goes the same way, variadic or not
  fcntl: { parameters: ["i32", "i32", "i32"], result: "i32" },
  // int getpagesize(void);
  getpagesize: { parameters: [], result: "i32" },
} as const satisfies Record<string, CFunction>;
