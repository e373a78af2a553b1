#include "orca-agent/container_json.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/crypto/crypto.h"
#include "common/spec/spec.h"
#include "orca-agent/secret_values.h"

#define MAX_VALUE ((size_t)1 << 20)
#define LOG_SIZE (UINT64_C(10) << 20)
#define LOG_FILES 3u

/* jansson's *_new functions take over a value even when they fail, and a NULL value makes them fail: so a whole tree is built first, and
 * memory is asked about once, at the end. */
static void put(json_t *object, const char *key, json_t *value, bool *ok) {
  if (json_object_set_new(object, key, value) < 0)
    *ok = false;
}

static void add(json_t *array, json_t *value, bool *ok) {
  if (json_array_append_new(array, value) < 0)
    *ok = false;
}

static json_t *strings(char *const *list, size_t count, bool *ok) {
  json_t *array = json_array();
  for (size_t n = 0; n < count; n++)
    add(array, json_string(list[n]), ok);
  return array;
}

static json_t *number_text(uint64_t number) {
  return json_sprintf("%" PRIu64, number);
}

static const char *restart_text(Model__RestartPolicy policy) {
  switch (policy) {
  case MODEL__RESTART_POLICY__RESTART_NEVER:
    return "never";
  case MODEL__RESTART_POLICY__RESTART_ON_FAILURE:
    return "on-failure";
  default:
    return "always";
  }
}

static json_t *labels(const struct agent_core *core, const struct agent_instance *i, const Model__ServiceSpec *spec, const Node__Secrets *secrets,
                      bool *ok) {
  json_t *object = json_object();
  for (size_t n = 0; n < spec->n_labels; n++)
    if (strncmp(PB_STR(spec->labels[n]->key), "orca.", 5) != 0)
      put(object, PB_STR(spec->labels[n]->key), json_string(PB_STR(spec->labels[n]->value)), ok);
  const Model__Instance *inst = i->assigned->instance;
  put(object, AGENT_LABEL_CLUSTER, json_string(core->cluster_id), ok);
  put(object, AGENT_LABEL_NODE, json_string(core->node), ok);
  put(object, AGENT_LABEL_PROJECT, json_string(i->project), ok);
  put(object, AGENT_LABEL_SERVICE, json_string(i->service), ok);
  put(object, AGENT_LABEL_INSTANCE, number_text(i->number), ok);
  put(object, AGENT_LABEL_REVISION, number_text(inst->revision), ok);
  put(object, AGENT_LABEL_EPOCH, number_text(inst->epoch), ok);
  put(object, AGENT_LABEL_SPEC, json_string(PB_STR(i->assigned->revision->spec_hash)), ok);
  put(object, AGENT_LABEL_RESTART, json_string(restart_text(agent_instance_restart(i))), ok);
  if (secrets && secrets->n_secrets) {
    char text[AGENT_SECRETS_LABEL_MAX];
    secret_label_write(secrets, spec, text);
    put(object, AGENT_LABEL_SECRETS, json_string(text), ok);
  }
  return object;
}

static json_t *env(const Model__ServiceSpec *spec, const Node__Secrets *secrets, bool *ok, struct err *err) {
  json_t *array = json_array();
  for (size_t n = 0; n < spec->n_env && *ok; n++) {
    const Model__Pair *pair = spec->env[n];
    struct buf value = BUF_INIT(MAX_VALUE);
    if (!*PB_STR(pair->key) || strchr(pair->key, '=')) {
      *ok = false;
      err_set(err, ERR_UNPROCESSABLE, "env: a name is empty or has a =");
    } else if (secret_resolve(PB_STR(pair->value), secrets, &value, err) < 0) {
      *ok = false;
      err_context(err, "env.%s", pair->key); /* the name; a value may be a secret */
    } else {
      add(array, json_sprintf("%s=%s", pair->key, buf_str(&value)), ok);
    }
    if (value.data)
      crypto_wipe(value.data, value.size);
    buf_free(&value);
  }
  return array;
}

static void publish(json_t *bindings, json_t *exposed, const char *address, uint32_t host, uint32_t container, bool udp, bool *ok) {
  char key[32], port[16];
  snprintf(key, sizeof key, "%" PRIu32 "/%s", container, udp ? "udp" : "tcp");
  snprintf(port, sizeof port, "%" PRIu32, host);
  json_t *list = json_object_get(bindings, key);
  if (!list) {
    put(bindings, key, json_array(), ok);
    list = json_object_get(bindings, key);
  }
  add(list, json_pack("{s:s, s:s}", "HostIp", address, "HostPort", port), ok);
  put(exposed, key, json_object(), ok);
}

static bool ports(const Model__ServiceSpec *spec, const char *address, json_t *bindings, json_t *exposed, bool *ok) {
  uint32_t port = PB_GET(spec, port, 0), host_port = PB_GET(spec, host_port, 0);
  if (port > 65535 || host_port > 65535 || (host_port && !port))
    return false;
  if (port) {
    char key[32];
    snprintf(key, sizeof key, "%" PRIu32 "/tcp", port);
    put(exposed, key, json_object(), ok);
  }
  if (host_port)
    publish(bindings, exposed, address, host_port, port, false, ok);
  for (size_t n = 0; n < spec->n_extra_ports; n++) {
    const Model__PortMap *map = spec->extra_ports[n];
    uint32_t from = PB_GET(map, host_port, 0), to = PB_GET(map, container_port, 0);
    if (!from || !to || from > 65535 || to > 65535)
      return false;
    publish(bindings, exposed, address, from, to, PB_GET(map, protocol, MODEL__PROTOCOL__TCP) == MODEL__PROTOCOL__UDP, ok);
  }
  return true;
}

static json_t *mounts(const struct agent_core *core, const struct agent_instance *i, const Model__ServiceSpec *spec,
                      const struct agent_container_source *from, bool *ok) {
  json_t *array = json_array();
  for (size_t n = 0; n < spec->n_volumes; n++) {
    const Model__Volume *v = spec->volumes[n];
    char name[AGENT_NAME_MAX];
    agent_volume_name(core, i->project, PB_STR(v->source), name);
    add(array, json_pack("{s:s, s:s, s:s, s:b}", "Type", "volume", "Source", name, "Target", PB_STR(v->target), "ReadOnly", PB_GET(v, read_only, 0)),
        ok);
  }
  for (size_t n = 0; n < spec->n_mounts; n++) {
    const Model__Mount *m = spec->mounts[n];
    /* Files of the infra directory are shared with what the master holds: a container can't change them. */
    bool read_only = m->n_files || PB_GET(m, read_only, 0);
    add(array, json_pack("{s:s, s:s, s:s, s:b}", "Type", "bind", "Source", from->mounts[n], "Target", PB_STR(m->target), "ReadOnly", read_only), ok);
  }
  if (spec->n_secret_files)
    add(array, json_pack("{s:s, s:s, s:s, s:b}", "Type", "bind", "Source", from->secrets_dir, "Target", "/run/secrets", "ReadOnly", 1), ok);
  return array;
}

static void device(json_t *list, const char *host, const char *container, const char *access, bool *ok) {
  add(list, json_pack("{s:s, s:s, s:s}", "PathOnHost", host, "PathInContainer", container, "CgroupPermissions", access), ok);
}

/* HOST[:CONTAINER[:rwm]] */
static void devices(const Model__ServiceSpec *spec, json_t *list, bool *ok) {
  for (size_t n = 0; n < spec->n_devices; n++) {
    char host[256], container[256], access[8] = "rwm";
    const char *colon = strchr(spec->devices[n], ':');
    snprintf(host, sizeof host, "%.*s", colon ? (int)(colon - spec->devices[n]) : (int)strlen(spec->devices[n]), spec->devices[n]);
    snprintf(container, sizeof container, "%s", host);
    if (colon) {
      const char *second = strchr(colon + 1, ':');
      snprintf(container, sizeof container, "%.*s", second ? (int)(second - colon - 1) : (int)strlen(colon + 1), colon + 1);
      if (second)
        snprintf(access, sizeof access, "%s", second + 1);
    }
    device(list, host, container, access, ok);
  }
}

static void gpus(const Model__Gpu *gpu, json_t *host_config, json_t *device_list, bool *ok) {
  uint32_t count = PB_GET(gpu, count, 1);
  if (!count)
    return;
  if (strcmp(PB_STR(gpu->vendor), "amd") == 0) {
    device(device_list, "/dev/kfd", "/dev/kfd", "rwm", ok);
    device(device_list, "/dev/dri", "/dev/dri", "rwm", ok);
    return;
  }
  put(host_config, "DeviceRequests",
      json_pack("[{s:s, s:i, s:[[s]]}]", "Driver", "nvidia", "Count", (int)(count > 64 ? 64 : count), "Capabilities", "gpu"), ok);
}

static void resources(const Model__ServiceSpec *spec, json_t *host_config, json_t *device_list, bool *ok) {
  const Model__Resources *r = spec->resources;
  if (!r)
    return;
  uint64_t memory = PB_GET(r, memory, 0), request = PB_GET(r, memory_request, 0);
  if (memory && memory <= INT64_MAX) {
    put(host_config, "Memory", json_integer((json_int_t)memory), ok);
    put(host_config, "MemorySwap", json_integer((json_int_t)memory), ok); /* what is promised is memory, not swap */
  }
  if (request && request <= INT64_MAX && (!memory || request <= memory))
    put(host_config, "MemoryReservation", json_integer((json_int_t)request), ok);
  if (PB_GET(r, cpu_milli, 0))
    put(host_config, "NanoCpus", json_integer((json_int_t)r->cpu_milli * 1000000), ok);
  if (PB_GET(r, pids, 0))
    put(host_config, "PidsLimit", json_integer(r->pids), ok);
  if (r->gpu)
    gpus(r->gpu, host_config, device_list, ok);
}

/* `local` costs Docker less than half of what json-file does, to write and to read. Not compressed: its reader would unpack all of it for the last
 * line. */
static json_t *logs(const struct agent_core *core, bool *ok) {
  const Model__LogRotation *l = core->cluster ? core->cluster->logs : NULL;
  uint64_t size = l && l->has_max_size && l->max_size ? l->max_size : LOG_SIZE;
  uint32_t files = l && l->has_max_files && l->max_files ? l->max_files : LOG_FILES;
  json_t *config = json_object();
  put(config, "max-size", number_text(size), ok);
  put(config, "max-file", number_text(files), ok);
  put(config, "compress", json_string("false"), ok);
  return json_pack("{s:s, s:o}", "Type", "local", "Config", config);
}

static json_t *endpoint(const struct agent_instance *i, const Model__ServiceSpec *spec, bool *ok) {
  json_t *aliases = strings(spec->aliases, spec->n_aliases, ok);
  add(aliases, json_string(i->service), ok);
  return json_pack("{s:o}", "Aliases", aliases);
}

static json_t *host_config(const struct agent_core *core, const struct agent_instance *i, const Model__ServiceSpec *spec,
                           const struct agent_container_source *from, const char *network, json_t *bindings, bool *ok) {
  json_t *hc = json_object(), *device_list = json_array();
  put(hc, "NetworkMode", json_string(*network ? network : "host"), ok);
  put(hc, "RestartPolicy", json_pack("{s:s}", "Name", "no"), ok); /* the agent restarts, nobody else */
  put(hc, "PortBindings", bindings, ok);
  put(hc, "Mounts", mounts(core, i, spec, from, ok), ok);
  put(hc, "LogConfig", logs(core, ok), ok);
  devices(spec, device_list, ok);
  resources(spec, hc, device_list, ok);
  put(hc, "Devices", device_list, ok);
  if (spec->n_caps)
    put(hc, "CapAdd", strings(spec->caps, spec->n_caps, ok), ok);
  if (PB_GET(spec, privileged, 0))
    put(hc, "Privileged", json_true(), ok);
  return hc;
}

json_t *agent_container_json(const struct agent_core *core, const struct agent_instance *i, const struct agent_container_source *from,
                             struct err *err) {
  const Model__ServiceSpec *spec = agent_instance_spec(i);
  char network[AGENT_NAME_MAX];
  bool ok = true;
  err_set(err, ERR_MEMORY, "no memory for a container");
  json_t *bindings = json_object(), *exposed = json_object(), *root = json_object();
  agent_network_name(core, spec, network);
  /* On the host's network there is nothing to publish: its ports are the node's. */
  if (*network && !ports(spec, from->node_address, bindings, exposed, &ok)) {
    json_decref(bindings);
    json_decref(exposed);
    json_decref(root);
    err_set(err, ERR_UNPROCESSABLE, "a port is out of range");
    return NULL;
  }
  put(root, "Image", json_string(from->image), &ok);
  if (*network) {
    put(root, "Hostname", json_sprintf("%.40s-%" PRIu64, i->service, i->number), &ok);
    json_t *endpoints = json_object();
    put(endpoints, network, endpoint(i, spec, &ok), &ok);
    put(root, "NetworkingConfig", json_pack("{s:o}", "EndpointsConfig", endpoints), &ok);
  }
  if (*PB_STR(spec->user))
    put(root, "User", json_string(spec->user), &ok);
  if (*PB_STR(spec->workdir))
    put(root, "WorkingDir", json_string(spec->workdir), &ok);
  if (spec->n_entrypoint)
    put(root, "Entrypoint", strings(spec->entrypoint, spec->n_entrypoint, &ok), &ok);
  if (spec->n_command)
    put(root, "Cmd", strings(spec->command, spec->n_command, &ok), &ok);
  put(root, "Env", env(spec, from->secrets, &ok, err), &ok);
  put(root, "Labels", labels(core, i, spec, from->secrets, &ok), &ok);
  if (*PB_STR(spec->stop_signal))
    put(root, "StopSignal", json_string(spec->stop_signal), &ok);
  put(root, "StopTimeout", json_integer((json_int_t)((PB_GET(spec, stop_grace_ms, 10000) + 999) / 1000)), &ok);
  put(root, "ExposedPorts", exposed, &ok);
  put(root, "HostConfig", host_config(core, i, spec, from, network, bindings, &ok), &ok);
  if (ok)
    return root;
  json_decref(root);
  return NULL;
}

json_t *agent_network_json(const struct agent_core *core, const char *name, const char *project, const char *node_address) {
  return json_pack("{s:s, s:b, s:s, s:{s:s, s:s, s:s}, s:{s:s, s:s, s:s}}", "Name", name, "CheckDuplicate", 1, "Driver", "bridge", "Options",
                   "com.docker.network.bridge.enable_icc", "true", "com.docker.network.bridge.enable_ip_masquerade", "true",
                   "com.docker.network.bridge.host_binding_ipv4", strchr(node_address, ':') ? "127.0.0.1" : node_address, "Labels",
                   AGENT_LABEL_CLUSTER, core->cluster_id, AGENT_LABEL_NODE, core->node, AGENT_LABEL_PROJECT, project);
}

json_t *agent_volume_json(const struct agent_core *core, const char *project, const Model__Volume *volume) {
  char name[AGENT_NAME_MAX];
  bool ok = true;
  agent_volume_name(core, project, PB_STR(volume->source), name);
  json_t *root = json_pack("{s:s, s:s, s:{s:s, s:s, s:s, s:s}}", "Name", name, "Driver", *PB_STR(volume->driver) ? volume->driver : "local", "Labels",
                           AGENT_LABEL_CLUSTER, core->cluster_id, AGENT_LABEL_NODE, core->node, AGENT_LABEL_PROJECT, project, AGENT_LABEL_VOLUME,
                           PB_STR(volume->source));
  json_t *options = json_object();
  for (size_t n = 0; n < volume->n_options; n++)
    put(options, PB_STR(volume->options[n]->key), json_string(PB_STR(volume->options[n]->value)), &ok);
  if (!root || json_object_set_new(root, "DriverOpts", options) < 0 || !ok) {
    json_decref(root);
    return NULL;
  }
  return root;
}
