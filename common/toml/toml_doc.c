#include "common/toml/toml_doc.h"

#include <stdalign.h>
#include <stdlib.h>
#include <string.h>

#include "common/crypto/crypto.h"

#define CHUNK 8192
#define INDEX_FROM 12 /* tables with fewer keys are searched in a row */

struct chunk {
  struct chunk *next;
  size_t used, size;
  max_align_t data[];
};

void *toml_alloc(struct toml_doc *doc, size_t size) {
  if (size > SIZE_MAX / 2)
    return NULL;
  size = (size + alignof(max_align_t) - 1) & ~(alignof(max_align_t) - 1);
  struct chunk *chunk = doc->chunks;
  if (!chunk || chunk->size - chunk->used < size) {
    size_t room = size > CHUNK / 4 ? size : CHUNK;
    chunk = malloc(sizeof *chunk + room);
    if (!chunk)
      return NULL;
    chunk->used = 0;
    chunk->size = room;
    if (room > CHUNK / 4 && doc->chunks && room == size) { /* a large one of its own: the current one stays in use */
      chunk->next = doc->chunks->next;
      doc->chunks->next = chunk;
    } else {
      chunk->next = doc->chunks;
      doc->chunks = chunk;
    }
  }
  void *p = (char *)chunk->data + chunk->used;
  chunk->used += size;
  return memset(p, 0, size);
}

struct toml_doc *toml_doc_new(void) {
  struct toml_doc *doc = calloc(1, sizeof *doc);
  if (doc)
    doc->root = (struct toml_value){.type = TOML_TABLE, .origin = TOML_HEADER};
  return doc;
}

void toml_free(struct toml_doc *doc) {
  if (!doc)
    return;
  for (struct chunk *c = doc->chunks, *next; c; c = next) {
    next = c->next;
    free(c);
  }
  free(doc);
}

struct toml_value *toml_root(struct toml_doc *doc) {
  return &doc->root;
}

size_t toml_fault_count(const struct toml_doc *doc) {
  return doc->faults;
}

struct toml_value *toml_new(struct toml_doc *doc, enum toml_type type) {
  struct toml_value *v = toml_alloc(doc, sizeof *v);
  if (v) {
    v->type = type;
    v->origin = TOML_CLOSED;
  }
  return v;
}

static char *copy(struct toml_doc *doc, const char *s, size_t len) {
  char *p = len < SIZE_MAX / 2 ? toml_alloc(doc, len + 1) : NULL;
  if (p && len)
    memcpy(p, s, len);
  return p;
}

struct toml_value *toml_new_string(struct toml_doc *doc, const char *s, size_t len) {
  struct toml_value *v = toml_new(doc, TOML_STRING);
  if (!v || !(v->string.data = copy(doc, s, len)))
    return NULL;
  v->string.len = len;
  return v;
}

int toml_array_add(struct toml_doc *doc, struct toml_value *array, struct toml_value *value) {
  if (!value)
    return -1;
  if (array->array.count == array->array.size) {
    size_t size = array->array.size ? array->array.size * 2 : 4;
    struct toml_value **items = toml_alloc(doc, size * sizeof *items);
    if (!items)
      return -1;
    if (array->array.count)
      memcpy(items, array->array.items, array->array.count * sizeof *items);
    array->array.items = items;
    array->array.size = size;
  }
  array->array.items[array->array.count++] = value;
  return 0;
}

/* ---- tables: entries in a row, and above INDEX_FROM an open-addressed index of (entry number + 1) ---- */

static size_t hash(const char *key, size_t len) {
  return (size_t)crypto_table_hash(key, len);
}

static bool same(const struct toml_entry *e, const char *key, size_t len) {
  return e->key_len == len && memcmp(e->key, key, len) == 0;
}

struct toml_entry *toml_find(const struct toml_value *table, const char *key, size_t len) {
  if (!table || table->type != TOML_TABLE)
    return NULL;
  if (!table->table.index) {
    for (size_t i = 0; i < table->table.count; i++)
      if (same(&table->table.entries[i], key, len))
        return &table->table.entries[i];
    return NULL;
  }
  size_t mask = table->table.index_size - 1;
  for (size_t i = hash(key, len) & mask; table->table.index[i]; i = (i + 1) & mask) {
    struct toml_entry *e = &table->table.entries[table->table.index[i] - 1];
    if (same(e, key, len))
      return e;
  }
  return NULL;
}

struct toml_value *toml_get(const struct toml_value *table, const char *key) {
  struct toml_entry *e = toml_find(table, key, strlen(key));
  return e ? e->value : NULL;
}

static void index_put(struct toml_value *t, size_t number) {
  const struct toml_entry *e = &t->table.entries[number];
  size_t mask = t->table.index_size - 1, i = hash(e->key, e->key_len) & mask;
  while (t->table.index[i])
    i = (i + 1) & mask;
  t->table.index[i] = (uint32_t)number + 1;
}

struct toml_entry *toml_table_add(struct toml_doc *doc, struct toml_value *table, const char *key, size_t len, struct toml_value *value) {
  char *name = copy(doc, key, len);
  if (!name || !value)
    return NULL;
  if (table->table.count == table->table.size) {
    size_t size = table->table.size ? table->table.size * 2 : 6;
    struct toml_entry *entries = toml_alloc(doc, size * sizeof *entries);
    uint32_t *index = NULL;
    size_t index_size = 0;
    if (size > INDEX_FROM) {
      index_size = 32;
      while (index_size < size * 2)
        index_size *= 2;
      index = toml_alloc(doc, index_size * sizeof *index);
    }
    if (!entries || (index_size && !index) || size >= UINT32_MAX)
      return NULL;
    if (table->table.count)
      memcpy(entries, table->table.entries, table->table.count * sizeof *entries);
    table->table.entries = entries;
    table->table.size = size;
    table->table.index = index;
    table->table.index_size = index_size;
    if (index)
      for (size_t i = 0; i < table->table.count; i++)
        index_put(table, i);
  }
  struct toml_entry *e = &table->table.entries[table->table.count];
  *e = (struct toml_entry){.key = name, .key_len = len, .value = value};
  if (table->table.index)
    index_put(table, table->table.count);
  table->table.count++;
  return e;
}
