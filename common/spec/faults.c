#include "common/spec/faults.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void spec_faults_free(struct spec_faults *faults) {
  if (!faults)
    return;
  for (size_t i = 0; i < faults->count; i++) {
    free(faults->list[i].file);
    free(faults->list[i].path);
    free(faults->list[i].message);
  }
  free(faults->list);
  *faults = (struct spec_faults){0};
}

int spec_fault_add(struct spec_faults *faults, const char *file, unsigned line, unsigned column, const char *path, const char *fmt, ...) {
  char message[1024];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(message, sizeof message, fmt, ap);
  va_end(ap);
  if (faults->count == faults->size) {
    size_t size = faults->size ? faults->size * 2 : 8;
    struct spec_fault *list = reallocarray(faults->list, size, sizeof *list);
    if (!list)
      return -1;
    faults->list = list;
    faults->size = size;
  }
  struct spec_fault f = {strdup(file ? file : ""), line, column, strdup(path ? path : ""), strdup(message)};
  if (!f.file || !f.path || !f.message) {
    free(f.file);
    free(f.path);
    free(f.message);
    return -1;
  }
  faults->list[faults->count++] = f;
  return 0;
}

void spec_fault_print(const struct spec_fault *fault, struct buf *to) {
  if (*fault->file)
    buf_printf(to, "%s:", fault->file);
  if (fault->line)
    buf_printf(to, "%u:%u:", fault->line, fault->column);
  if (*fault->file || fault->line)
    buf_add_byte(to, ' ');
  if (*fault->path)
    buf_printf(to, "%s: ", fault->path);
  buf_add_str(to, fault->message);
}

static int by_place(const void *a, const void *b) {
  const struct spec_fault *x = a, *y = b;
  if (x->line != y->line)
    return x->line < y->line ? -1 : 1;
  return x->column < y->column ? -1 : x->column > y->column;
}

void spec_faults_sort(struct spec_faults *faults, size_t from) {
  if (faults->count > from + 1)
    qsort(faults->list + from, faults->count - from, sizeof *faults->list, by_place);
}

int spec_faults_err(const struct spec_faults *faults, struct err *err) {
  if (faults->count == 0)
    return 0;
  struct buf text = BUF_INIT(4096);
  spec_fault_print(&faults->list[0], &text);
  if (faults->count > 1)
    err_set(err, ERR_INVALID, "%zu faults, the first: %s", faults->count, buf_str(&text));
  else
    err_set(err, ERR_INVALID, "%s", buf_str(&text));
  buf_free(&text);
  return -1;
}
