#include "orcactl/infra.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "orcactl/api.h"
#include "orcactl/places.h"
#include "orcactl/text.h"

static bool means(const Model__ServiceSpec *s, const char *name) {
  const char *slash = strchr(name, '/');
  if (!slash)
    return strcmp(PB_STR(s->name), name) == 0;
  const char *project = PB_STR(s->project);
  return strcmp(PB_STR(s->name), slash + 1) == 0 && strlen(project) == (size_t)(slash - name) && strncmp(project, name, strlen(project)) == 0;
}

static const char *service_name(const void *list, size_t i) {
  const struct spec_set *set = list;
  return i < set->service_count ? PB_STR(set->services[i]->name) : NULL;
}

static bool is_mounted(const struct spec_set *set, const char *sha256) {
  for (size_t i = 0; i < set->service_count; i++)
    for (size_t m = 0; m < set->services[i]->n_mounts; m++)
      for (size_t f = 0; f < set->services[i]->mounts[m]->n_files; f++)
        if (strcmp(PB_STR(set->services[i]->mounts[m]->files[f]->sha256), sha256) == 0)
          return true;
  return false;
}

int infra_keep(struct spec_set *set, const char *const *names, int count, struct err *err) {
  for (int k = 0; k < count; k++) {
    bool found = false;
    for (size_t i = 0; i < set->service_count && !found; i++)
      found = means(set->services[i], names[k]);
    if (!found) {
      const char *near = ctl_nearest(names[k], service_name, set);
      return near ? err_set(err, ERR_NOT_FOUND, "the infra directory has no service %s: did you mean %s?", names[k], near)
                  : err_set(err, ERR_NOT_FOUND, "the infra directory has no service %s", names[k]);
    }
  }
  size_t kept = 0;
  bool placed = set->place_count == set->service_count;
  for (size_t i = 0; i < set->service_count; i++) {
    bool keep = false;
    for (int k = 0; k < count && !keep; k++)
      keep = means(set->services[i], names[k]);
    if (placed && keep) {
      struct spec_place other = set->places[kept];
      set->places[kept] = set->places[i];
      set->places[i] = other;
    }
    if (keep)
      set->services[kept++] = set->services[i];
    else
      model__service_spec__free_unpacked(set->services[i], NULL);
  }
  set->service_count = kept;
  for (; placed && set->place_count > kept; set->place_count--)
    free(set->places[set->place_count - 1].file);
  if (set->cluster)
    model__cluster_spec__free_unpacked(set->cluster, NULL);
  set->cluster = NULL;
  kept = 0;
  for (size_t i = 0; i < set->file_count; i++)
    if (is_mounted(set, set->files[i].sha256))
      set->files[kept++] = set->files[i];
    else
      free(set->files[i].content);
  set->file_count = kept;
  return 0;
}

/* Which of the set is number n of the body's "services" or "jobs". */
static size_t in_body(const struct spec_set *set, bool jobs, unsigned long n) {
  for (size_t i = 0; i < set->service_count; i++)
    if ((set->services[i]->job != NULL) == jobs && n-- == 0)
      return i;
  return SIZE_MAX;
}

void infra_name_faults(const char *dir, const struct spec_set *set, json_t *details, struct err *err) {
  size_t i;
  json_t *one;
  json_array_foreach(details, i, one) {
    const char *path = api_str(one, "path");
    char *end;
    bool jobs = strncmp(path, "jobs[", 5) == 0;
    if (!jobs && strncmp(path, "services[", 9) != 0)
      continue;
    size_t of = in_body(set, jobs, strtoul(path + (jobs ? 5 : 9), &end, 10));
    if (*end != ']' || of == SIZE_MAX)
      continue;
    const char *key = end[1] == '.' ? end + 2 : end + 1;
    struct spec_place none = {0}, place = dir && set->place_count == set->service_count ? set->places[of] : none;
    char where[200] = "";
    if (place.file && *place.file) {
      place_of_key(dir, &set->places[of], key, &place.line, &place.column);
      snprintf(where, sizeof where, "%.160s:%u:%u: ", place.file, place.line, place.column);
    }
    json_t *named = json_sprintf("%s%s/%s%s%s", where, PB_STR(set->services[of]->project), PB_STR(set->services[of]->name), *key ? ": " : "", key);
    json_object_set_new(one, "path", named);
  }
  one = json_array_size(details) == 1 ? json_array_get(details, 0) : NULL;
  if (one && err)
    err_set(err, err->code, "%s: %s", api_str(one, "path"), api_str(one, "message"));
}

int infra_refused(struct ctl *ctl, const struct spec_set *set, struct err *err) {
  struct err none;
  char *dir = ctl_infra_dir(ctl, &none);
  infra_name_faults(dir, set, ctl->details, err);
  free(dir);
  return ctl_fail(ctl, err);
}

static void print_faults(const struct spec_faults *faults) {
  for (size_t i = 0; i < faults->count; i++) {
    struct buf raw = BUF_INIT((size_t)1 << 20), text = BUF_INIT((size_t)1 << 20);
    spec_fault_print(&faults->list[i], &raw);
    text_clean(buf_str(&raw), &text);
    fprintf(stderr, "%s\n", buf_str(&text));
    buf_free(&raw);
    buf_free(&text);
  }
}

/* Each with its place, as editors read them; then how many. */
static int refuse(struct ctl *ctl, const char *dir, const struct spec_faults *faults, struct err *err) {
  print_faults(faults);
  if (faults->count)
    err_set(err, ERR_INVALID, "%zu fault%s in %s: nothing was changed", faults->count, faults->count == 1 ? "" : "s", dir);
  return ctl_fail(ctl, err);
}

static const char *from_environment(const char *name) {
  return getenv(name);
}

int infra_load(struct ctl *ctl, struct spec_set *ret, json_t **body) {
  struct err err;
  struct spec_set set = {0};
  struct spec_faults faults = {0};
  char *dir = ctl_infra_dir(ctl, &err);
  int rc;
  *body = NULL;
  if (!dir) {
    ctl_fail(ctl, &err);
    return CTL_USAGE;
  }
  if (spec_read_infra(dir, &set, &faults, &err) < 0 || (ctl->argc && infra_keep(&set, (const char *const *)ctl->argv, ctl->argc, &err) < 0)) {
    places_refine(dir, &set, &faults);
    rc = refuse(ctl, dir, &faults, &err);
  } else if (spec_resolve_env(&set, from_environment, &faults) < 0 || faults.count) {
    rc = refuse(ctl, dir, &faults, &err);
  } else if (!(*body = spec_set_to_json(&set))) {
    err_set(&err, ERR_MEMORY, "no memory for a deploy");
    rc = ctl_fail(ctl, &err);
  } else {
    *ret = set;
    set = (struct spec_set){0};
    rc = CTL_OK;
  }
  spec_set_free(&set);
  spec_faults_free(&faults);
  free(dir);
  return rc;
}
