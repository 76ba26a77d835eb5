/*
 * A fake libkcapi that checks every pointer and length: each must be in memory that the test announced for this call
 * (kcapi_check_announce), and the content must not have changed since then. The cipher inverts every byte. It accepts
 * at most the window, and returns at most the available output. Some calls do only a part of their work, like the
 * kernel after a signal. With -fsanitize=address, it also detects access to freed memory. The first violation ends the
 * process.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define WINDOW 212992
#define MOST_ENTRIES 1024
#define FEWEST_SENT 17 /* libkcapi sends shorter lists through a pipe; old kernels refer to it after the call */
#define IV_SIZE 16

struct kcapi_handle {
	void *tfm; /* a pointer in the real library, NULL here: no descriptors */
	struct kcapi_handle *next;
	uint32_t block_size, iv_size;
	int in_parts; /* whether the mode may continue after an operation */
	int has_key, is_started;
	size_t queued;
	uint8_t queue[WINDOW];
};

/* Announced memory, and a checksum of its content. */
struct region {
	const uint8_t *start;
	size_t length;
	uint64_t sum;
};

static struct kcapi_handle *handles;
static struct region regions[2 * MOST_ENTRIES];
static size_t count;
static int was_called;
static const uint8_t *list_memory; /* of struct iovec arrays, announced once */
static size_t list_length;
static unsigned long calls;

static void violation(const char *format, ...)
{
	va_list arguments;

	fprintf(stderr, "violation, in call %lu: ", calls);
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
	_exit(86);
}

static uint64_t sum_of(const uint8_t *bytes, size_t length)
{
	uint64_t sum = 14695981039346656037u; /* FNV-1a */

	for (size_t i = 0; i < length; i++)
		sum = (sum ^ bytes[i]) * 1099511628211u;
	return sum;
}

/* ---- for the test ---- */

void kcapi_check_announce(const uint8_t *start, size_t length)
{
	if (was_called)
		count = was_called = 0;
	if (count == sizeof(regions) / sizeof(*regions))
		violation("more announced than any call may be given");
	regions[count++] = (struct region){ start, length, sum_of(start, length) };
}

void kcapi_check_announce_lists(const uint8_t *start, size_t length)
{
	list_memory = start;
	list_length = length;
}

uint32_t kcapi_check_calls(void) { return calls; }

/* ---- checks ---- */

static void begin(void)
{
	calls++;
	was_called = 1;
}

/* Updates the checksum of memory that this library wrote, because the call may be repeated. */
static void written(void)
{
	for (size_t i = 0; i < count; i++)
		regions[i].sum = sum_of(regions[i].start, regions[i].length);
}

/* Returns the number of announced bytes from start on. */
static size_t check(const void *start, size_t length, const char *what)
{
	const uint8_t *first = start;

	for (size_t i = 0; i < count; i++) {
		const struct region *region = &regions[i];

		if (first < region->start || first + length > region->start + region->length)
			continue;
		if (sum_of(region->start, region->length) != region->sum)
			violation("%s of %zu bytes changed since it was announced: it is no longer the caller's", what, length);
		return region->start + region->length - first;
	}
	violation("%s of %zu bytes is not in what was announced", what, length);
	return 0;
}

static struct kcapi_handle *live(struct kcapi_handle *handle)
{
	for (struct kcapi_handle *each = handles; each; each = each->next)
		if (each == handle)
			return handle;
	violation("a handle that was never made, or is destroyed");
	return NULL;
}

static size_t check_list(const struct iovec *list, size_t entries, const char *what)
{
	const uint8_t *first = (const uint8_t *)list;
	size_t total = 0;

	if (entries > MOST_ENTRIES)
		violation("a list of %zu entries", entries);
	if (first < list_memory || first + entries * sizeof(*list) > list_memory + list_length)
		violation("a list of %zu entries outside the memory for lists", entries);
	for (size_t i = 0; i < entries; i++) {
		if (list[i].iov_len > 0)
			check(list[i].iov_base, list[i].iov_len, what);
		total += list[i].iov_len;
	}
	return total;
}

/* How much of a list to process: a part of every seventh, nothing of every fifth, as after a signal. */
static ssize_t part_of(const struct kcapi_handle *handle, size_t total)
{
	static unsigned long lists;

	lists++;
	if (lists % 5 == 0)
		return -EINTR;
	return handle->in_parts && lists % 7 == 0 && total > 16 ? total / 2 - total / 2 % 16 : total;
}

/* ---- libkcapi ---- */

static int add(struct kcapi_handle **cell, struct kcapi_handle like)
{
	struct kcapi_handle *handle = calloc(1, sizeof(*handle));

	check(cell, sizeof(*cell), "a cell for the handle");
	if (!handle)
		return -ENOMEM;
	*handle = like;
	handle->next = handles;
	*cell = handles = handle;
	written();
	return 0;
}

int kcapi_cipher_init(struct kcapi_handle **cell, const char *name, uint32_t flags)
{
	size_t length;

	(void)flags;
	begin();
	length = check(name, 1, "a name");
	if (strnlen(name, length) == length)
		violation("a name without an end");
	return add(cell, (struct kcapi_handle){
		.block_size = strncmp(name, "ctr", 3) == 0 ? 1 : 16,
		.iv_size = strncmp(name, "ecb", 3) == 0 ? 0 : IV_SIZE,
		.in_parts = strncmp(name, "xts", 3) != 0,
	});
}

int kcapi_handle_reinit(struct kcapi_handle **cell, struct kcapi_handle *existing, uint32_t flags)
{
	(void)flags;
	begin();
	live(existing);
	return add(cell, (struct kcapi_handle){
		.block_size = existing->block_size,
		.iv_size = existing->iv_size,
		.in_parts = existing->in_parts,
		.has_key = existing->has_key,
	});
}

void kcapi_cipher_destroy(struct kcapi_handle *handle)
{
	struct kcapi_handle **link = &handles;

	live(handle);
	while (*link != handle)
		link = &(*link)->next;
	*link = handle->next;
	free(handle);
}

int kcapi_cipher_setkey(struct kcapi_handle *handle, const uint8_t *key, uint32_t length)
{
	begin();
	check(key, length, "a key");
	live(handle)->has_key = 1;
	return 0;
}

uint32_t kcapi_cipher_blocksize(struct kcapi_handle *handle) { return live(handle)->block_size; }
uint32_t kcapi_cipher_ivsize(struct kcapi_handle *handle) { return live(handle)->iv_size; }
uint32_t kcapi_version(void) { return 1040000; }
void kcapi_set_verbosity(uint32_t level) { (void)level; }

static ssize_t start(struct kcapi_handle *handle, const uint8_t *iv, const struct iovec *list, size_t entries)
{
	begin();
	if (!live(handle)->has_key)
		violation("a stream without a key");
	if (handle->iv_size > 0)
		check(iv, handle->iv_size, "an IV");
	else if (iv)
		violation("an IV for a cipher without one");
	if (list || entries > 0)
		violation("data in a start");
	handle->is_started = 1;
	handle->queued = 0;
	return 0;
}

ssize_t kcapi_cipher_stream_init_enc(struct kcapi_handle *handle, const uint8_t *iv, struct iovec *list, size_t entries)
{
	return start(handle, iv, list, entries);
}

ssize_t kcapi_cipher_stream_init_dec(struct kcapi_handle *handle, const uint8_t *iv, struct iovec *list, size_t entries)
{
	return start(handle, iv, list, entries);
}

static ssize_t update(struct kcapi_handle *handle, const struct iovec *list, size_t entries)
{
	size_t total, left;
	ssize_t result;

	begin();
	live(handle);
	total = check_list(list, entries, "data");
	if (!handle->is_started)
		violation("an update without a stream");
	if (entries < FEWEST_SENT)
		violation("a list of %zu entries, which is referred to after the call", entries);
	if (total > WINDOW - handle->queued)
		violation("%zu bytes over the %zu that are queued", total, handle->queued);
	result = part_of(handle, total);
	if (result < 0)
		return result;
	left = result;
	for (size_t i = 0; i < entries && left > 0; i++) {
		const uint8_t *bytes = list[i].iov_base;
		size_t length = list[i].iov_len < left ? list[i].iov_len : left;

		for (size_t j = 0; j < length; j++)
			handle->queue[handle->queued + j] = ~bytes[j];
		handle->queued += length;
		left -= length;
	}
	return result;
}

ssize_t kcapi_cipher_stream_update(struct kcapi_handle *handle, struct iovec *list, size_t entries)
{
	return update(handle, list, entries);
}

ssize_t kcapi_cipher_stream_update_last(struct kcapi_handle *handle, struct iovec *list, size_t entries)
{
	return update(handle, list, entries);
}

ssize_t kcapi_cipher_stream_op(struct kcapi_handle *handle, struct iovec *list, size_t entries)
{
	size_t total, left, done = 0;
	ssize_t result;

	begin();
	live(handle);
	total = check_list(list, entries, "memory for output");
	if (total == 0 || total > handle->queued)
		violation("an op for %zu of %zu bytes", total, handle->queued);
	result = part_of(handle, total);
	if (result < 0)
		return result;
	left = result;
	for (size_t i = 0; i < entries && left > 0; i++) {
		size_t length = list[i].iov_len < left ? list[i].iov_len : left;

		memcpy(list[i].iov_base, handle->queue + done, length);
		done += length;
		left -= length;
	}
	handle->queued -= done;
	memmove(handle->queue, handle->queue + done, handle->queued);
	written();
	return result;
}

/* ---- functions of libc that measure the socket buffers, looked up through this library ---- */

int socket(int domain, int type, int protocol)
{
	(void)domain, (void)type, (void)protocol;
	return 1 << 30;
}

int getsockopt(int descriptor, int level, int name, void *value, void *length)
{
	(void)level, (void)name;
	begin();
	if (descriptor != 1 << 30)
		violation("another socket");
	check(value, sizeof(int), "an option's value");
	check(length, sizeof(int), "an option's length");
	*(int *)value = WINDOW;
	written();
	return 0;
}

int close(int descriptor)
{
	if (descriptor != 1 << 30)
		violation("another descriptor is closed");
	return 0;
}
