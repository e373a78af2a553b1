#include "common/spec/spec_set.h"

#include <stdlib.h>
#include <string.h>

#include "common/spec/spec_keys.h"

void spec_set_free(struct spec_set *set) {
  if (!set)
    return;
  for (size_t i = 0; i < set->service_count; i++)
    model__service_spec__free_unpacked(set->services[i], NULL);
  for (size_t i = 0; i < set->place_count; i++)
    free(set->places[i].file);
  free(set->services);
  free(set->places);
  if (set->cluster)
    model__cluster_spec__free_unpacked(set->cluster, NULL);
  for (size_t i = 0; i < set->file_count; i++)
    free(set->files[i].content);
  free(set->files);
  *set = (struct spec_set){0};
}

int spec_set_add(struct spec_set *set, struct spec_reader *r, const struct spec_table *table, const struct toml_value *value) {
  Model__ServiceSpec **services = reallocarray(set->services, set->service_count + 1, sizeof *services);
  if (services)
    set->services = services;
  struct spec_place *places = reallocarray(set->places, set->place_count + 1, sizeof *places);
  if (places)
    set->places = places;
  Model__ServiceSpec *spec = (Model__ServiceSpec *)spec_message_new(table->desc);
  char *file = strdup(r->file ? r->file : "");
  if (!services || !places || !spec || !file)
    goto memory;
  spec_read_table(r, table, value, spec);
  /* After a fault these may be unset; whoever gets the set may rely on them, and gets none with faults. */
  if ((!spec->name && !(spec->name = strdup(""))) || (!spec->project && !(spec->project = strdup(r->project ? r->project : "default"))))
    goto memory;
  set->services[set->service_count++] = spec;
  set->places[set->place_count++] = (struct spec_place){file, value->line, value->column};
  return 0;
memory:
  if (spec)
    model__service_spec__free_unpacked(spec, NULL);
  free(file);
  return -1;
}

int spec_set_add_file(struct spec_set *set, const char sha256[65], uint8_t *content, size_t len) {
  for (size_t i = 0; i < set->file_count; i++) {
    if (strcmp(set->files[i].sha256, sha256) == 0) {
      free(content);
      return 0;
    }
  }
  struct spec_file *files = reallocarray(set->files, set->file_count + 1, sizeof *files);
  if (!files) {
    free(content);
    return -1;
  }
  set->files = files;
  struct spec_file *f = &files[set->file_count++];
  memcpy(f->sha256, sha256, 65);
  f->content = content;
  f->len = len;
  return 0;
}

/* ---- from TOML text ---- */

static void syntax_fault(void *arg, unsigned line, unsigned column, const char *message) {
  struct spec_reader *r = arg;
  if (spec_fault_add(r->faults, r->file, line, column, "", "%s", message) < 0)
    r->memory = true;
}

int spec_parse_file(struct spec_reader *r, const char *text, size_t len, const struct spec_table *table, void *target) {
  size_t first = r->faults->count;
  r->path = BUF_INIT(1024);
  struct toml_doc *doc = toml_parse(text, len, syntax_fault, r);
  if (doc) {
    r->partial = toml_fault_count(doc) > 0;
    spec_read_table(r, table, toml_root(doc), target);
  }
  if (!doc || r->memory)
    spec_fault_add(r->faults, r->file, 0, 0, "", "out of memory");
  toml_free(doc);
  buf_free(&r->path);
  spec_faults_sort(r->faults, first);
  return r->faults->count == first ? 0 : -1;
}

int spec_parse_services(const char *file, const char *text, size_t len, const char *project, struct spec_set *ret, struct spec_faults *faults) {
  struct spec_set set = {0};
  struct spec_reader r = {.faults = faults, .file = file, .project = project};
  if (spec_parse_file(&r, text, len, &spec_service_file, &set) < 0) {
    spec_set_free(&set);
    return -1;
  }
  *ret = set;
  return 0;
}

int spec_parse_cluster(const char *file, const char *text, size_t len, Model__ClusterSpec **ret, struct spec_faults *faults) {
  Model__ClusterSpec *cluster = (Model__ClusterSpec *)spec_message_new(&model__cluster_spec__descriptor);
  struct spec_reader r = {.faults = faults, .file = file};
  if (!cluster) {
    spec_fault_add(faults, file, 0, 0, "", "out of memory");
    return -1;
  }
  if (spec_parse_file(&r, text, len, &spec_cluster_file, cluster) < 0) {
    model__cluster_spec__free_unpacked(cluster, NULL);
    return -1;
  }
  *ret = cluster;
  return 0;
}
