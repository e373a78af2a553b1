#include "orca-agent/agent_secrets.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/crypto/crypto.h"
#include "common/log.h"
#include "orca-agent/gateway_rpc.h"
#include "orca-agent/secret_user.h"
#include "orca-agent/secret_values.h"

#define QUICK (30 * NS_PER_SEC)
#define PASSWD_MAX ((size_t)1 << 20)

struct agent_held {
  char instance[INSTANCE_ID_MAX];
  Node__Secrets *values;
  struct agent_held *next;
};

/* ---- held values ---- */

static void held_free(struct agent_held *held) {
  secret_values_free(held->values);
  free(held);
}

const Node__Secrets *agent_secrets_held(const struct agent *a, const char *instance) {
  for (const struct agent_held *h = a->held_secrets; h; h = h->next)
    if (strcmp(h->instance, instance) == 0)
      return h->values;
  return NULL;
}

void agent_secrets_drop(struct agent *a, const char *instance) {
  for (struct agent_held **at = &a->held_secrets; *at; at = &(*at)->next)
    if (strcmp((*at)->instance, instance) == 0) {
      struct agent_held *held = *at;
      *at = held->next;
      held_free(held);
      return;
    }
}

void agent_secrets_fini(struct agent *a) {
  while (a->held_secrets) {
    struct agent_held *held = a->held_secrets;
    a->held_secrets = held->next;
    held_free(held);
  }
  secret_files_close(&a->secret_files);
}

/* Of instances that are no longer about to be made. */
static void drop_stale(struct agent *a) {
  for (struct agent_held **at = &a->held_secrets; *at;) {
    struct agent_held *held = *at;
    const struct agent_instance *i = agent_core_find(&a->core, held->instance);
    if (i && i->want == AGENT_WANT_RUN && i->c.state != AGENT_C_RUNNING) {
      at = &held->next;
      continue;
    }
    *at = held->next;
    held_free(held);
  }
}

/* Takes values. */
static int hold(struct agent *a, const char *instance, Node__Secrets *values) {
  agent_secrets_drop(a, instance);
  drop_stale(a);
  struct agent_held *held = calloc(1, sizeof *held);
  if (!held) {
    secret_values_free(values);
    return -1;
  }
  snprintf(held->instance, sizeof held->instance, "%s", instance);
  held->values = values;
  held->next = a->held_secrets;
  a->held_secrets = held;
  return 0;
}

/* ---- fetching ---- */

struct fetching {
  struct agent *a;
  char instance[INSTANCE_ID_MAX];
  uint64_t revision;
  agent_secrets_fn *done;
  void *arg;
};

static void fetched(struct fetching *f, enum err_code code, const char *why) {
  f->done(f->arg, code, why);
  free(f);
}

static void on_secrets(void *arg, Node__Secrets *values, const struct err *why) {
  struct fetching *f = arg;
  struct agent *a = f->a;
  struct err err;
  if (!values) {
    fetched(f, why->code, why->msg);
    return;
  }
  const struct agent_instance *i = agent_core_find(&a->core, f->instance);
  const Model__ServiceSpec *spec = i ? agent_instance_spec(i) : NULL;
  char container[AGENT_NAME_MAX];
  if (!spec || i->assigned->instance->revision != f->revision) {
    secret_values_free(values);
    fetched(f, ERR_CONFLICT, "it is another revision now");
    return;
  }
  agent_container_name(&a->core, i, container);
  if (spec->n_secret_files && secret_files_lay(&a->secret_files, container, spec, values, &err) < 0) {
    secret_values_free(values);
    fetched(f, err.code == ERR_NOT_FOUND ? ERR_IO : err.code, err.msg);
    return;
  }
  if (hold(a, f->instance, values) < 0)
    fetched(f, ERR_MEMORY, "no memory");
  else
    fetched(f, ERR_NONE, "");
}

void agent_secrets_fetch(struct agent *a, const char *instance, agent_secrets_fn *done, void *arg) {
  const struct agent_instance *i = agent_core_find(&a->core, instance);
  struct fetching *f = i && i->assigned ? calloc(1, sizeof *f) : NULL;
  struct err err;
  if (!f) {
    done(arg, ERR_MEMORY, "no memory, or no longer assigned");
    return;
  }
  *f = (struct fetching){.a = a, .revision = i->assigned->instance->revision, .done = done, .arg = arg};
  snprintf(f->instance, sizeof f->instance, "%s", instance);
  if (gateway_get_secrets(a->gateway, f->instance, f->revision, on_secrets, f, &err) < 0)
    fetched(f, err.code, err.msg);
}

/* ---- before a start ---- */

struct starting {
  struct agent *a;
  struct agent_action act;
  char container[AGENT_NAME_MAX], user[64];
  struct buf passwd;
};

static void start_end(struct starting *s, enum err_code code, const char *why) {
  struct agent *a = s->a;
  struct agent_action act = s->act;
  char text[256];
  snprintf(text, sizeof text, "%s", why);
  buf_free(&s->passwd);
  free(s);
  if (code == ERR_NONE)
    agent_docker_start_container(a, &act);
  else
    agent_event(a, &(struct agent_event){.kind = AGENT_EV_DONE, .op = act.op, .instance = act.instance, .code = code, .text = text});
}

static void warn_root(const struct starting *s, const char *why) {
  const struct agent_instance *i = agent_core_find(&s->a->core, s->act.instance);
  struct agent_action event = {.kind = AGENT_ACT_EVENT, .severity = "warn"};
  if (!i)
    return;
  snprintf(event.name, sizeof event.name, "instance.secret_files");
  snprintf(event.instance, sizeof event.instance, "%s", i->id);
  snprintf(event.project, sizeof event.project, "%s", i->project);
  snprintf(event.service, sizeof event.service, "%s", i->service);
  event.number = i->number;
  snprintf(event.text, sizeof event.text,
           "its secret files are root's, and its user may not be able to read them: %.120s; a number as `user` always works", why);
  log_warn(event.name, "instance", event.instance, "detail", event.text);
  report_event(&s->a->report, &event, s->a->core.node, loop_wall(s->a->loop) / NS_PER_MS);
}

static void own(struct starting *s, uid_t uid) {
  struct err err;
  if (secret_files_own(&s->a->secret_files, s->container, uid, &err) < 0)
    start_end(s, ERR_IO, err.msg);
  else
    start_end(s, ERR_NONE, "");
}

static bool on_passwd_data(void *arg, const uint8_t *data, size_t len) {
  struct starting *s = arg;
  return buf_add(&s->passwd, data, len) == 0;
}

static void on_passwd(void *arg, const struct docker_reply *reply) {
  struct starting *s = arg;
  uid_t uid = 0;
  if (s->a->closing) {
    start_end(s, ERR_CANCELLED, reply->message);
    return;
  }
  if (reply->code != ERR_NONE || secret_user_in_archive(s->passwd.data, s->passwd.len, s->user, &uid) < 0) {
    char why[160];
    snprintf(why, sizeof why, "user %.40s is not to be found in its /etc/passwd%s%.60s", s->user, reply->code == ERR_NONE ? "" : ": ",
             reply->code == ERR_NONE ? "" : reply->message);
    warn_root(s, why);
    uid = 0;
  }
  own(s, uid);
}

static void find_user(struct starting *s) {
  char path[AGENT_NAME_MAX + 64];
  snprintf(path, sizeof path, "/containers/%s/archive?path=/etc/passwd", s->act.container);
  if (!docker_call(s->a->docker,
                   &(struct docker_options){.method = "GET", .path = path, .timeout_ns = QUICK, .data = on_passwd_data, .done = on_passwd, .arg = s}))
    start_end(s, ERR_MEMORY, "no memory");
}

static void on_inspected(void *arg, const struct docker_reply *reply) {
  struct starting *s = arg;
  const char *user = json_string_value(json_object_get(json_object_get(reply->json, "Config"), "User"));
  uid_t uid;
  if (reply->code != ERR_NONE) {
    start_end(s, reply->code, reply->message);
    return;
  }
  switch (secret_user_parse(user ? user : "", &uid, s->user)) {
  case SECRET_USER_NUMBER:
    own(s, uid);
    return;
  case SECRET_USER_NAME:
    find_user(s);
    return;
  case SECRET_USER_BAD:
    warn_root(s, "what it runs as is no user's name");
    own(s, 0);
    return;
  }
}

static void look_at_owner(struct starting *s) {
  char path[AGENT_NAME_MAX + 64];
  if (secret_files_owned(&s->a->secret_files, s->container)) {
    start_end(s, ERR_NONE, "");
    return;
  }
  snprintf(path, sizeof path, "/containers/%s/json", s->act.container);
  if (!docker_call(s->a->docker, &(struct docker_options){.method = "GET", .path = path, .timeout_ns = QUICK, .done = on_inspected, .arg = s}))
    start_end(s, ERR_MEMORY, "no memory");
}

static void on_laid_again(void *arg, enum err_code code, const char *why) {
  struct starting *s = arg;
  agent_secrets_drop(s->a, s->act.instance); /* its environment it has */
  if (code != ERR_NONE)
    start_end(s, code, why);
  else
    look_at_owner(s);
}

bool agent_secrets_before_start(struct agent *a, const struct agent_action *act) {
  const struct agent_instance *i = agent_core_find(&a->core, act->instance);
  const Model__ServiceSpec *spec = i ? agent_instance_spec(i) : NULL;
  if (!i || !(spec ? spec->n_secret_files != 0 : secret_label_has_files(i->c.secrets)))
    return false;
  struct starting *s = calloc(1, sizeof *s);
  if (!s) {
    agent_event(a, &(struct agent_event){.kind = AGENT_EV_DONE, .op = act->op, .instance = act->instance, .code = ERR_MEMORY, .text = "no memory"});
    return true;
  }
  *s = (struct starting){.a = a, .act = *act, .passwd = BUF_INIT(PASSWD_MAX)};
  agent_container_name(&a->core, i, s->container);
  if (secret_files_there(&a->secret_files, s->container))
    look_at_owner(s);
  else if (spec)
    agent_secrets_fetch(a, act->instance, on_laid_again, s);
  else
    start_end(s, ERR_UNAVAILABLE, "its secret files are gone, and no master has been heard yet");
  return true;
}

/* ---- tidying ---- */

void agent_secrets_sweep(struct agent *a) {
  drop_stale(a);
  if (a->core.have_desired && a->core.ever_listed)
    secret_files_sweep(&a->secret_files, agent_knows, a);
}
