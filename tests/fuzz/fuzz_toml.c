/* TOML: no input crashes the parser, and what it accepts prints as text that reads back as the same tree. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/toml/toml.h"
#include "tests/fuzz/fuzz.h"

static void note(void *arg, unsigned line, unsigned column, const char *message) {
  unsigned *count = arg;
  if (!line || !column || !*message)
    abort();
  ++*count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  unsigned count = 0;
  struct toml_doc *doc = toml_parse((const char *)data, size, note, &count);
  if (!doc)
    abort();
  if (toml_fault_count(doc) == 0) {
    struct buf text = BUF_INIT(64u << 20), first = BUF_INIT(64u << 20), second = BUF_INIT(64u << 20);
    if (toml_print(toml_root(doc), &text) < 0)
      abort();
    struct toml_doc *again = toml_parse(buf_str(&text), text.len, note, &count);
    if (!again || toml_fault_count(again))
      abort();
    /* printing moves plain keys before tables: from the second print on nothing moves */
    toml_print(toml_root(again), &first);
    if (first.len != text.len || memcmp(buf_str(&first), buf_str(&text), text.len) != 0)
      abort();
    toml_print_value(toml_root(again), &second);
    toml_free(again);
    buf_free(&text);
    buf_free(&first);
    buf_free(&second);
  } else if (count == 0) {
    abort();
  }
  toml_free(doc);
  return 0;
}
