#include "orcactl/places.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/bus/pb.h"
#include "common/spec/read_file.h"
#include "common/toml/toml.h"

#define FILE_SIZE_MAX ((size_t)4 << 20)

static const struct toml_value *table_at(const struct toml_value *root, const struct spec_place *place) {
  static const char *const kinds[] = {"service", "job"};
  for (size_t k = 0; k < 2; k++) {
    const struct toml_value *list = toml_get(root, kinds[k]);
    for (size_t i = 0; list && list->type == TOML_ARRAY && i < list->array.count; i++)
      if (list->array.items[i]->type == TOML_TABLE && list->array.items[i]->line == place->line && list->array.items[i]->column == place->column)
        return list->array.items[i];
  }
  return NULL;
}

static bool walk(const struct toml_value *at, const char *key, unsigned *line, unsigned *column) {
  bool found = false;
  while (at && *key) {
    const struct toml_entry *entry = NULL;
    size_t len = strcspn(key, ".[");
    if (*key == '[' && at->type == TOML_ARRAY) {
      char *end;
      unsigned long i = strtoul(key + 1, &end, 10);
      at = *end == ']' && i < at->array.count ? at->array.items[i] : NULL;
      if (at) {
        *line = at->line;
        *column = at->column;
      }
      key = *end ? end + 1 : end;
    } else if (len && at->type == TOML_TABLE && (entry = toml_find(at, key, len))) {
      *line = entry->line;
      *column = entry->column;
      at = entry->value;
      found = true;
      key += len;
    } else {
      break;
    }
    key += *key == '.';
  }
  return found;
}

bool place_of_key(const char *dir, const struct spec_place *of, const char *key, unsigned *ret_line, unsigned *ret_column) {
  struct buf text = BUF_INIT(FILE_SIZE_MAX);
  struct err err;
  int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  bool found = false;
  if (fd >= 0 && spec_read_file(fd, of->file, &text, &err) == 0) {
    struct toml_doc *doc = toml_parse((const char *)text.data, text.len, NULL, NULL);
    const struct toml_value *table = doc ? table_at(toml_root(doc), of) : NULL;
    found = table && walk(table, key, ret_line, ret_column);
    toml_free(doc);
  }
  if (fd >= 0)
    close(fd);
  buf_free(&text);
  return found;
}

void places_refine(const char *dir, const struct spec_set *set, struct spec_faults *faults) {
  for (size_t f = 0; f < faults->count && set->place_count == set->service_count; f++) {
    struct spec_fault *fault = &faults->list[f];
    for (size_t i = 0; i < set->service_count; i++) {
      const struct spec_place *place = &set->places[i];
      char name[160];
      int len = snprintf(name, sizeof name, "%s/%s.", PB_STR(set->services[i]->project), PB_STR(set->services[i]->name));
      if (!*place->file || strcmp(fault->file, place->file) != 0 || fault->line != place->line || fault->column != place->column || len < 0 ||
          (size_t)len >= sizeof name || strncmp(fault->path, name, (size_t)len) != 0)
        continue;
      place_of_key(dir, place, fault->path + len, &fault->line, &fault->column);
      break;
    }
  }
}
