/* What is kept of clusters in ~/.orca: whatever config.json and a token's file say, a context is loaded whole, or refused in words that tell nothing
 * of the token. Split at the first NUL: the token's file, then config.json; without one, a config.json that names it is there. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orcactl/context.h"
#include "tests/fuzz/files.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerInitialize(int *argc, char ***argv) {
  (void)argc;
  (void)argv;
  fuzz_make_dir("tokens");
  return setenv("ORCA_HOME", fuzz_dir, 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const char usual[] = "{\"current\": \"a\", \"contexts\": {\"a\": {\"url\": \"http://127.0.0.1:6880\"}}}";
  struct context c;
  struct err err = {0};
  if (!size || size > 1 << 15)
    return 0;
  struct fuzz_texts in = fuzz_split(data, size);
  fuzz_write("tokens/a", in.first, in.first_len);
  if (in.second)
    fuzz_write("config.json", in.second, in.second_len);
  else
    fuzz_write("config.json", usual, sizeof usual - 1);
  if (context_load(NULL, &c, &err) == 0) {
    if (!*c.name || strlen(c.token) >= sizeof c.token || strlen(c.url) >= sizeof c.url || strlen(c.ca) >= sizeof c.ca ||
        strncmp(c.token, (const char *)data, strlen(c.token)) != 0)
      abort();
    context_free(&c);
  } else {
    fuzz_check_refusal(&err, in.first, in.second ? 0 : in.first_len);
  }
  json_decref(context_all(&err));
  return 0;
}
