/* The core's actions as calls of Docker's API, and the answers as its events. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/log.h"
#include "common/spec/spec.h"
#include "orca-agent/agent.h"
#include "orca-agent/agent_secrets.h"
#include "orca-agent/container_json.h"
#include "orca-agent/docker_auth.h"
#include "orca-agent/docker_lines.h"
#include "common/image_ref.h"

#define QUICK (30 * NS_PER_SEC)
#define CREATE_TIMEOUT (60 * NS_PER_SEC)
#define START_TIMEOUT (120 * NS_PER_SEC) /* of a busy machine; Docker itself sets none */
#define STOP_MARGIN (10 * NS_PER_SEC)
#define PULL_TIMEOUT (3600 * NS_PER_SEC)
#define PULL_IDLE (120 * NS_PER_SEC)

/* One action under way. */
struct doing {
  struct agent *a;
  struct agent_action act;
};

static struct doing *doing_new(struct agent *a, const struct agent_action *act) {
  struct doing *d = malloc(sizeof *d);
  if (d)
    *d = (struct doing){a, *act};
  return d;
}

static void answer(struct agent *a, const struct agent_action *act, enum agent_event_kind kind, enum err_code code, const char *text) {
  struct agent_event ev = {.kind = kind, .op = act->op, .instance = act->instance, .code = code, .text = text};
  agent_event(a, &ev);
}

static enum agent_event_kind answer_kind(const struct agent_action *act) {
  switch (act->kind) {
  case AGENT_ACT_LIST:
    return AGENT_EV_LISTED;
  case AGENT_ACT_IMAGE_LOOK:
    return AGENT_EV_IMAGE_LOOKED;
  case AGENT_ACT_IMAGE_PULL:
    return AGENT_EV_IMAGE_PULLED;
  case AGENT_ACT_NETWORK_CREATE:
  case AGENT_ACT_NETWORK_REMOVE:
    return AGENT_EV_NETWORK_DONE;
  default:
    return AGENT_EV_DONE;
  }
}

static void fail_now(struct agent *a, const struct agent_action *act, enum err_code code, const char *why) {
  if (act->kind != AGENT_ACT_REMOVE_STRAY)
    answer(a, act, answer_kind(act), code, why);
}

/* body is taken. */
static void ask(struct agent *a, const struct agent_action *act, const char *method, const char *path, json_t *body, int64_t timeout,
                docker_done_fn *done) {
  struct doing *d = doing_new(a, act);
  struct docker_options o = {.method = method, .path = path, .body = body, .timeout_ns = timeout, .done = done, .arg = d};
  if (!d)
    json_decref(body);
  if (!d || !docker_call(a->docker, &o)) {
    free(d);
    fail_now(a, act, ERR_MEMORY, "no memory");
  }
}

/* ---- one container ---- */

/* Between the core's word and Docker's turn lie an answer of a master, or the end of a log. When Docker was away meanwhile, the core has looked anew
 * and perhaps decided otherwise; it hears no answer to this any more. */
static bool is_in_flight(const struct agent *a, const struct agent_action *act) {
  const struct agent_instance *i = agent_core_find(&a->core, act->instance);
  return i && i->op == act->op_kind && i->op_id == act->op;
}

static void on_simple(void *arg, const struct docker_reply *reply) {
  struct doing *d = arg;
  answer(d->a, &d->act, AGENT_EV_DONE, reply->code, reply->message);
  free(d);
}

static void on_disconnected(void *arg, const struct docker_reply *reply) {
  struct doing *d = arg;
  log_warn("a dead endpoint stood in the way of a start", "instance", d->act.instance, "error", reply->code == ERR_NONE ? NULL : reply->message);
  answer(d->a, &d->act, AGENT_EV_DONE, ERR_INTERNAL, d->act.text);
  free(d);
}

/* A daemon that went down in the middle of a start leaves the container's endpoint on its network, and refuses every start after that. */
static void on_started(void *arg, const struct docker_reply *reply) {
  struct doing *d = arg;
  const struct agent_instance *i = agent_core_find(&d->a->core, d->act.instance);
  if (reply->code == ERR_NONE || !i || !*i->c.network || !strstr(reply->message, "already exists in network")) {
    on_simple(arg, reply);
    return;
  }
  char name[AGENT_NAME_MAX], path[AGENT_NAME_MAX + 64];
  agent_container_name(&d->a->core, i, name);
  snprintf(path, sizeof path, "/networks/%s/disconnect", i->c.network);
  snprintf(d->act.text, sizeof d->act.text, "%s", reply->message);
  ask(d->a, &d->act, "POST", path, json_pack("{s:s, s:b}", "Container", name, "Force", 1), QUICK, on_disconnected);
  free(d);
}

static void on_created(void *arg, const struct docker_reply *reply) {
  struct doing *d = arg;
  const char *id = json_string_value(json_object_get(reply->json, "Id"));
  if (reply->code != ERR_NONE)
    answer(d->a, &d->act, AGENT_EV_DONE, reply->code, reply->message);
  else if (!id || strlen(id) >= AGENT_CONTAINER_ID)
    answer(d->a, &d->act, AGENT_EV_DONE, ERR_CONFLICT, "Docker's answer names no container");
  else
    answer(d->a, &d->act, AGENT_EV_DONE, ERR_NONE, id);
  free(d);
}

static void on_inspected(void *arg, const struct docker_reply *reply) {
  struct doing *d = arg;
  struct agent_container c = {0};
  struct err err;
  struct agent_event ev = {
      .kind = AGENT_EV_DONE, .op = d->act.op, .instance = d->act.instance, .code = reply->code, .text = reply->message, .containers = &c};
  if (reply->code == ERR_NONE && docker_parse_inspect(reply->json, &d->a->self, &c, &err) < 0) {
    ev.code = err.code;
    ev.text = err.msg;
  }
  agent_event(d->a, &ev);
  free(d);
}

static int host_sources(struct agent *a, const struct agent_instance *i, const Model__ServiceSpec *spec, char **sources, struct err *err) {
  char name[AGENT_NAME_MAX], path[PATH_MAX];
  agent_container_name(&a->core, i, name);
  for (size_t n = 0; n < spec->n_mounts; n++) {
    if (files_source(a->files, name, n, spec->mounts[n], a->core.cluster, path, err) < 0)
      return -1;
    if (!(sources[n] = strdup(path)))
      return err_set(err, ERR_MEMORY, "no memory");
  }
  return 0;
}

static void do_create(struct agent *a, const struct agent_action *act) {
  const struct agent_instance *i = agent_core_find(&a->core, act->instance);
  const Model__ServiceSpec *spec = i ? agent_instance_spec(i) : NULL;
  const struct agent_image *image = i ? agent_core_image(&a->core, i) : NULL;
  if (!spec || !image) {
    fail_now(a, act, ERR_CONFLICT, "no longer assigned");
    return;
  }
  struct err err;
  json_t *body = NULL;
  char name[AGENT_NAME_MAX], path[PATH_MAX], secrets_dir[PATH_MAX] = "";
  agent_container_name(&a->core, i, name);
  const Node__Secrets *secrets = agent_secrets_held(a, act->instance);
  if ((!secrets && spec_names_secrets(spec)) || (spec->n_secret_files && secret_files_path(&a->secret_files, name, secrets_dir, &err) < 0)) {
    fail_now(a, act, ERR_INTERNAL, "its secrets are not at hand");
    return;
  }
  char **sources = calloc(spec->n_mounts + 1, sizeof *sources);
  if (!sources)
    err_set(&err, ERR_MEMORY, "no memory");
  else if (host_sources(a, i, spec, sources, &err) == 0)
    body = agent_container_json(&a->core, i, &(struct agent_container_source){image->run, a->daemon->config.address, sources, secrets, secrets_dir},
                                &err);
  agent_secrets_drop(a, act->instance);
  for (size_t n = 0; sources && n < spec->n_mounts; n++)
    free(sources[n]);
  free(sources);
  snprintf(path, sizeof path, "/containers/create?name=%s", name);
  if (body)
    ask(a, act, "POST", path, body, CREATE_TIMEOUT, on_created);
  else
    fail_now(a, act, err.code, err.msg);
}

/* Docker follows each path anew at each start. It was without links when the container was made; who can write beside it may have put one there. */
static int check_sources(const json_t *container, struct err *err) {
  size_t n;
  const json_t *mount;
  json_array_foreach(json_object_get(json_object_get(container, "HostConfig"), "Mounts"), n, mount) {
    const char *type = json_string_value(json_object_get(mount, "Type")), *source = json_string_value(json_object_get(mount, "Source"));
    if (type && source && strcmp(type, "bind") == 0 && files_still_real(source, err) < 0)
      return -1;
  }
  return 0;
}

static void on_looked(void *arg, const struct docker_reply *reply) {
  struct doing *d = arg;
  struct err err;
  char path[AGENT_NAME_MAX + 64];
  snprintf(path, sizeof path, "/containers/%s/start", d->act.container);
  if (reply->code != ERR_NONE)
    answer(d->a, &d->act, AGENT_EV_DONE, reply->code, reply->message);
  else if (!is_in_flight(d->a, &d->act))
    log_debug("a start was overtaken", "instance", d->act.instance);
  else if (check_sources(reply->json, &err) < 0)
    answer(d->a, &d->act, AGENT_EV_DONE, err.code, err.msg);
  else
    ask(d->a, &d->act, "POST", path, NULL, START_TIMEOUT, on_started);
  free(d);
}

static bool may_mount_host_paths(const struct agent *a, const struct agent_action *act) {
  const struct agent_instance *i = agent_core_find(&a->core, act->instance);
  const Model__ServiceSpec *spec = i ? agent_instance_spec(i) : NULL;
  for (size_t n = 0; spec && n < spec->n_mounts; n++)
    if (!spec->mounts[n]->n_files)
      return true;
  return !spec; /* kept from before, and no master has said what it is */
}

void agent_docker_start_container(struct agent *a, const struct agent_action *act) {
  char path[AGENT_NAME_MAX + 64];
  bool look = may_mount_host_paths(a, act);
  if (!is_in_flight(a, act))
    return;
  snprintf(path, sizeof path, "/containers/%s/%s", act->container, look ? "json" : "start");
  if (look)
    ask(a, act, "GET", path, NULL, QUICK, on_looked);
  else
    ask(a, act, "POST", path, NULL, START_TIMEOUT, on_started);
}

static void do_instance(struct agent *a, const struct agent_action *act) {
  char path[AGENT_NAME_MAX + 64];
  if (!is_in_flight(a, act))
    return;
  switch (act->op_kind) {
  case AGENT_OP_CREATE:
    do_create(a, act);
    break;
  case AGENT_OP_START:
    if (!agent_secrets_before_start(a, act))
      agent_docker_start_container(a, act);
    break;
  case AGENT_OP_INSPECT:
    snprintf(path, sizeof path, "/containers/%s/json", act->container);
    ask(a, act, "GET", path, NULL, QUICK, on_inspected);
    break;
  case AGENT_OP_STOP:
    snprintf(path, sizeof path, "/containers/%s/stop?t=%" PRIu64, act->container, (act->grace_ms + 999) / 1000);
    ask(a, act, "POST", path, NULL, (int64_t)act->grace_ms * NS_PER_MS + STOP_MARGIN, on_simple);
    break;
  case AGENT_OP_KILL:
    snprintf(path, sizeof path, "/containers/%s/kill?signal=SIGKILL", act->container);
    ask(a, act, "POST", path, NULL, QUICK, on_simple);
    break;
  case AGENT_OP_REMOVE:
    /* v: with its anonymous volumes; named ones stay. */
    snprintf(path, sizeof path, "/containers/%s?v=1&force=1", act->container);
    ask(a, act, "DELETE", path, NULL, CREATE_TIMEOUT, on_simple);
    break;
  case AGENT_OP_PREPARE:
  case AGENT_OP_NONE:
    break;
  }
}

static void on_stray(void *arg, const struct docker_reply *reply) {
  struct doing *d = arg;
  log_warn("removed a second container of an instance", "container", d->act.container, "error", reply->code == ERR_NONE ? NULL : reply->message);
  free(d);
}

/* Docker lets two agents of a cluster make a network of the same name in the same moment, and then refuses to start anything on either. The
 * older one stays; whoever made the other removes it. NULL when list[n] is not one to remove. */
static const char *duplicate(const struct agent_found_network *list, size_t count, size_t n) {
  for (size_t m = 0; m < count && list[n].ours; m++) {
    if (m == n || strcmp(list[m].name, list[n].name) != 0)
      continue;
    if (list[m].created_ns < list[n].created_ns || (list[m].created_ns == list[n].created_ns && strcmp(list[m].id, list[n].id) < 0))
      return list[n].id;
  }
  return NULL;
}

static void on_duplicate_removed(void *arg, const struct docker_reply *reply) {
  (void)arg;
  if (reply->code != ERR_NONE && reply->code != ERR_NOT_FOUND)
    log_warn("a second network of the same name could not be removed", "error", reply->message);
}

/* ---- the comparison: containers, networks, volumes in one go ---- */

struct listing {
  struct agent *a;
  uint64_t op;
  unsigned left;
  struct agent_container *containers;
  size_t container_count;
  struct agent_found_network *networks;
  size_t network_count;
  struct err err;
};

static void listing_note(struct listing *l, enum err_code code, const char *why) {
  if (l->err.code == ERR_NONE && code != ERR_NONE)
    err_set(&l->err, code, "%s", why);
}

static void listing_part(struct listing *l) {
  if (--l->left)
    return;
  struct agent_event ev = {.kind = AGENT_EV_LISTED,
                           .op = l->op,
                           .code = l->err.code,
                           .text = l->err.msg,
                           .containers = l->containers,
                           .container_count = l->container_count,
                           .networks = l->networks,
                           .network_count = l->network_count};
  if (l->err.code != ERR_NONE && l->err.code != ERR_CANCELLED)
    log_warn("Docker could not be listed", "error", l->err.msg);
  agent_event(l->a, &ev);
  if (!l->a->closing)
    agent_secrets_sweep(l->a);
  if (!l->a->closing && l->a->core.have_desired && l->a->core.ever_listed)
    files_sweep(l->a->files, agent_knows, l->a, loop_wall(l->a->loop) / (1000 * NS_PER_MS));
  free(l->containers);
  free(l->networks);
  free(l);
}

static void on_containers(void *arg, const struct docker_reply *reply) {
  struct listing *l = arg;
  struct err err;
  listing_note(l, reply->code, reply->message);
  if (reply->code == ERR_NONE && docker_parse_list(reply->json, &l->a->self, &l->containers, &l->container_count, &err) < 0)
    listing_note(l, err.code, err.msg);
  listing_part(l);
}

static void on_networks(void *arg, const struct docker_reply *reply) {
  struct listing *l = arg;
  struct err err;
  listing_note(l, reply->code, reply->message);
  if (reply->code == ERR_NONE && docker_parse_networks(reply->json, &l->a->self, &l->networks, &l->network_count, &err) < 0)
    listing_note(l, err.code, err.msg);
  for (size_t n = 0; n < l->network_count; n++) {
    const char *id = duplicate(l->networks, l->network_count, n);
    char path[AGENT_CONTAINER_ID + 32];
    snprintf(path, sizeof path, "/networks/%s", id ? id : "");
    if (id &&
        !docker_call(l->a->docker, &(struct docker_options){.method = "DELETE", .path = path, .timeout_ns = QUICK, .done = on_duplicate_removed}))
      listing_note(l, ERR_MEMORY, "no memory");
  }
  listing_part(l);
}

static void on_volumes(void *arg, const struct docker_reply *reply) {
  struct listing *l = arg;
  if (reply->code == ERR_NONE)
    agent_node_status_set_volumes(l->a, reply->json);
  listing_part(l);
}

/* WHAT with the filter for what carries this cluster's label, or this node's too. */
static int filtered(const struct agent *a, const char *what, bool with_node, char path[2048]) {
  char filters[512], escaped[1600];
  if (with_node)
    snprintf(filters, sizeof filters, "{\"label\":[\"" AGENT_LABEL_CLUSTER "=%s\",\"" AGENT_LABEL_NODE "=%s\"]}", a->self.cluster_id, a->self.node);
  else
    snprintf(filters, sizeof filters, "{\"label\":[\"" AGENT_LABEL_CLUSTER "=%s\"]}", a->self.cluster_id);
  if (http_escape(filters, escaped, sizeof escaped) < 0)
    return -1;
  snprintf(path, 2048, "%sfilters=%s", what, escaped);
  return 0;
}

static void list_one(struct listing *l, const char *what, bool with_node, docker_done_fn *done) {
  char path[2048];
  if (filtered(l->a, what, with_node, path) < 0 ||
      !docker_call(l->a->docker, &(struct docker_options){.method = "GET", .path = path, .timeout_ns = QUICK, .done = done, .arg = l})) {
    listing_note(l, ERR_MEMORY, "no memory");
    l->left--;
  }
}

static void do_list(struct agent *a, const struct agent_action *act) {
  struct listing *l = calloc(1, sizeof *l);
  if (!l) {
    fail_now(a, act, ERR_MEMORY, "no memory");
    return;
  }
  /* One more than there are: callbacks come later, but a call that can't be begun counts down at once. */
  *l = (struct listing){.a = a, .op = act->op, .left = 4};
  list_one(l, "/containers/json?all=1&", true, on_containers);
  list_one(l, "/networks?", false, on_networks);
  list_one(l, "/volumes?", true, on_volumes);
  listing_part(l);
}

/* ---- images ---- */

static void on_image(void *arg, const struct docker_reply *reply) {
  struct doing *d = arg;
  char id[AGENT_IMAGE_MAX] = "", digest[AGENT_IMAGE_MAX] = "";
  struct err err;
  struct agent_event ev = {.kind = AGENT_EV_IMAGE_LOOKED, .op = d->act.op, .code = reply->code, .text = reply->message, .image_id = id};
  if (reply->code == ERR_NONE && docker_parse_image(reply->json, d->act.name, id, digest, &err) < 0) {
    ev.code = err.code;
    ev.text = err.msg;
  }
  ev.image_digest = *digest ? digest : NULL;
  agent_event(d->a, &ev);
  free(d);
}

static void do_look(struct agent *a, const struct agent_action *act) {
  struct image_ref ref;
  char path[AGENT_IMAGE_MAX + 64];
  /* It becomes part of a path: only what is a name of an image may. */
  if (!image_ref_is_id(act->name) && image_ref_parse(act->name, &ref) < 0) {
    fail_now(a, act, ERR_INVALID, "not a name of an image");
    return;
  }
  snprintf(path, sizeof path, "/images/%s/json", act->name);
  ask(a, act, "GET", path, NULL, QUICK, on_image);
}

struct pulling {
  struct agent *a;
  struct agent_action act;
  struct docker_call *call;
  struct docker_lines lines;
  struct docker_pull pull;
  struct loop_timer idle;
  char said[64];
  int64_t said_at;
};

static void pull_end(struct pulling *p, enum err_code code, const char *why) {
  answer(p->a, &p->act, AGENT_EV_IMAGE_PULLED, code, why);
  loop_timer_cancel(p->a->loop, &p->idle);
  docker_lines_fini(&p->lines);
  free(p);
}

static void on_pull_idle(void *arg) {
  struct pulling *p = arg;
  docker_cancel(p->call);
  pull_end(p, ERR_TIMEOUT, "the pull has made no progress for two minutes");
}

static bool on_pull_line(void *arg, const char *text, size_t len) {
  struct pulling *p = arg;
  json_t *line = json_loadb(text, len, 0, NULL);
  if (!line)
    return false;
  docker_pull_line(&p->pull, line);
  json_decref(line);
  return true;
}

static bool on_pull_data(void *arg, const uint8_t *data, size_t len) {
  struct pulling *p = arg;
  if (!docker_lines_feed(&p->lines, data, len, on_pull_line, p))
    return false;
  char text[64];
  docker_pull_text(&p->pull, text);
  int64_t now = loop_now(p->a->loop);
  /* For people: twice a second is plenty. */
  if (strcmp(text, p->said) != 0 && now - p->said_at >= 500 * NS_PER_MS) {
    memcpy(p->said, text, sizeof text);
    p->said_at = now;
    answer(p->a, &p->act, AGENT_EV_IMAGE_PROGRESS, ERR_NONE, text);
  }
  return loop_timer_in(p->a->loop, &p->idle, PULL_IDLE, NULL) == 0;
}

static void on_pull_done(void *arg, const struct docker_reply *reply) {
  struct pulling *p = arg;
  if (reply->code != ERR_NONE)
    pull_end(p, reply->code == ERR_CANCELLED ? ERR_INVALID : reply->code,
             reply->code == ERR_CANCELLED ? "Docker's answer is not understood" : reply->message);
  else if (p->pull.error[0])
    pull_end(p, ERR_NOT_FOUND, p->pull.error);
  else
    pull_end(p, ERR_NONE, "");
}

static void do_pull(struct agent *a, const struct agent_action *act) {
  struct image_ref ref;
  char name[600], escaped[1200], path[1600];
  if (image_ref_parse(act->name, &ref) < 0) {
    fail_now(a, act, ERR_INVALID, "not a name of an image");
    return;
  }
  struct pulling *p = calloc(1, sizeof *p);
  snprintf(name, sizeof name, "%s/%s", ref.registry, ref.path);
  if (!p || http_escape(name, escaped, sizeof escaped) < 0) {
    free(p);
    fail_now(a, act, ERR_MEMORY, "no memory");
    return;
  }
  snprintf(path, sizeof path, "/images/create?fromImage=%s&tag=%s", escaped, *ref.digest ? ref.digest : ref.tag);
  *p = (struct pulling){.a = a, .act = *act, .lines = DOCKER_LINES_INIT};
  p->idle = (struct loop_timer){.cb = on_pull_idle, .arg = p};
  char *auth = docker_auth_header(ref.registry);
  const char *headers[] = {auth, NULL};
  log_info("pulling", "image", act->name);
  p->call = docker_call(
      a->docker,
      &(struct docker_options){
          .method = "POST", .path = path, .headers = headers, .timeout_ns = PULL_TIMEOUT, .data = on_pull_data, .done = on_pull_done, .arg = p});
  docker_auth_free(auth);
  if (!p->call || loop_timer_in(a->loop, &p->idle, PULL_IDLE, NULL) < 0) {
    docker_cancel(p->call);
    pull_end(p, ERR_MEMORY, "no memory");
  }
}

/* ---- networks ---- */

static void network_answer(struct agent *a, const struct agent_action *act, enum err_code code, const char *why, bool ours) {
  struct agent_event ev = {.kind = AGENT_EV_NETWORK_DONE, .op = act->op, .code = code, .text = why, .ours = ours};
  agent_event(a, &ev);
}

static void on_network_found(void *arg, const struct docker_reply *reply) {
  struct doing *d = arg;
  const json_t *labels = json_object_get(reply->json, "Labels");
  const char *cluster = json_string_value(json_object_get(labels, AGENT_LABEL_CLUSTER)),
             *node = json_string_value(json_object_get(labels, AGENT_LABEL_NODE));
  bool cluster_ok = cluster && strcmp(cluster, d->a->self.cluster_id) == 0;
  if (reply->code == ERR_NONE && !cluster_ok)
    network_answer(d->a, &d->act, ERR_CONFLICT, "its name is taken by a network that is not this cluster's", false);
  else
    network_answer(d->a, &d->act, reply->code, reply->message, cluster_ok && node && strcmp(node, d->a->self.node) == 0);
  free(d);
}

static void on_second_removed(void *arg, const struct docker_reply *reply) {
  struct doing *d = arg;
  network_answer(d->a, &d->act, reply->code == ERR_NOT_FOUND ? ERR_NONE : reply->code, reply->message, false);
  free(d);
}

static void on_networks_after(void *arg, const struct docker_reply *reply) {
  struct doing *d = arg;
  struct agent_found_network *list = NULL;
  size_t count = 0;
  struct err err;
  char path[AGENT_CONTAINER_ID + 32] = "";
  if (reply->code == ERR_NONE && docker_parse_networks(reply->json, &d->a->self, &list, &count, &err) == 0)
    for (size_t n = 0; n < count; n++)
      if (strcmp(list[n].name, d->act.name) == 0 && duplicate(list, count, n))
        snprintf(path, sizeof path, "/networks/%s", list[n].id);
  free(list);
  if (*path)
    ask(d->a, &d->act, "DELETE", path, NULL, CREATE_TIMEOUT, on_second_removed);
  else
    network_answer(d->a, &d->act, reply->code, reply->message, true);
  free(d);
}

static void on_network_created(void *arg, const struct docker_reply *reply) {
  struct doing *d = arg;
  char list[2048];
  if (reply->code == ERR_NONE && filtered(d->a, "/networks?", false, list) == 0) {
    ask(d->a, &d->act, "GET", list, NULL, QUICK, on_networks_after);
  } else if (reply->code == ERR_CONFLICT) {
    /* Another agent of this cluster on the same Docker was faster, or somebody else has the name. */
    char path[AGENT_IMAGE_MAX + 32];
    snprintf(path, sizeof path, "/networks/%s", d->act.name);
    ask(d->a, &d->act, "GET", path, NULL, QUICK, on_network_found);
  } else {
    network_answer(d->a, &d->act, reply->code, reply->message, true);
  }
  free(d);
}

static void on_network_removed(void *arg, const struct docker_reply *reply) {
  struct doing *d = arg;
  if (reply->code != ERR_NONE && reply->code != ERR_DENIED && reply->code != ERR_NOT_FOUND)
    log_warn("network not removed", "network", d->act.name, "error", reply->message);
  network_answer(d->a, &d->act, reply->code, reply->message, true);
  free(d);
}

static void do_network_create(struct agent *a, const struct agent_action *act) {
  json_t *body = agent_network_json(&a->core, act->name, act->project, a->daemon->config.address);
  if (body)
    ask(a, act, "POST", "/networks/create", body, CREATE_TIMEOUT, on_network_created);
  else
    fail_now(a, act, ERR_MEMORY, "no memory");
}

void agent_docker_do(struct agent *a, const struct agent_action *act) {
  char path[AGENT_IMAGE_MAX + 64];
  switch (act->kind) {
  case AGENT_ACT_LIST:
    do_list(a, act);
    break;
  case AGENT_ACT_INSTANCE:
    do_instance(a, act);
    break;
  case AGENT_ACT_IMAGE_LOOK:
    do_look(a, act);
    break;
  case AGENT_ACT_IMAGE_PULL:
    do_pull(a, act);
    break;
  case AGENT_ACT_NETWORK_CREATE:
    do_network_create(a, act);
    break;
  case AGENT_ACT_NETWORK_REMOVE:
    snprintf(path, sizeof path, "/networks/%s", act->name);
    ask(a, act, "DELETE", path, NULL, CREATE_TIMEOUT, on_network_removed);
    break;
  case AGENT_ACT_REMOVE_STRAY:
    snprintf(path, sizeof path, "/containers/%s?v=1&force=1", act->container);
    ask(a, act, "DELETE", path, NULL, CREATE_TIMEOUT, on_stray);
    break;
  case AGENT_ACT_RESOLVED:
  case AGENT_ACT_GONE:
  case AGENT_ACT_WORDS:
  case AGENT_ACT_EVENT:
    break;
  }
}

/* ---- the link ---- */

static void on_up(void *arg, const char *version) {
  struct agent *a = arg;
  log_info("Docker answers", "version", version);
  snprintf(a->docker_version, sizeof a->docker_version, "%s", version);
  a->docker_error[0] = 0;
  a->node.has_docker_ok = 1;
  a->node.docker_ok = 1;
  a->report.node_dirty = true;
  daemon_status(a->daemon, "running");
  agent_event(a, &(struct agent_event){.kind = AGENT_EV_DOCKER_UP});
}

static void on_down(void *arg, const char *why) {
  struct agent *a = arg;
  log_error("Docker does not answer", "error", why);
  snprintf(a->docker_error, sizeof a->docker_error, "%s", why);
  pb_make_utf8(a->docker_error);
  a->node.docker_ok = 0;
  a->report.node_dirty = true;
  daemon_status(a->daemon, "Docker does not answer");
  agent_event(a, &(struct agent_event){.kind = AGENT_EV_DOCKER_DOWN, .text = a->docker_error});
}

static void on_event(void *arg, const json_t *event) {
  struct agent *a = arg;
  struct agent_event ev;
  if (docker_parse_event(event, &a->self, &ev))
    agent_event(a, &ev);
}

int agent_docker_start(struct agent *a, struct err *err) {
  static const struct docker_link_ops ops = {.up = on_up, .down = on_down, .event = on_event};
  char filters[512];
  snprintf(filters, sizeof filters,
           "{\"type\":[\"container\"],\"event\":[\"start\",\"die\",\"oom\",\"destroy\"],\"label\":[\"" AGENT_LABEL_CLUSTER "=%s\",\"" AGENT_LABEL_NODE
           "=%s\"]}",
           a->self.cluster_id, a->self.node);
  return docker_link_start(a->docker, filters, &ops, a, err);
}
