#include "orca-agent/docker_parse.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/loop.h"
#include "common/spec/spec.h"
#include "common/image_ref.h"

#define MAX_ITEMS 20000u

static const char *text_of(const json_t *object, const char *key) {
  const char *s = json_string_value(json_object_get(object, key));
  return s ? s : "";
}

/* Copies only what fits whole: half a name is another name. */
static void copy_whole(char *to, size_t size, const char *from) {
  size_t len = strlen(from);
  if (len >= size)
    len = 0;
  memcpy(to, from, len);
  to[len] = 0;
}

static uint64_t number_of(const char *s) {
  if (*s < '0' || *s > '9' || strlen(s) > 19)
    return 0;
  char *end;
  uint64_t n = strtoull(s, &end, 10);
  return *end ? 0 : n;
}

static bool hex_id(const char *s) {
  size_t len = strlen(s);
  return len >= 12 && len < AGENT_CONTAINER_ID && strspn(s, "0123456789abcdef") == len;
}

static int64_t two(const char *s) {
  return s[0] >= '0' && s[0] <= '9' && s[1] >= '0' && s[1] <= '9' ? (s[0] - '0') * 10 + (s[1] - '0') : -1;
}

int64_t docker_parse_time(const char *text) {
  if (strlen(text) < 20 || text[4] != '-' || text[7] != '-' || text[10] != 'T' || text[13] != ':' || text[16] != ':')
    return 0;
  int64_t century = two(text), year = two(text + 2), month = two(text + 5), day = two(text + 8);
  int64_t hour = two(text + 11), minute = two(text + 14), second = two(text + 17);
  if (century < 0 || year < 0 || month < 1 || month > 12 || day < 1 || day > 31 || hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 ||
      second > 60)
    return 0;
  year += century * 100;
  if (year < 1970 || year > 2200)
    return 0;
  const char *p = text + 19;
  int64_t nanos = 0, scale = 100000000;
  if (*p == '.')
    for (p++; *p >= '0' && *p <= '9'; p++, scale /= 10)
      nanos += (*p - '0') * scale;
  int64_t offset = 0;
  if (*p == '+' || *p == '-') {
    if (strlen(p) != 6 || two(p + 1) < 0 || two(p + 4) < 0)
      return 0;
    offset = (two(p + 1) * 60 + two(p + 4)) * 60 * (*p == '+' ? 1 : -1);
  } else if (strcmp(p, "Z") != 0) {
    return 0;
  }
  struct tm tm = {
      .tm_year = (int)year - 1900, .tm_mon = (int)month - 1, .tm_mday = (int)day, .tm_hour = (int)hour, .tm_min = (int)minute, .tm_sec = (int)second};
  return ((int64_t)timegm(&tm) - offset) * NS_PER_SEC + nanos;
}

static bool labelled(const json_t *labels, const struct docker_self *self) {
  return strcmp(text_of(labels, AGENT_LABEL_CLUSTER), self->cluster_id) == 0 && strcmp(text_of(labels, AGENT_LABEL_NODE), self->node) == 0;
}

static void read_labels(const json_t *labels, const struct docker_self *self, struct agent_container *c) {
  const char *project = text_of(labels, AGENT_LABEL_PROJECT), *service = text_of(labels, AGENT_LABEL_SERVICE);
  c->number = number_of(text_of(labels, AGENT_LABEL_INSTANCE));
  c->revision = number_of(text_of(labels, AGENT_LABEL_REVISION));
  c->epoch = number_of(text_of(labels, AGENT_LABEL_EPOCH));
  copy_whole(c->spec_hash, sizeof c->spec_hash, text_of(labels, AGENT_LABEL_SPEC));
  copy_whole(c->secrets, sizeof c->secrets, text_of(labels, AGENT_LABEL_SECRETS));
  const char *restart = text_of(labels, AGENT_LABEL_RESTART);
  c->restart = strcmp(restart, "never") == 0        ? MODEL__RESTART_POLICY__RESTART_NEVER
               : strcmp(restart, "on-failure") == 0 ? MODEL__RESTART_POLICY__RESTART_ON_FAILURE
                                                    : MODEL__RESTART_POLICY__RESTART_ALWAYS;
  c->ours = labelled(labels, self) && c->number && strlen(project) < sizeof c->project && strlen(service) < sizeof c->service &&
            spec_name_valid(project) && spec_name_valid(service);
  if (c->ours) {
    copy_whole(c->project, sizeof c->project, project);
    copy_whole(c->service, sizeof c->service, service);
  }
}

static enum agent_cstate state_of(const char *status) {
  static const struct {
    const char *text;
    enum agent_cstate state;
  } states[] = {{"created", AGENT_C_CREATED}, {"running", AGENT_C_RUNNING}, {"paused", AGENT_C_RUNNING}, {"restarting", AGENT_C_RUNNING},
                {"exited", AGENT_C_EXITED},   {"removing", AGENT_C_BROKEN}, {"dead", AGENT_C_BROKEN}};
  for (size_t n = 0; n < sizeof states / sizeof *states; n++)
    if (strcmp(status, states[n].text) == 0)
      return states[n].state;
  return AGENT_C_UNKNOWN;
}

/* networks: {"NAME": {"IPAddress": …}}. A container of ours is on one. */
static void read_network(const json_t *networks, const char *mode, struct agent_container *c) {
  c->host_network = strcmp(mode, "host") == 0;
  if (c->host_network)
    return;
  copy_whole(c->network, sizeof c->network, mode);
  const char *name;
  json_t *value;
  json_object_foreach((json_t *)(uintptr_t)networks, name, value) {
    const char *address = text_of(value, "IPAddress");
    if (*mode && strcmp(name, mode) != 0)
      continue;
    copy_whole(c->network, sizeof c->network, name);
    if (strspn(address, "0123456789abcdefABCDEF.:") == strlen(address))
      copy_whole(c->address, sizeof c->address, address);
    return;
  }
}

int docker_parse_list(const json_t *json, const struct docker_self *self, struct agent_container **ret, size_t *ret_count, struct err *err) {
  size_t count = json_array_size(json);
  if (!json_is_array(json) || count > MAX_ITEMS)
    return err_set(err, ERR_INVALID, "Docker's list of containers is not a list, or too long");
  struct agent_container *list = calloc(count ? count : 1, sizeof *list);
  if (!list)
    return err_set(err, ERR_MEMORY, "no memory for a list of containers");
  size_t n = 0;
  for (size_t at = 0; at < count; at++) {
    const json_t *one = json_array_get(json, at);
    struct agent_container *c = &list[n];
    *c = (struct agent_container){0};
    const char *id = text_of(one, "Id");
    const char *name = json_string_value(json_array_get(json_object_get(one, "Names"), 0));
    if (!hex_id(id) || !name)
      continue;
    copy_whole(c->id, sizeof c->id, id);
    copy_whole(c->name, sizeof c->name, name + (*name == '/'));
    read_labels(json_object_get(one, "Labels"), self, c);
    c->state = state_of(text_of(one, "State"));
    read_network(json_object_get(json_object_get(one, "NetworkSettings"), "Networks"), text_of(json_object_get(one, "HostConfig"), "NetworkMode"), c);
    n++;
  }
  *ret = list;
  *ret_count = n;
  return 0;
}

int docker_parse_inspect(const json_t *json, const struct docker_self *self, struct agent_container *ret, struct err *err) {
  struct agent_container c = {.detailed = true};
  const char *id = text_of(json, "Id"), *name = text_of(json, "Name");
  const json_t *state = json_object_get(json, "State");
  if (!hex_id(id) || !json_is_object(state))
    return err_set(err, ERR_INVALID, "Docker's answer does not describe a container");
  copy_whole(c.id, sizeof c.id, id);
  copy_whole(c.name, sizeof c.name, name + (*name == '/'));
  read_labels(json_object_get(json_object_get(json, "Config"), "Labels"), self, &c);
  c.state = state_of(text_of(state, "Status"));
  c.started_ns = docker_parse_time(text_of(state, "StartedAt"));
  c.finished_ns = docker_parse_time(text_of(state, "FinishedAt"));
  json_int_t code = json_integer_value(json_object_get(state, "ExitCode"));
  c.exit_code = code >= INT32_MIN && code <= INT32_MAX ? (int32_t)code : -1;
  c.oom_killed = json_is_true(json_object_get(state, "OOMKilled"));
  json_int_t pid = json_integer_value(json_object_get(state, "Pid"));
  c.pid = pid > 0 && pid < INT32_MAX ? (pid_t)pid : 0;
  read_network(json_object_get(json_object_get(json, "NetworkSettings"), "Networks"), text_of(json_object_get(json, "HostConfig"), "NetworkMode"),
               &c);
  *ret = c;
  return 0;
}

int docker_parse_networks(const json_t *json, const struct docker_self *self, struct agent_found_network **ret, size_t *ret_count, struct err *err) {
  size_t count = json_array_size(json);
  if (!json_is_array(json) || count > MAX_ITEMS)
    return err_set(err, ERR_INVALID, "Docker's list of networks is not a list, or too long");
  struct agent_found_network *list = calloc(count ? count : 1, sizeof *list);
  if (!list)
    return err_set(err, ERR_MEMORY, "no memory for a list of networks");
  size_t n = 0;
  for (size_t at = 0; at < count; at++) {
    const json_t *one = json_array_get(json, at), *labels = json_object_get(one, "Labels");
    const char *name = text_of(one, "Name");
    const char *id = text_of(one, "Id");
    if (!*name || !hex_id(id) || strlen(name) >= AGENT_NAME_MAX || strcmp(text_of(labels, AGENT_LABEL_CLUSTER), self->cluster_id) != 0)
      continue;
    copy_whole(list[n].name, sizeof list[n].name, name);
    copy_whole(list[n].project, sizeof list[n].project, text_of(labels, AGENT_LABEL_PROJECT));
    copy_whole(list[n].id, sizeof list[n].id, id);
    list[n].created_ns = docker_parse_time(text_of(one, "Created"));
    list[n].ours = labelled(labels, self);
    n++;
  }
  *ret = list;
  *ret_count = n;
  return 0;
}

int docker_parse_image(const json_t *json, const char *ref, char id[AGENT_IMAGE_MAX], char digest[AGENT_IMAGE_MAX], struct err *err) {
  const char *found = text_of(json, "Id");
  if (!image_ref_is_id(found))
    return err_set(err, ERR_INVALID, "Docker's answer does not describe an image");
  copy_whole(id, AGENT_IMAGE_MAX, found);
  digest[0] = 0;
  const json_t *digests = json_object_get(json, "RepoDigests");
  for (size_t at = 0; at < json_array_size(digests) && at < MAX_ITEMS; at++) {
    const char *one = json_string_value(json_array_get(digests, at));
    if (one && image_ref_same_repository(one, ref)) {
      copy_whole(digest, AGENT_IMAGE_MAX, one);
      break;
    }
  }
  return 0;
}

bool docker_parse_event(const json_t *json, const struct docker_self *self, struct agent_event *ret) {
  static const struct {
    const char *action;
    enum agent_container_event what;
  } actions[] = {{"start", AGENT_CE_START}, {"die", AGENT_CE_DIE}, {"oom", AGENT_CE_OOM}, {"destroy", AGENT_CE_DESTROY}};
  const json_t *actor = json_object_get(json, "Actor"), *attributes = json_object_get(actor, "Attributes");
  const char *id = text_of(actor, "ID");
  json_int_t at = json_integer_value(json_object_get(json, "timeNano"));
  if (strcmp(text_of(json, "Type"), "container") != 0 || !hex_id(id) || at <= 0 || !labelled(attributes, self))
    return false;
  for (size_t n = 0; n < sizeof actions / sizeof *actions; n++) {
    if (strcmp(text_of(json, "Action"), actions[n].action) != 0)
      continue;
    *ret = (struct agent_event){.kind = AGENT_EV_CONTAINER, .what = actions[n].what, .container_id = id, .time_ns = at};
    uint64_t code = number_of(text_of(attributes, "exitCode"));
    ret->exit_code = code <= INT32_MAX ? (int32_t)code : -1;
    return true;
  }
  return false;
}

bool docker_pull_line(struct docker_pull *pull, const json_t *line) {
  const char *error = text_of(line, "error");
  if (*error) {
    snprintf(pull->error, sizeof pull->error, "%s", error);
    return false;
  }
  const char *id = text_of(line, "id"), *status = text_of(line, "status");
  const json_t *detail = json_object_get(line, "progressDetail");
  if (!*id || strlen(id) >= sizeof pull->layers[0].id || strncmp(status, "Pulling from", 12) == 0)
    return false;
  size_t n = 0;
  while (n < pull->count && strcmp(pull->layers[n].id, id) != 0)
    n++;
  if (n == pull->count) {
    if (pull->count == DOCKER_PULL_LAYERS)
      return false;
    pull->count++;
    copy_whole(pull->layers[n].id, sizeof pull->layers[n].id, id);
  }
  json_int_t current = json_integer_value(json_object_get(detail, "current")), total = json_integer_value(json_object_get(detail, "total"));
  if (strcmp(status, "Downloading") == 0 && total > 0 && current >= 0 && current <= total && total < INT64_C(1) << 50) {
    pull->layers[n].current = current;
    pull->layers[n].total = total;
  } else if (strcmp(status, "Download complete") == 0) {
    pull->layers[n].current = pull->layers[n].total;
  } else if (strcmp(status, "Pull complete") == 0 || strcmp(status, "Already exists") == 0) {
    pull->layers[n].current = pull->layers[n].total;
    pull->layers[n].done = true;
  }
  return true;
}

void docker_pull_text(const struct docker_pull *pull, char out[64]) {
  size_t done = 0;
  int64_t current = 0, total = 0;
  for (size_t n = 0; n < pull->count; n++) {
    done += pull->layers[n].done;
    current += pull->layers[n].current;
    total += pull->layers[n].total;
  }
  if (total > 0)
    snprintf(out, 64, "%zu of %zu layers, %d %%", done, pull->count, (int)((double)current * 100 / (double)total));
  else
    snprintf(out, 64, "%zu of %zu layers", done, pull->count);
}
