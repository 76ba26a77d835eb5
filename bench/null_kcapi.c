/*
 * A libkcapi that does nothing: every call returns success at once, so that what is left is the cost of the JavaScript
 * and of the calls. For the block and IV sizes of ctr(aes) and cbc(aes).
 */
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

struct kcapi_handle {
	void *tfm; /* as the real one begins; NULL: there are no descriptors */
	int pipes[2], opfd;
	int is_cbc;
};
static struct kcapi_handle cbc = { .is_cbc = 1 }, ctr = { .is_cbc = 0 };

int kcapi_cipher_init(struct kcapi_handle **handle, const char *name, uint32_t flags)
{
	(void)flags;
	*handle = name[1] == 'b' ? &cbc : &ctr;
	return 0;
}
int kcapi_handle_reinit(struct kcapi_handle **handle, struct kcapi_handle *existing, uint32_t flags)
{
	(void)flags;
	*handle = existing;
	return 0;
}
void kcapi_cipher_destroy(struct kcapi_handle *handle) { (void)handle; }
int kcapi_cipher_setkey(struct kcapi_handle *handle, const uint8_t *key, uint32_t length)
{
	(void)handle, (void)key, (void)length;
	return 0;
}
uint32_t kcapi_cipher_blocksize(struct kcapi_handle *handle) { return handle->is_cbc ? 16 : 1; }
uint32_t kcapi_cipher_ivsize(struct kcapi_handle *handle) { return (void)handle, 16; }
uint32_t kcapi_version(void) { return 1040000; }
void kcapi_set_verbosity(uint32_t level) { (void)level; }

static ssize_t size(const struct iovec *list, size_t entries)
{
	ssize_t total = 0;
	for (size_t i = 0; i < entries; i++)
		total += list[i].iov_len;
	return total;
}
ssize_t kcapi_cipher_stream_init_enc(struct kcapi_handle *handle, const uint8_t *iv, struct iovec *list, size_t entries)
{
	(void)handle, (void)iv;
	return size(list, entries);
}
ssize_t kcapi_cipher_stream_init_dec(struct kcapi_handle *handle, const uint8_t *iv, struct iovec *list, size_t entries)
{
	(void)handle, (void)iv;
	return size(list, entries);
}
ssize_t kcapi_cipher_stream_update(struct kcapi_handle *handle, struct iovec *list, size_t entries)
{
	(void)handle;
	return size(list, entries);
}
ssize_t kcapi_cipher_stream_update_last(struct kcapi_handle *handle, struct iovec *list, size_t entries)
{
	(void)handle;
	return size(list, entries);
}
ssize_t kcapi_cipher_stream_op(struct kcapi_handle *handle, struct iovec *list, size_t entries)
{
	(void)handle;
	return size(list, entries);
}

/* Looked up through this library's handle like all the rest; a socket with the same default buffers as AF_ALG's. */
int socket(int domain, int type, int protocol)
{
	(void)domain, (void)type, (void)protocol;
	return syscall(SYS_socket, AF_UNIX, SOCK_SEQPACKET, 0);
}
