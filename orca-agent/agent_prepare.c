/* What must be there before a container is created: its volumes in Docker, its files on disk, its host paths allowed. One thing after the
 * other; the first fault ends it. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/log.h"
#include "common/spec/spec.h"
#include "orca-agent/agent.h"
#include "orca-agent/agent_secrets.h"
#include "orca-agent/container_json.h"
#include "orca-agent/gateway_rpc.h"

#define VOLUME_TIMEOUT (60 * NS_PER_SEC)

struct prepare {
  struct agent *a;
  struct agent_action act;
  Model__ServiceSpec *spec; /* a copy: the assignment may change meanwhile */
  char container[AGENT_NAME_MAX];
  size_t volume, mount, file;
  char *fetching; /* SHA-256 */
};

static void go_on(struct prepare *p);

static void finish(struct prepare *p, enum err_code code, const char *why) {
  struct agent *a = p->a;
  struct agent_action act = p->act;
  struct err err;
  err_set(&err, code, "%s", why);
  if (p->spec)
    model__service_spec__free_unpacked(p->spec, NULL);
  free(p);
  agent_event(a, &(struct agent_event){.kind = AGENT_EV_DONE, .op = act.op, .instance = act.instance, .code = code, .text = err.msg});
}

static const char *device_of(const Model__Volume *v) {
  for (size_t n = 0; n < v->n_options; n++)
    if (strcmp(PB_STR(v->options[n]->key), "device") == 0)
      return PB_STR(v->options[n]->value);
  return "";
}

/* The local driver binds whatever path its `device` names when a container starts: that path is judged as a mount's is, by where its links lead. */
static int resolve_device(struct prepare *p, Model__Volume *v, struct err *err) {
  char real[PATH_MAX];
  for (size_t n = 0; n < v->n_options; n++) {
    Model__Pair *option = v->options[n];
    const char *value = PB_STR(option->value);
    if (strcmp(PB_STR(option->key), "device") != 0 || value[0] != '/' || value[1] == '/') /* //HOST/SHARE is no path */
      continue;
    if (files_host_path(value, p->a->core.cluster, real, err) < 0)
      return err_context(err, "volume %s", PB_STR(v->source));
    char *copy = strdup(real);
    if (!copy)
      return err_set(err, ERR_MEMORY, "no memory");
    free(option->value);
    option->value = copy;
  }
  return 0;
}

static void on_volume(void *arg, const struct docker_reply *reply) {
  struct prepare *p = arg;
  if (reply->code != ERR_NONE) {
    finish(p, reply->code, reply->message);
    return;
  }
  /* Docker gives back what is there under that name, whoever made it. */
  const char *cluster = json_string_value(json_object_get(json_object_get(reply->json, "Labels"), AGENT_LABEL_CLUSTER));
  if (!cluster || strcmp(cluster, p->a->self.cluster_id) != 0) {
    finish(p, ERR_CONFLICT, "a volume's name is taken by one that is not this cluster's");
    return;
  }
  const Model__Volume *wanted = p->spec->volumes[p->volume];
  const char *device = json_string_value(json_object_get(json_object_get(reply->json, "Options"), "device"));
  if (strcmp(device ? device : "", device_of(wanted)) != 0) {
    char why[512];
    snprintf(why, sizeof why, "volume %s is there already, and is another device: remove it, or name another", PB_STR(wanted->source));
    finish(p, ERR_CONFLICT, why);
    return;
  }
  agent_node_status_add_volume(p->a, PB_STR(p->spec->project), PB_STR(p->spec->volumes[p->volume]->source));
  p->volume++;
  go_on(p);
}

static void make_volume(struct prepare *p) {
  struct err err;
  if (resolve_device(p, p->spec->volumes[p->volume], &err) < 0) {
    finish(p, err.code, err.msg);
    return;
  }
  json_t *body = agent_volume_json(&p->a->core, PB_STR(p->spec->project), p->spec->volumes[p->volume]);
  struct docker_options o = {.method = "POST", .path = "/volumes/create", .body = body, .timeout_ns = VOLUME_TIMEOUT, .done = on_volume, .arg = p};
  if (!body || !docker_call(p->a->docker, &o))
    finish(p, ERR_MEMORY, "no memory");
}

static void on_file(void *arg, const uint8_t *content, size_t len, const struct err *why) {
  struct prepare *p = arg;
  struct err err;
  if (!content) {
    finish(p, why->code, why->msg);
  } else if (files_put(p->a->files, p->fetching, content, len, &err) < 0) {
    finish(p, err.code, err.msg);
  } else {
    p->file++;
    go_on(p);
  }
}

/* 1: fetching; 0: nothing is missing any more; -1: failed. */
static int fetch_missing(struct prepare *p, struct err *err) {
  for (; p->mount < p->spec->n_mounts; p->mount++, p->file = 0) {
    const Model__Mount *mount = p->spec->mounts[p->mount];
    for (; p->file < mount->n_files; p->file++) {
      char *sha = PB_STR(mount->files[p->file]->sha256)[0] ? mount->files[p->file]->sha256 : NULL;
      if (!sha)
        return err_set(err, ERR_INVALID, "mount %s: a file without a hash", PB_STR(mount->target));
      if (files_have(p->a->files, sha))
        continue;
      p->fetching = sha;
      return gateway_get_file(p->a->gateway, sha, on_file, p, err) < 0 ? -1 : 1;
    }
  }
  return 0;
}

static int lay_all(struct prepare *p, struct err *err) {
  char path[PATH_MAX];
  for (size_t n = 0; n < p->spec->n_mounts; n++) {
    const Model__Mount *mount = p->spec->mounts[n];
    if (mount->n_files && files_lay(p->a->files, p->container, n, mount, err) < 0)
      return -1;
    if (files_source(p->a->files, p->container, n, mount, p->a->core.cluster, path, err) < 0)
      return -1;
  }
  return 0;
}

static void on_secrets(void *arg, enum err_code code, const char *why) {
  finish(arg, code, why);
}

static void go_on(struct prepare *p) {
  struct err err;
  if (p->volume < p->spec->n_volumes) {
    make_volume(p);
    return;
  }
  int rc = fetch_missing(p, &err);
  if (rc == 1)
    return;
  if (rc < 0 || lay_all(p, &err) < 0)
    finish(p, err.code, err.msg);
  else if (spec_names_secrets(p->spec))
    agent_secrets_fetch(p->a, p->act.instance, on_secrets, p);
  else
    finish(p, ERR_NONE, "");
}

void agent_prepare(struct agent *a, const struct agent_action *act) {
  const struct agent_instance *i = agent_core_find(&a->core, act->instance);
  const Model__ServiceSpec *spec = i ? agent_instance_spec(i) : NULL;
  struct prepare *p = calloc(1, sizeof *p);
  if (p) {
    p->a = a;
    p->act = *act;
    p->spec = spec ? (Model__ServiceSpec *)pb_clone(&spec->base) : NULL;
  }
  if (!p || !p->spec) {
    free(p);
    agent_event(a, &(struct agent_event){.kind = AGENT_EV_DONE, .op = act->op, .instance = act->instance, .code = ERR_MEMORY, .text = "no memory"});
    return;
  }
  agent_container_name(&a->core, i, p->container);
  go_on(p);
}
