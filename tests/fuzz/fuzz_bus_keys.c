/* A key of the bus and its public half, as files that somebody has copied, edited or torn: they are a pair, or are refused in words that tell nothing
 * of the secret one. First byte: even, the true public half is beside it. The rest is split at the first NUL: NAME.key, then NAME.pub. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#include "common/bus/bus.h"
#include "tests/fuzz/files.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

int LLVMFuzzerInitialize(int *argc, char ***argv) {
  (void)argc;
  (void)argv;
  fuzz_make_dir("");
  return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct bus_key_pair pair;
  struct err err = {0};
  if (size < 1 || size > 4096)
    return 0;
  const uint8_t *text = data + 1, *nul = memchr(text, 0, size - 1);
  size_t len = nul ? (size_t)(nul - text) : size - 1;
  char key[BUS_KEY_LEN + 1] = "", public_half[BUS_KEY_LEN + 1];
  memcpy(key, text, len < BUS_KEY_LEN ? len : BUS_KEY_LEN);
  fuzz_write("agent.key", text, len);
  if (data[0] % 2 == 0 && len >= BUS_KEY_LEN && zmq_curve_public(public_half, key) == 0)
    fuzz_write("agent.pub", public_half, BUS_KEY_LEN);
  else
    fuzz_write("agent.pub", nul ? nul + 1 : text, nul ? size - 2 - len : 0);
  if (bus_key_load(fuzz_dir, "agent", &pair, &err) == 0) {
    if (strcmp(pair.secret_key, key) != 0 || strlen(pair.public_key) != BUS_KEY_LEN)
      abort();
  } else if (!*err.msg || fuzz_tells(err.msg, text, len)) {
    abort();
  }
  return 0;
}
