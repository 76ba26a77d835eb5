/*
 * The C programs to compare with: loops over libkcapi, nothing else.
 *
 * Reads commands "LOOP ALGORITHM CHUNK TOTAL" from standard input and answers each with the seconds it took, from the
 * first byte sent to the last one received. So a benchmark in another process can take turns with it.
 *
 *   plain   kcapi_cipher_stream_update and _op of one list entry each
 *   best    a list of 17 entries, which libkcapi sends by one sendmsg instead of vmsplice and splice
 *
 * Buffers are page-aligned, and the same ones in every round. A round is CHUNK bytes, or what one update may carry.
 */
#include <kcapi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>

#define WINDOW 212992 /* net.core.wmem_default: past it an update would sleep */
#define LIST 17

static uint8_t *in, *out;

static void fail(const char *what, long result)
{
	fprintf(stderr, "%s: %ld\n", what, result);
	exit(1);
}

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static double loop(struct kcapi_handle *handle, size_t entries, size_t chunk, size_t total)
{
	struct iovec source[LIST] = { { 0 } }, target;
	double start = now();

	while (total > 0) {
		size_t length = chunk < total ? chunk : total;
		ssize_t count;

		source[0] = (struct iovec){ in, length };
		target = (struct iovec){ out, length };
		count = kcapi_cipher_stream_update(handle, source, entries);
		if (count != (ssize_t)length)
			fail("kcapi_cipher_stream_update", count);
		count = kcapi_cipher_stream_op(handle, &target, 1);
		if (count != (ssize_t)length)
			fail("kcapi_cipher_stream_op", count);
		total -= length;
	}
	return now() - start;
}

static double measure(const char *kind, const char *algorithm, size_t chunk, size_t total)
{
	static const uint8_t key[32], iv[16];
	struct kcapi_handle *handle;
	double seconds;
	long result;

	result = kcapi_cipher_init(&handle, algorithm, 0);
	if (result)
		fail("kcapi_cipher_init", result);
	result = kcapi_cipher_setkey(handle, key, strcmp(algorithm, "ecb(cipher_null)") ? 32 : 0);
	if (result)
		fail("kcapi_cipher_setkey", result);
	result = kcapi_cipher_stream_init_enc(handle, kcapi_cipher_ivsize(handle) ? iv : NULL, NULL, 0);
	if (result < 0)
		fail("kcapi_cipher_stream_init_enc", result);
	seconds = loop(handle, strcmp(kind, "best") ? 1 : LIST, chunk < WINDOW ? chunk : WINDOW, total);
	kcapi_cipher_destroy(handle);
	return seconds;
}

int main(void)
{
	char kind[16], algorithm[64];
	size_t chunk, total;

	in = aligned_alloc(4096, WINDOW);
	out = aligned_alloc(4096, WINDOW);
	if (!in || !out)
		fail("aligned_alloc", 0);
	memset(in, 1, WINDOW);
	memset(out, 2, WINDOW);
	while (scanf("%15s %63s %zu %zu", kind, algorithm, &chunk, &total) == 4) {
		printf("%.9f\n", measure(kind, algorithm, chunk, total));
		fflush(stdout);
	}
	return 0;
}
