#include "orca-scheduler/sched_map.h"

#include <stdlib.h>
#include <string.h>

static uint32_t hash_of(const char *key) {
  uint32_t h = 2166136261u; /* FNV-1a: keys are names that the API has checked, not a peer's choice of collisions */
  for (; *key; key++)
    h = (h ^ (unsigned char)*key) * 16777619u;
  return h;
}

static size_t find(const struct sched_map *map, const char *key, uint32_t hash) {
  size_t i = hash & (map->size - 1);
  while (map->slots[i].key && (map->slots[i].hash != hash || strcmp(map->slots[i].key, key) != 0))
    i = (i + 1) & (map->size - 1);
  return i;
}

void sched_map_fini(struct sched_map *map) {
  free(map->slots);
  *map = (struct sched_map){0};
}

void *sched_map_get(const struct sched_map *map, const char *key) {
  return map->size ? map->slots[find(map, key, hash_of(key))].value : NULL;
}

static int grow(struct sched_map *map) {
  size_t size = map->size ? map->size * 2 : 64;
  struct sched_map bigger = {.slots = calloc(size, sizeof *bigger.slots), .size = size, .count = map->count};
  if (!bigger.slots)
    return -1;
  for (size_t i = 0; i < map->size; i++)
    if (map->slots[i].key)
      bigger.slots[find(&bigger, map->slots[i].key, map->slots[i].hash)] = map->slots[i];
  free(map->slots);
  *map = bigger;
  return 0;
}

int sched_map_put(struct sched_map *map, const char *key, void *value) {
  if (map->count * 4 >= map->size * 3 && grow(map) < 0)
    return -1;
  uint32_t hash = hash_of(key);
  map->slots[find(map, key, hash)] = (struct sched_map_slot){key, value, hash};
  map->count++;
  return 0;
}

void sched_map_remove(struct sched_map *map, const char *key) {
  if (!map->size)
    return;
  size_t hole = find(map, key, hash_of(key));
  if (!map->slots[hole].key)
    return;
  map->count--;
  /* Close the gap: move back whatever could not be found past the hole. */
  for (size_t i = (hole + 1) & (map->size - 1); map->slots[i].key; i = (i + 1) & (map->size - 1)) {
    size_t home = map->slots[i].hash & (map->size - 1);
    if (((i - home) & (map->size - 1)) >= ((i - hole) & (map->size - 1))) {
      map->slots[hole] = map->slots[i];
      hole = i;
    }
  }
  map->slots[hole] = (struct sched_map_slot){0};
}
