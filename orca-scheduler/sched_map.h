/* A hash map from text to pointers: services and nodes by name.
 *
 * Keys are borrowed: the value owns its key's text, and must be removed before that is freed.
 * Threads: none; one owner. */
#ifndef ORCA_SCHEDULER_SCHED_MAP_H
#define ORCA_SCHEDULER_SCHED_MAP_H

#include <stddef.h>
#include <stdint.h>

struct sched_map_slot {
  const char *key; /* NULL: free */
  void *value;
  uint32_t hash;
};

struct sched_map {
  struct sched_map_slot *slots;
  size_t size, count; /* size is a power of two or 0 */
};

void sched_map_fini(struct sched_map *map); /* the values are the caller's */
void *sched_map_get(const struct sched_map *map, const char *key);
int sched_map_put(struct sched_map *map, const char *key, void *value); /* the key must not be in it; -1 when memory ends */
void sched_map_remove(struct sched_map *map, const char *key);

#endif
