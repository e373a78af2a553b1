/* Small readers of what people write, also for flags of orcactl. Apart from spec.h so that node.toml needs neither the model nor JSON.
 * Threads: pure functions. */
#ifndef ORCA_COMMON_SPEC_SPEC_UNITS_H
#define ORCA_COMMON_SPEC_SPEC_UNITS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

int spec_parse_duration(const char *text, uint64_t *ret_ms, struct err *err); /* "500ms", "30s", "1h30m" */
int spec_parse_size(const char *text, uint64_t *ret_bytes, struct err *err);  /* "512Mi", "1.5Gi", "512M", "1024" */
void spec_print_duration(uint64_t ms, char out[32]);                          /* "5m", "1500ms": parse gives the same */
void spec_print_size(uint64_t bytes, char out[32]);                           /* "512Mi" */
bool spec_name_valid(const char *name);                                       /* ^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$ */

#endif
