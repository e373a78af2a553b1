/* Memory that is given back is wiped first: for programs whose heap holds secrets (orca-apiserver, orca-agent, orcactl).
 *
 * A value passes through buffers of libraries that know nothing of secrets: protobuf's and ZeroMQ's messages, jansson's trees, curl's bodies. Rather
 * than finding every copy, every freed byte is overwritten. It costs a memset of what is freed, which was written before anyway.
 * Included by exactly one file of a program: its main.c. The C library's own calls (getline, strdup, reallocarray …) and those of C++ come here too.
 * Sanitizers bring their own heap; there, and without glibc, freed memory stays as it was.
 * Threads: any. */
#ifndef ORCA_COMMON_CRYPTO_WIPING_HEAP_H
#define ORCA_COMMON_CRYPTO_WIPING_HEAP_H

#include <features.h>

#if defined(__has_feature)
#define ORCA_HAS_FEATURE(x) __has_feature(x)
#else
#define ORCA_HAS_FEATURE(x) 0
#endif

#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && !ORCA_HAS_FEATURE(address_sanitizer) &&                 \
    !ORCA_HAS_FEATURE(thread_sanitizer) && !ORCA_HAS_FEATURE(memory_sanitizer)

#include <malloc.h>
#include <stdlib.h>
#include <string.h>

/* glibc's own, under the names by which it lets others stand in front of them. */
extern void __libc_free(void *p); /* NOLINT: the C library's name */

void free(void *p) {
  if (!p)
    return;
  explicit_bzero(p, malloc_usable_size(p));
  __libc_free(p);
}

void *realloc(void *p, size_t size) {
  if (!p)
    return malloc(size);
  if (!size) {
    free(p);
    return NULL;
  }
  size_t had = malloc_usable_size(p);
  if (size <= had && size >= had / 2)
    return p;
  void *other = malloc(size);
  if (!other)
    return NULL;
  memcpy(other, p, size < had ? size : had);
  free(p);
  return other;
}

#endif
#endif
