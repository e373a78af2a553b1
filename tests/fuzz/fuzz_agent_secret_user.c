/* /etc/passwd in an archive that Docker gives, and the label of secrets: both are whatever an image's author or anybody with Docker wrote. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "orca-agent/secret_user.h"
#include "orca-agent/secret_values.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  uid_t uid;
  if (size > 1 << 16)
    return 0;
  secret_user_in_archive(data, size, "web", &uid);
  char *text = strndup((const char *)data, size), name[64];
  struct secret_label one;
  if (!text)
    return 0;
  for (const char *at = text; secret_label_next(&at, &one);)
    if (!*one.name)
      abort();
  if (secret_user_parse(text, &uid, name) == SECRET_USER_NAME && !*name)
    abort();
  free(text);
  return 0;
}
