/* Faults in what people wrote: every one of a file, with its place. Apart from spec.h so that who reads only node.toml needs neither
 * the model nor JSON.
 * Threads: one owner. */
#ifndef ORCA_COMMON_SPEC_FAULTS_H
#define ORCA_COMMON_SPEC_FAULTS_H

#include <stddef.h>

#include "common/buf.h"
#include "common/err.h"

struct spec_fault {
  char *file;            /* "services/shop/service.toml"; "" for JSON */
  unsigned line, column; /* 1-based; 0 for JSON */
  char *path;            /* "service[2].deploy.max_surge"; for JSON "services[0].deploy.max_surge" */
  char *message;         /* "unknown key: did you mean `replicas`?" */
};
struct spec_faults {
  struct spec_fault *list;
  size_t count, size;
};
void spec_faults_free(struct spec_faults *faults);
int spec_fault_add(struct spec_faults *faults, const char *file, unsigned line, unsigned column, const char *path, const char *fmt, ...)
    __attribute__((format(printf, 6, 7)));
void spec_fault_print(const struct spec_fault *fault, struct buf *to); /* "file:line:column: path: message" */
/* In order of place, from number `from` on (the faults of one file). */
void spec_faults_sort(struct spec_faults *faults, size_t from);
/* Sums them up: 0 when there are none, else -1 and ERR_INVALID with their count and the first. */
int spec_faults_err(const struct spec_faults *faults, struct err *err);

#endif
