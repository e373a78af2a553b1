#include "orca-apiserver/smap.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

size_t api_smap_lower(const struct api_smap *map, const char *key) {
  /* Most insertions come in order: look at the end first. */
  if (map->count && strcmp(map->list[map->count - 1].key, key) < 0)
    return map->count;
  size_t from = 0, to = map->count;
  while (from < to) {
    size_t mid = from + (to - from) / 2;
    if (strcmp(map->list[mid].key, key) < 0)
      from = mid + 1;
    else
      to = mid;
  }
  return from;
}

static bool holds(const struct api_smap *map, size_t i, const char *key) {
  return i < map->count && strcmp(map->list[i].key, key) == 0;
}

void **api_smap_slot(struct api_smap *map, const char *key) {
  size_t i = api_smap_lower(map, key);
  if (holds(map, i, key))
    return &map->list[i].value;
  if (map->count == map->size) {
    size_t size = map->size ? map->size * 2 : 8;
    struct api_smap_entry *list = reallocarray(map->list, size, sizeof *list);
    if (!list)
      return NULL;
    map->list = list;
    map->size = size;
  }
  char *copy = strdup(key);
  if (!copy)
    return NULL;
  memmove(&map->list[i + 1], &map->list[i], (map->count - i) * sizeof map->list[0]);
  map->list[i] = (struct api_smap_entry){.key = copy};
  map->count++;
  return &map->list[i].value;
}

void *api_smap_get(const struct api_smap *map, const char *key) {
  size_t i = api_smap_lower(map, key);
  return holds(map, i, key) ? map->list[i].value : NULL;
}

void *api_smap_take(struct api_smap *map, const char *key) {
  size_t i = api_smap_lower(map, key);
  if (!holds(map, i, key))
    return NULL;
  void *value = map->list[i].value;
  free(map->list[i].key);
  map->count--;
  memmove(&map->list[i], &map->list[i + 1], (map->count - i) * sizeof map->list[0]);
  return value;
}

const struct api_smap_entry *api_smap_prefix(const struct api_smap *map, const char *prefix, size_t *count) {
  size_t len = strlen(prefix), from = api_smap_lower(map, prefix), to = map->count, low = from;
  for (size_t step = 4; from + step < map->count; step *= 2) /* most ranges are short: the end is looked for from near */
    if (strncmp(map->list[from + step].key, prefix, len) != 0) {
      to = from + step;
      break;
    }
  while (low < to) { /* the first one behind the range */
    size_t mid = low + (to - low) / 2;
    if (strncmp(map->list[mid].key, prefix, len) == 0)
      low = mid + 1;
    else
      to = mid;
  }
  *count = low - from;
  return map->list ? map->list + from : NULL;
}

struct api_smap_walk api_smap_walk(const struct api_smap *map, const char *prefix) {
  struct api_smap_walk walk = {.skip = strlen(prefix)};
  walk.list = api_smap_prefix(map, prefix, &walk.count);
  return walk;
}

void *api_smap_walk_to(struct api_smap_walk *walk, const char *rest) {
  for (; walk->at < walk->count; walk->at++) {
    int order = strcmp(walk->list[walk->at].key + walk->skip, rest);
    if (order >= 0)
      return order == 0 ? walk->list[walk->at].value : NULL;
  }
  return NULL;
}

void api_smap_clear(struct api_smap *map, void (*free_value)(void *value)) {
  for (size_t i = 0; i < map->count; i++) {
    free(map->list[i].key);
    if (free_value)
      free_value(map->list[i].value);
  }
  free(map->list);
  *map = (struct api_smap){0};
}
