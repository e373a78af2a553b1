/* What a fuzzer is: one function that is given an input, and one that is called before the first if it is there. Both are called by libFuzzer, or by
 * replay.c. And what several of them do with an input and with what is said of it. */
#ifndef ORCA_TESTS_FUZZ_FUZZ_H
#define ORCA_TESTS_FUZZ_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

/* An input of two texts, split at its first NUL; both are the input's. Without a NUL all of it is the first, and there is no second. */
struct fuzz_texts {
  const uint8_t *first, *second;
  size_t first_len, second_len;
};

static inline struct fuzz_texts fuzz_split(const uint8_t *data, size_t size) {
  const uint8_t *nul = memchr(data, 0, size);
  if (!nul)
    return (struct fuzz_texts){.first = data, .first_len = size};
  size_t len = (size_t)(nul - data);
  return (struct fuzz_texts){data, nul + 1, len, size - len - 1};
}

/* Whether a complaint holds the beginning of a secret: 16 bytes of it, that are no words of the complaint's own. */
static inline bool fuzz_tells(const char *complaint, const void *secret, size_t len) {
  return len >= 16 && !memchr(secret, ' ', 16) && !memchr(secret, '/', 16) && memmem(complaint, strlen(complaint), secret, 16);
}

/* What is refused is refused in words, and they tell nothing of the secret. */
static inline void fuzz_check_refusal(const struct err *err, const void *secret, size_t len) {
  if (!*err->msg || fuzz_tells(err->msg, secret, len))
    abort();
}

#endif
