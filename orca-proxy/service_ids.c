#include "orca-proxy/service_ids.h"

#include <stdlib.h>
#include <string.h>

struct service_ids {
  char **names;
  size_t count, size;
  uint32_t *hash; /* id + 1 */
  size_t mask;
};

struct service_ids *service_ids_new(void) {
  return calloc(1, sizeof(struct service_ids));
}

void service_ids_free(struct service_ids *s) {
  if (!s)
    return;
  for (size_t i = 0; i < s->count; i++)
    free(s->names[i]);
  free(s->names);
  free(s->hash);
  free(s);
}

static uint32_t *place(const struct service_ids *s, const char *name) {
  uint64_t h = UINT64_C(0xcbf29ce484222325);
  for (const char *c = name; *c; c++)
    h = (h ^ (uint8_t)*c) * UINT64_C(0x100000001b3);
  size_t i = (size_t)(h ^ h >> 29) & s->mask;
  while (s->hash[i] && strcmp(s->names[s->hash[i] - 1], name) != 0)
    i = (i + 1) & s->mask;
  return &s->hash[i];
}

static int grow(struct service_ids *s) {
  size_t size = s->size ? s->size * 2 : 64;
  char **names = reallocarray(s->names, size, sizeof(char *));
  if (!names)
    return -1;
  s->names = names;
  uint32_t *hash = calloc(size * 2, sizeof *hash);
  if (!hash)
    return -1;
  free(s->hash);
  s->hash = hash;
  s->size = size;
  s->mask = size * 2 - 1;
  for (size_t i = 0; i < s->count; i++)
    *place(s, s->names[i]) = (uint32_t)i + 1;
  return 0;
}

uint32_t service_ids_get(struct service_ids *s, const char *name) {
  if (s->count == s->size && grow(s) < 0)
    return UINT32_MAX;
  uint32_t *at = place(s, name);
  if (*at)
    return *at - 1;
  char *copy = strdup(name);
  if (!copy)
    return UINT32_MAX;
  s->names[s->count++] = copy;
  *at = (uint32_t)s->count;
  return *at - 1;
}

size_t service_ids_count(const struct service_ids *s) {
  return s->count;
}

const char *service_ids_name(const struct service_ids *s, uint32_t id) {
  return s->names[id];
}
