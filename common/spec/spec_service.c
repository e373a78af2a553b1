/* Keys with a spelling of their own, and rules over several keys of one table. */
#include "common/spec/spec_keys.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/spec/spec_set.h"

/* A fault of one key of a table, at that key's value, or at the table when it is not written. */
#define KEY_FAULT(r, table_, key_, ...)                                                                                                              \
  do {                                                                                                                                               \
    size_t mark_ = spec_path_push((r), ".%s", (key_));                                                                                               \
    const struct toml_value *at_ = toml_get((table_), (key_));                                                                                       \
    spec_fault((r), at_ ? at_ : (table_), __VA_ARGS__);                                                                                              \
    spec_path_pop((r), mark_);                                                                                                                       \
  } while (0)

void spec_read_replicas(struct spec_reader *r, const struct spec_key *key, const struct toml_value *value, void *target) {
  Model__ServiceSpec *spec = target;
  if (value->type == TOML_STRING && strcmp(value->string.data, "auto") == 0)
    spec_fault(r, value, "not supported yet: replicas = \"auto\"");
  else if (value->type != TOML_INTEGER)
    spec_fault(r, value, "expected an integer, found a%s %s", toml_type_name(value->type)[0] == 'a' ? "n" : "", toml_type_name(value->type));
  else if (value->integer < key->min || value->integer > key->max)
    spec_fault(r, value, "must be between %lld and %lld", (long long)key->min, (long long)key->max);
  else {
    spec->has_replicas = 1;
    spec->replicas = (uint32_t)value->integer;
  }
}

/* ---- extra_ports: "HOST:CONTAINER[/udp]" ---- */

static const char *port_number(const char *s, uint32_t *ret) {
  uint32_t v = 0;
  const char *c = s;
  while (*c >= '0' && *c <= '9' && v < 65536)
    v = v * 10 + (uint32_t)(*c++ - '0');
  *ret = v;
  return c > s && v >= 1 && v <= 65535 ? c : NULL;
}

static bool port_map(const char *text, Model__PortMap *map) {
  uint32_t host, container;
  const char *s = port_number(text, &host);
  if (!s || *s != ':' || !(s = port_number(s + 1, &container)))
    return false;
  bool udp = strcmp(s, "/udp") == 0;
  if (*s && !udp && strcmp(s, "/tcp") != 0)
    return false;
  map->has_host_port = map->has_container_port = 1;
  map->host_port = host;
  map->container_port = container;
  map->has_protocol = udp;
  map->protocol = udp ? MODEL__PROTOCOL__UDP : MODEL__PROTOCOL__TCP;
  return true;
}

void spec_read_ports(struct spec_reader *r, const struct spec_key *key, const struct toml_value *value, void *target) {
  if (value->type != TOML_ARRAY) {
    spec_fault(r, value, "expected an array of strings like \"22222:22\" or \"53:53/udp\"");
    return;
  }
  for (size_t i = 0; i < value->array.count; i++) {
    size_t mark = spec_path_push(r, "[%zu]", i);
    const struct toml_value *item = value->array.items[i];
    const char *text = spec_read_string(r, key, item);
    Model__PortMap map = MODEL__PORT_MAP__INIT;
    if (text && !port_map(text, &map)) {
      spec_fault(r, item, "must be HOST:CONTAINER or HOST:CONTAINER/udp, ports between 1 and 65535");
    } else if (text) {
      Model__PortMap *copy = malloc(sizeof *copy);
      if (copy)
        *copy = map;
      if (spec_repeated_add(target, key->field, copy) < 0)
        r->memory = true;
    }
    spec_path_pop(r, mark);
  }
}

struct toml_value *spec_write_ports(struct toml_doc *doc, const struct spec_key *key, const ProtobufCMessage *msg, bool *absent) {
  const Model__ServiceSpec *spec = (const Model__ServiceSpec *)msg;
  (void)key;
  *absent = spec->n_extra_ports == 0;
  struct toml_value *array = *absent ? NULL : toml_new(doc, TOML_ARRAY);
  for (size_t i = 0; array && i < spec->n_extra_ports; i++) {
    const Model__PortMap *map = spec->extra_ports[i];
    char text[32];
    int len = snprintf(text, sizeof text, "%u:%u%s", map->host_port, map->container_port, map->protocol == MODEL__PROTOCOL__UDP ? "/udp" : "");
    if (toml_array_add(doc, array, toml_new_string(doc, text, (size_t)len)) < 0)
      return NULL;
  }
  return array;
}

/* ---- shorthands ---- */

void spec_read_domain(struct spec_reader *r, const struct spec_key *key, const struct toml_value *value, void *target) {
  const char *text = spec_read_string(r, key, value);
  if (text && spec_repeated_add(target, "domains", strdup(text)) < 0)
    r->memory = true;
}

void spec_read_health(struct spec_reader *r, const struct spec_key *key, const struct toml_value *value, void *target) {
  (void)target; /* becomes probes in spec_finish_service: only then it is known which are written out */
  spec_read_string(r, key, value);
}

/* "SOURCE:/TARGET[:ro|rw]" into a table { source, target, read_only }, which the common reader then checks. */
static struct toml_value *mount_table(struct toml_doc *doc, const struct toml_value *text) {
  const char *s = text->string.data, *colon = strchr(s, ':');
  const char *target = colon ? colon + 1 : NULL, *mode = target ? strchr(target, ':') : NULL;
  if (!target || (mode && strcmp(mode, ":ro") != 0 && strcmp(mode, ":rw") != 0))
    return NULL;
  struct toml_value *t = toml_new(doc, TOML_TABLE),
                    *v[3] = {toml_new_string(doc, s, (size_t)(colon - s)),
                             toml_new_string(doc, target, mode ? (size_t)(mode - target) : strlen(target)), toml_new(doc, TOML_BOOL)};
  static const char *const names[3] = {"source", "target", "read_only"};
  if (v[2])
    v[2]->boolean = mode && mode[2] == 'o';
  for (int i = 0; t && i < (v[2] && v[2]->boolean ? 3 : 2); i++) {
    if (!v[i])
      return NULL;
    v[i]->line = text->line;
    v[i]->column = text->column;
    if (!toml_table_add(doc, t, names[i], strlen(names[i]), v[i]))
      return NULL;
  }
  if (t) {
    t->line = text->line;
    t->column = text->column;
  }
  return t;
}

static void read_mount(struct spec_reader *r, const struct spec_key *key, const struct toml_value *item, void *target) {
  struct toml_doc *doc = NULL;
  if (item->type == TOML_STRING) {
    doc = toml_doc_new();
    const struct toml_value *table = doc && strlen(item->string.data) == item->string.len ? mount_table(doc, item) : NULL;
    if (!table) {
      spec_fault(r, item, "must be \"SOURCE:/TARGET\" or \"SOURCE:/TARGET:ro\"");
      toml_free(doc);
      return;
    }
    item = table;
  }
  if (item->type != TOML_TABLE) {
    spec_fault(r, item, "expected a table with source and target, or a string \"SOURCE:/TARGET[:ro]\"");
    return;
  }
  ProtobufCMessage *msg = spec_message_new(key->table->desc);
  if (msg) {
    size_t before = r->faults->count;
    spec_read_table(r, key->table, item, msg);
    if (r->collect && r->faults->count == before && key->table == &spec_mount_table)
      r->collect(r, item, msg);
  }
  if (spec_repeated_add(target, key->field, msg) < 0)
    r->memory = true;
  toml_free(doc);
}

static void read_mounts(struct spec_reader *r, const struct spec_key *key, const struct toml_value *value, void *target) {
  if (value->type != TOML_ARRAY) {
    spec_fault(r, value, "expected an array of tables, or of strings \"SOURCE:/TARGET[:ro]\"");
    return;
  }
  for (size_t i = 0; i < value->array.count; i++) {
    size_t mark = spec_path_push(r, "[%zu]", i);
    read_mount(r, key, value->array.items[i], target);
    spec_path_pop(r, mark);
  }
}

void spec_read_mounts(struct spec_reader *r, const struct spec_key *key, const struct toml_value *value, void *target) {
  read_mounts(r, key, value, target);
}

void spec_read_volumes(struct spec_reader *r, const struct spec_key *key, const struct toml_value *value, void *target) {
  if (key->flags & SPEC_SHORT && value->type != TOML_ARRAY)
    read_mount(r, key, value, target);
  else
    read_mounts(r, key, value, target);
}

/* ---- rules over several keys ---- */

void spec_finish_resources(struct spec_reader *r, const struct toml_value *table, void *target) {
  const Model__Resources *res = target;
  if (res->has_memory && res->has_memory_request && res->memory_request > res->memory)
    KEY_FAULT(r, table, "memory_request", "must not be more than `memory`");
}

void spec_finish_deploy(struct spec_reader *r, const struct toml_value *table, void *target) {
  const Model__DeployPolicy *deploy = target;
  if (deploy->has_max_surge && deploy->max_surge == 0 && deploy->max_unavailable == 0 && deploy->strategy == MODEL__DEPLOY_STRATEGY__ROLLING)
    KEY_FAULT(r, table, "max_surge", "0 needs a `max_unavailable` of at least 1: otherwise no instance could ever be replaced");
}

void spec_finish_probe(struct spec_reader *r, const struct toml_value *table, void *target) {
  Model__Probe *probe = target;
  if (probe->has_tcp && !probe->tcp) /* says nothing: the same as absent */
    probe->has_tcp = 0;
  const struct toml_value *tcp = toml_get(table, "tcp");
  int kinds = (toml_get(table, "path") != NULL) + (toml_get(table, "exec") != NULL) + (toml_get(table, "grpc") != NULL) +
              (tcp && (tcp->type != TOML_BOOL || tcp->boolean));
  const struct toml_value *exec = toml_get(table, "exec");
  if (kinds != 1)
    spec_fault(r, table, "%s: path, tcp = true, or exec", kinds ? "exactly one way of probing" : "a way of probing is missing");
  else if (exec && exec->type == TOML_ARRAY && exec->array.count == 0)
    KEY_FAULT(r, table, "exec", "must name a program");
  else if (exec && toml_get(table, "port"))
    KEY_FAULT(r, table, "port", "has no effect with `exec`");
}

static bool probe_needs_port(const Model__Probe *probe) {
  return probe && (probe->path || probe->tcp) && !probe->has_port;
}

static void health(struct spec_reader *r, Model__ServiceSpec *spec, const struct toml_value *value) {
  Model__Probe **const probes[] = {&spec->readiness, &spec->liveness};
  for (int i = 0; i < 2; i++) {
    if (*probes[i])
      continue;
    Model__Probe *probe = (Model__Probe *)spec_message_new(&model__probe__descriptor);
    if (!probe || !(probe->path = strdup(value->string.data))) {
      free(probe);
      r->memory = true;
      return;
    }
    *probes[i] = probe;
  }
}

static void one_target(struct spec_reader *r, const struct toml_value *table, const Model__ServiceSpec *spec) {
  size_t all = spec->n_mounts + spec->n_volumes;
  for (size_t i = 0; i < all; i++) {
    const char *a = i < spec->n_mounts ? spec->mounts[i]->target : spec->volumes[i - spec->n_mounts]->target;
    for (size_t j = 0; a && j < i; j++) {
      const char *b = j < spec->n_mounts ? spec->mounts[j]->target : spec->volumes[j - spec->n_mounts]->target;
      if (!b || strcmp(a, b) != 0)
        continue;
      KEY_FAULT(r, table, i < spec->n_mounts ? "mounts" : toml_get(table, "volumes") ? "volumes" : "volume", "two of them have the target %s", a);
      return;
    }
  }
}

static void one_host_port(struct spec_reader *r, const struct toml_value *table, const Model__ServiceSpec *spec) {
  for (size_t i = 0; i < spec->n_extra_ports; i++) {
    const Model__PortMap *a = spec->extra_ports[i];
    bool taken = spec->has_host_port && a->protocol == MODEL__PROTOCOL__TCP && a->host_port == spec->host_port;
    for (size_t j = 0; j < i; j++)
      taken |= a->protocol == spec->extra_ports[j]->protocol && a->host_port == spec->extra_ports[j]->host_port;
    if (taken) {
      KEY_FAULT(r, table, "extra_ports", "port %u of the node is named twice", a->host_port);
      return;
    }
  }
}

/* A key that could have no effect beside the others is a fault: nothing is taken and then ignored. */
static void without_effect(struct spec_reader *r, const struct toml_value *table, const Model__ServiceSpec *spec) {
  const struct toml_value *domains = toml_get(table, "domains");
  bool named = toml_get(table, "domain") || (domains && (domains->type != TOML_ARRAY || domains->array.count));
  if (toml_get(table, "health") && toml_get(table, "readiness") && toml_get(table, "liveness"))
    KEY_FAULT(r, table, "health", "has no effect beside [service.readiness] and [service.liveness], which it is short for");
  if (!named && spec->n_routes)
    KEY_FAULT(r, table, "routes", "needs a `domain` whose paths they are");
  if (!named && spec->has_strip_prefix && spec->strip_prefix)
    KEY_FAULT(r, table, "strip_prefix", "needs a `domain`, and `routes`");
  if (!spec->network || strcmp(spec->network, "host") != 0)
    return;
  if (spec->has_host_port)
    KEY_FAULT(r, table, "host_port", "has no effect with network = \"host\": `port` is the node's");
  if (spec->n_extra_ports)
    KEY_FAULT(r, table, "extra_ports", "has no effect with network = \"host\": its ports are the node's");
  if (spec->n_aliases)
    KEY_FAULT(r, table, "aliases", "has no effect with network = \"host\": there are no names on it");
}

static bool in_secrets(const char *target) {
  static const char folder[] = "/run/secrets";
  return target && strncmp(target, folder, sizeof folder - 1) == 0 && (!target[sizeof folder - 1] || target[sizeof folder - 1] == '/');
}

static void secret_files(struct spec_reader *r, const struct toml_value *table, const Model__ServiceSpec *spec) {
  for (size_t i = 0; i < spec->n_secret_files; i++)
    for (size_t j = 0; j < i; j++)
      if (strcmp(spec->secret_files[i], spec->secret_files[j]) == 0)
        KEY_FAULT(r, table, "secret_files", "%s is named twice", spec->secret_files[i]);
  for (size_t i = 0; i < spec->n_mounts && spec->n_secret_files; i++)
    if (in_secrets(spec->mounts[i]->target))
      KEY_FAULT(r, table, "secret_files", "a mount or volume has %s: secrets are there", spec->mounts[i]->target);
  for (size_t i = 0; i < spec->n_volumes && spec->n_secret_files; i++)
    if (in_secrets(spec->volumes[i]->target))
      KEY_FAULT(r, table, "secret_files", "a mount or volume has %s: secrets are there", spec->volumes[i]->target);
}

void spec_finish_service(struct spec_reader *r, const struct toml_value *table, void *target) {
  Model__ServiceSpec *spec = target;
  const struct toml_value *shorthand = toml_get(table, "health");
  if (shorthand && shorthand->type == TOML_STRING && !spec_check_http_path(shorthand->string.data))
    health(r, spec, shorthand);
  if (toml_get(table, "domain") && toml_get(table, "domains"))
    KEY_FAULT(r, table, "domain", "is short for `domains`: write only one of the two");
  if (toml_get(table, "volume") && toml_get(table, "volumes"))
    KEY_FAULT(r, table, "volume", "is an older spelling of `volumes`: write only one of the two");
  for (size_t i = 0; i < spec->n_domains; i++)
    for (size_t j = 0; j < i; j++)
      if (strcmp(spec->domains[i], spec->domains[j]) == 0)
        KEY_FAULT(r, table, "domains", "%s is named twice", spec->domains[i]);
  one_target(r, table, spec);
  secret_files(r, table, spec);
  one_host_port(r, table, spec);
  if (!r->partial)
    without_effect(r, table, spec);
  if (r->partial || toml_get(table, "port")) /* a faulty port is one fault, not three */
    return;
  if (spec->n_domains)
    KEY_FAULT(r, table, toml_get(table, "domain") ? "domain" : "domains", "needs a `port` to send requests to");
  if (spec->has_host_port)
    KEY_FAULT(r, table, "host_port", "needs a `port` to lead to");
  if (shorthand) {
    if (probe_needs_port(spec->readiness) || probe_needs_port(spec->liveness))
      KEY_FAULT(r, table, "health", "needs a `port`");
    return;
  }
  if (probe_needs_port(spec->readiness))
    KEY_FAULT(r, table, "readiness", "needs a `port`, its own or the service's");
  if (probe_needs_port(spec->startup))
    KEY_FAULT(r, table, "startup", "needs a `port`, its own or the service's");
  if (probe_needs_port(spec->liveness))
    KEY_FAULT(r, table, "liveness", "needs a `port`, its own or the service's");
}

void spec_finish_job(struct spec_reader *r, const struct toml_value *table, void *target) {
  Model__ServiceSpec *spec = target;
  if (!spec->job && !(spec->job = (Model__JobRules *)spec_message_new(&model__job_rules__descriptor)))
    r->memory = true; /* what makes it a job is that they are there */
  one_target(r, table, spec);
  if (!r->partial && toml_get(table, "tz") && !toml_get(table, "schedule"))
    KEY_FAULT(r, table, "tz", "has no effect without a `schedule`");
}

/* ---- [[service]] and [[job]] into the set ---- */

void spec_read_services(struct spec_reader *r, const struct spec_key *key, const struct toml_value *value, void *target) {
  struct spec_set *set = target;
  if (value->type != TOML_ARRAY) {
    spec_fault(r, value, "expected an array of tables: write [[%s]]", key->table == &spec_job_table ? "job" : "service");
    return;
  }
  for (size_t i = 0; i < value->array.count; i++) {
    const struct toml_value *item = value->array.items[i];
    size_t mark = spec_path_push(r, "[%zu]", i);
    if (item->type != TOML_TABLE)
      spec_fault(r, item, "expected a table");
    else if (spec_set_add(set, r, key->table, item) < 0)
      r->memory = true;
    spec_path_pop(r, mark);
  }
}

/* ---- cluster.toml ---- */

void spec_finish_api(struct spec_reader *r, const struct toml_value *table, void *target) {
  const Model__ClusterSpec *cluster = target;
  for (size_t i = 0; !(cluster->has_api_tls && cluster->api_tls) && i < cluster->n_api_listen; i++)
    if (!spec_listen_is_loopback(cluster->api_listen[i]))
      KEY_FAULT(r, table, "listen", "%s is not loopback: it needs `tls = true`", cluster->api_listen[i]);
}

void spec_finish_node(struct spec_reader *r, const struct toml_value *table, void *target) {
  (void)target;
  if (!toml_get(table, "name") && !toml_get(table, "address"))
    spec_fault(r, table, "`name` or `address` is missing");
}
