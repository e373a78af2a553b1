/* .env files. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/envfile/envfile.h"
#include "tests/fuzz/fuzz.h"

static int each(void *arg, const char *name, const char *value, size_t len, unsigned line, struct err *err) {
  (void)arg;
  (void)err;
  if (!*name || strlen(name) > ENVFILE_NAME_MAX || strlen(value) != len || !line)
    abort();
  return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct err err;
  if (size <= 1 << 16)
    envfile_parse((const char *)data, size, each, NULL, &err);
  return 0;
}
