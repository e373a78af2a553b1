/* Small numbers for PROJECT/NAME, given once and kept for the process's life: counters hang on them.
 * Threads: one. */
#ifndef ORCA_PROXY_SERVICE_IDS_H
#define ORCA_PROXY_SERVICE_IDS_H

#include <stddef.h>
#include <stdint.h>

struct service_ids;
struct service_ids *service_ids_new(void);
void service_ids_free(struct service_ids *s);
uint32_t service_ids_get(struct service_ids *s, const char *name); /* UINT32_MAX when memory ends */
size_t service_ids_count(const struct service_ids *s);
const char *service_ids_name(const struct service_ids *s, uint32_t id);

#endif
