/* A map from text to a pointer, sorted by key: small, ordered, and with ranges by prefix.
 *
 * A sorted array: what a daemon keeps in one is loaded in key order (then every insertion is at the end) and read far more often than it is changed.
 * Keys are copied; values are the owner's.
 * Threads: one owner. */
#ifndef ORCA_APISERVER_SMAP_H
#define ORCA_APISERVER_SMAP_H

#include <stddef.h>

struct api_smap_entry {
  char *key;
  void *value;
};
struct api_smap {
  struct api_smap_entry *list;
  size_t count, size;
};

/* The value's place, made with NULL in it when the key is new; good until the next change. NULL when memory ends. */
void **api_smap_slot(struct api_smap *map, const char *key);
void *api_smap_get(const struct api_smap *map, const char *key);
void *api_smap_take(struct api_smap *map, const char *key);         /* removes the entry; its value, NULL when there was none */
size_t api_smap_lower(const struct api_smap *map, const char *key); /* index of the first entry that is not before key */
/* Entries whose keys begin with prefix: the first one; *count of them. */
const struct api_smap_entry *api_smap_prefix(const struct api_smap *map, const char *prefix, size_t *count);

/* The entries under a prefix, asked for in the order of what follows it: then each costs a step instead of a search. For maps whose keys end alike.
 */
struct api_smap_walk {
  const struct api_smap_entry *list;
  size_t count, at, skip;
};
struct api_smap_walk api_smap_walk(const struct api_smap *map, const char *prefix);
void *api_smap_walk_to(struct api_smap_walk *walk, const char *rest); /* NULL when there is none; never looks back */

void api_smap_clear(struct api_smap *map, void (*free_value)(void *value)); /* free_value may be NULL */

#endif
