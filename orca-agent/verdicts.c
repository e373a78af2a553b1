#include "orca-agent/verdicts.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/bus/pb.h"
#include "common/log.h"

#define MAX_FILE ((size_t)4 << 20)

struct remembered {
  char container[AGENT_CONTAINER_ID];
  int64_t started_ms;
  bool started, ready;
};

struct verdicts {
  struct agent *a;
  char path[PATH_MAX], temporary[PATH_MAX];
  struct remembered *list; /* from before the start; used up as containers are found */
  size_t count;
  struct buf written;
};

static void read_lines(struct verdicts *v) {
  FILE *f = fopen(v->path, "re");
  if (!f)
    return;
  size_t size = 0;
  struct remembered r;
  int started, ready;
  while (v->count < AGENT_MAX_INSTANCES && fscanf(f, "%64[0-9a-f] %" SCNd64 " %d %d ", r.container, &r.started_ms, &started, &ready) == 4) {
    if (v->count == size) {
      size = size ? size * 2 : 32;
      struct remembered *list = reallocarray(v->list, size, sizeof *list);
      if (!list)
        break;
      v->list = list;
    }
    r.started = started == 1;
    r.ready = ready == 1;
    v->list[v->count++] = r;
  }
  fclose(f);
}

struct agent_event verdict_event(const Keeper__Verdict *said) {
  struct agent_event ev = {.kind = AGENT_EV_VERDICT,
                           .instance = PB_STR(said->instance),
                           .container_id = PB_STR(said->container_id),
                           .started_ms = PB_GET(said, started_ms, 0),
                           .live = PB_GET(said, live, true)};
  ev.verdict.started = PB_GET(said, started, false);
  ev.verdict.ready = PB_GET(said, ready, false);
  snprintf(ev.verdict.reason, sizeof ev.verdict.reason, "%s", PB_STR(said->reason));
  return ev;
}

struct verdicts *verdicts_open(struct agent *a, struct err *err) {
  struct verdicts *v = calloc(1, sizeof *v);
  if (!v) {
    err_set(err, ERR_MEMORY, "no memory");
    return NULL;
  }
  v->a = a;
  v->written = BUF_INIT(MAX_FILE);
  const char *dir = a->daemon->config.state_dir;
  if (snprintf(v->path, sizeof v->path, "%s/agent/verdicts", dir) >= (int)sizeof v->path ||
      snprintf(v->temporary, sizeof v->temporary, "%s/agent/verdicts.new", dir) >= (int)sizeof v->temporary) {
    err_set(err, ERR_INVALID, "state_dir is too long");
    free(v);
    return NULL;
  }
  read_lines(v);
  return v;
}

void verdicts_close(struct verdicts *v) {
  if (!v)
    return;
  buf_free(&v->written);
  free(v->list);
  free(v);
}

static void restore(struct verdicts *v) {
  for (size_t n = 0; n < v->count;) {
    struct remembered r = v->list[n];
    const struct agent_instance *i = agent_core_find_container(&v->a->core, r.container);
    bool found = i && i->phase == MODEL__PHASE__PHASE_RUNNING && i->c.detailed;
    if (!found) {
      n++;
      continue;
    }
    v->list[n] = v->list[--v->count];
    if (i->verdict.known)
      continue;
    struct agent_event ev = {.kind = AGENT_EV_VERDICT, .instance = i->id, .container_id = r.container, .started_ms = r.started_ms, .live = true};
    ev.verdict.started = r.started;
    ev.verdict.ready = r.ready;
    agent_event(v->a, &ev);
  }
}

/* What was not found; but one that Docker can't look at may still be. */
static void forget(struct verdicts *v) {
  size_t kept = 0;
  for (size_t n = 0; n < v->count; n++) {
    const struct agent_instance *i = agent_core_find_container(&v->a->core, v->list[n].container);
    if (i && i->look_failed)
      v->list[kept++] = v->list[n];
  }
  v->count = kept;
}

static int write_whole(const struct verdicts *v, const struct buf *text) {
  int fd = open(v->temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0)
    return -1;
  bool ok = write(fd, text->data ? (const char *)text->data : "", text->len) == (ssize_t)text->len;
  ok = close(fd) == 0 && ok;
  return ok && rename(v->temporary, v->path) == 0 ? 0 : -1;
}

static void save(struct verdicts *v) {
  struct buf text = BUF_INIT(MAX_FILE);
  const struct agent_core *core = &v->a->core;
  for (size_t n = 0; n < core->count; n++) {
    const struct agent_instance *i = core->instances[n];
    if (i->verdict.known && i->c.id[0])
      buf_printf(&text, "%s %" PRId64 " %d %d\n", i->c.id, i->c.started_ns / NS_PER_MS, i->verdict.started, i->verdict.ready);
  }
  for (size_t n = 0; n < v->count; n++)
    buf_printf(&text, "%s %" PRId64 " %d %d\n", v->list[n].container, v->list[n].started_ms, v->list[n].started, v->list[n].ready);
  bool same = text.len == v->written.len && (!text.len || memcmp(text.data, v->written.data, text.len) == 0);
  if (!same && !buf_failed(&text)) {
    if (write_whole(v, &text) < 0)
      log_warn("verdicts not written", "file", v->path, "error", strerror(errno));
    buf_free(&v->written);
    v->written = text;
    return;
  }
  buf_free(&text);
}

void verdicts_restore(struct verdicts *v) {
  restore(v);
  /* Until everything has been found again, what is remembered is not yet up to date. */
  if (agent_core_settled(&v->a->core)) {
    forget(v);
    save(v);
  }
}
