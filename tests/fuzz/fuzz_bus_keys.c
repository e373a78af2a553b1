/* A key of the bus and its public half, as files that somebody has copied, edited or torn: they are a pair, or are refused in words that tell nothing
 * of the secret one. First byte: even, the true public half is beside it. The rest is split at the first NUL: NAME.key, then NAME.pub. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#include "common/bus/bus.h"
#include "tests/fuzz/files.h"
#include "tests/fuzz/fuzz.h"

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
  struct fuzz_texts in = fuzz_split(data + 1, size - 1);
  char key[BUS_KEY_LEN + 1] = "", public_half[BUS_KEY_LEN + 1];
  memcpy(key, in.first, in.first_len < BUS_KEY_LEN ? in.first_len : BUS_KEY_LEN);
  fuzz_write("agent.key", in.first, in.first_len);
  if (data[0] % 2 == 0 && in.first_len >= BUS_KEY_LEN && zmq_curve_public(public_half, key) == 0)
    fuzz_write("agent.pub", public_half, BUS_KEY_LEN);
  else
    fuzz_write("agent.pub", in.second, in.second_len);
  if (bus_key_load(fuzz_dir, "agent", &pair, &err) == 0) {
    if (strcmp(pair.secret_key, key) != 0 || strlen(pair.public_key) != BUS_KEY_LEN)
      abort();
  } else {
    fuzz_check_refusal(&err, in.first, in.first_len);
  }
  return 0;
}
