#include "orca-agent/exec_fault.h"

#include <string.h>

void exec_fault_feed(struct exec_fault *f, const uint8_t *data, size_t len) {
  if (!len || f->len > EXEC_FAULT_MAX)
    return;
  size_t taken = len < EXEC_FAULT_MAX - f->len ? len : EXEC_FAULT_MAX - f->len;
  memcpy(f->text + f->len, data, taken);
  f->text[f->len + taken] = 0;
  f->len = taken < len ? EXEC_FAULT_MAX + 1 : f->len + taken;
}

int32_t exec_fault_code(const struct exec_fault *f, int32_t code) {
  static const char start[] = "OCI runtime exec failed: ";
  if (code != 126 || f->len > EXEC_FAULT_MAX || strncmp(f->text, start, sizeof start - 1) != 0)
    return code;
  return strstr(f->text, "executable file not found") || strstr(f->text, "no such file or directory") ? 127 : code;
}
