#include "tests/unit/agent/bare_agent.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

struct agent *bare_agent_new(struct daemon *daemon) {
  struct err err;
  struct agent *a = calloc(1, sizeof *a);
  assert_non_null(a);
  a->daemon = daemon;
  a->draining = true; /* what the core wants done is not of interest */
  assert_non_null(a->loop = loop_new(NULL, &err));
  assert_int_equal(agent_core_init(&a->core, "n1", "cluster00000", 2, &err), 0);
  return a;
}

void bare_agent_free(struct agent *a) {
  a->closing = true;
  docker_free(a->docker);
  http_client_free(a->http);
  agent_actions_fini(&a->queue);
  agent_core_fini(&a->core);
  loop_free(a->loop);
  free(a);
}

void bare_agent_connect(struct agent *a, const char *path) {
  struct err err;
  assert_non_null(a->http = http_client_new(a->loop, &err));
  assert_non_null(a->docker = docker_new(a->loop, a->http, path, &err));
}

struct agent_instance *bare_agent_add(struct agent *a, const char *id) {
  struct agent_instance **list = realloc(a->core.instances, (a->core.count + 1) * sizeof *list), *i = calloc(1, sizeof *i);
  assert_true(list && i);
  a->core.instances = list;
  list[a->core.count++] = i;
  a->core.size = a->core.count;
  snprintf(i->id, sizeof i->id, "%s", id);
  return i;
}

static void time_is_up(void *arg) {
  loop_stop(arg);
}

void bare_agent_run(struct agent *a, int64_t ns) {
  struct err err;
  struct loop_timer limit = {.cb = time_is_up, .arg = a->loop};
  assert_int_equal(loop_timer_in(a->loop, &limit, ns, &err), 0);
  assert_int_equal(loop_run(a->loop, &err), 0);
  loop_timer_cancel(a->loop, &limit);
}
