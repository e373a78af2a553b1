/* spec-reference: docs/reference.md, from the table of keys, on stdout. */
#include <stdio.h>

#include "common/spec/spec.h"

int main(void) {
  struct buf text = BUF_INIT(4u << 20);
  int rc = spec_reference_markdown(&text) < 0 || fwrite(text.data, 1, text.len, stdout) != text.len || fflush(stdout) != 0;
  if (rc)
    fprintf(stderr, "spec-reference: the text could not be written\n");
  buf_free(&text);
  return rc;
}
