/* What nodes report: only the node's own counts, unchanged things are not written, and what is refused is counted. And how services look then. */
#include "orca-apiserver/round.h"
#include "orca-apiserver/status_view.h"
#include "tests/unit/apiserver/world.h"

#define RUN MODEL__DESIRED__DESIRED_RUN
#define STOP MODEL__DESIRED__DESIRED_STOP
#define RUNNING MODEL__PHASE__PHASE_RUNNING

struct said {
  Node__StatusReport report;
  Model__InstanceStatus status, *statuses[1];
  char *gone[1];
};

static Node__StatusReport *says(struct said *s, const char *project, const char *service, uint64_t number, uint64_t epoch, const char *address) {
  node__status_report__init(&s->report);
  model__instance_status__init(&s->status);
  s->status.project = TEXT(project);
  s->status.service = TEXT(service);
  s->status.address = TEXT(address);
  s->status.node = TEXT("a lie");
  PB_SET(&s->status, number, number);
  PB_SET(&s->status, epoch, epoch);
  PB_SET(&s->status, phase, RUNNING);
  PB_SET(&s->status, ready, 1);
  PB_SET(&s->status, drained, 1); /* not an agent's to say */
  s->statuses[0] = &s->status;
  s->report.instances = s->statuses;
  s->report.n_instances = 1;
  return &s->report;
}

/* Reports, and puts into the cache what would be stored. */
static size_t take(struct world *w, const char *node, const Node__StatusReport *report) {
  struct api_round r;
  api_round_init(&r, &w->api.cache);
  assert_int_equal(api_round_report(&r, node, report, T0), 0);
  size_t writes = r.writes.count;
  for (size_t i = 0; i < writes; i++) {
    if (r.writes.list[i].value)
      put(w, r.writes.list[i].key, r.writes.list[i].value);
    else
      api_cache_del(&w->api.cache, r.writes.list[i].key);
  }
  api_round_fini(&r);
  return writes;
}

static const Model__InstanceStatus *status(struct world *w, uint64_t number) {
  const Model__Instance *i = api_cache_instance(&w->api.cache, "shop", "api", number);
  return i ? api_cache_instance_status(&w->api.cache, i) : NULL;
}

static void only_its_own_instances(void **state) {
  struct world *w = *state;
  struct said s;
  put_instance(w, "shop", "api", 1, 1, "n1", RUN);
  assert_int_equal(take(w, "n2", says(&s, "shop", "api", 1, 1, "10.0.0.1")), 1); /* its node's state, no more */
  assert_null(status(w, 1));
  take(w, "n1", says(&s, "shop", "api", 1, 7, "10.0.0.1")); /* of another epoch */
  take(w, "n1", says(&s, "shop", "api", 2, 1, "10.0.0.1")); /* of no instance */
  take(w, "n1", says(&s, "..", "a/b", 1, 1, "10.0.0.1"));
  take(w, "n1", says(&s, "shop", "api", 1, 1, "evil.example.com"));
  assert_null(status(w, 1));
  take(w, "n1", says(&s, "shop", "api", 1, 1, "10.0.0.1"));
  assert_true(status(w, 1)->ready);
  assert_false(status(w, 1)->drained);
  assert_string_equal(status(w, 1)->node, "n1");
  assert_int_equal(take(w, "n1", says(&s, "shop", "api", 1, 1, "10.0.0.1")), 0); /* again: nothing to write */
}

static void drained_stays_ours(void **state) {
  struct world *w = *state;
  struct said s;
  put_instance(w, "shop", "api", 1, 1, "n1", MODEL__DESIRED__DESIRED_DRAIN);
  take(w, "n1", says(&s, "shop", "api", 1, 1, "10.0.0.1"));
  struct api_round r;
  api_round_init(&r, &w->api.cache);
  assert_int_equal(api_round_drained(&r, api_cache_instance(&w->api.cache, "shop", "api", 1)), 0);
  assert_int_equal(r.writes.count, 1);
  put(w, r.writes.list[0].key, r.writes.list[0].value);
  assert_int_equal(api_round_drained(&r, api_cache_instance(&w->api.cache, "shop", "api", 1)), 0);
  api_round_fini(&r);
  assert_true(status(w, 1)->drained);
  says(&s, "shop", "api", 1, 1, "10.0.0.1");
  PB_SET(&s.status, drained, 0);
  PB_SET(&s.status, restarts, 3);
  take(w, "n1", &s.report);
  assert_int_equal(status(w, 1)->restarts, 3);
  assert_true(status(w, 1)->drained);
}

static void gone_is_gone(void **state) {
  struct world *w = *state;
  struct said s;
  put_instance(w, "shop", "api", 1, 1, "n1", STOP);
  take(w, "n1", says(&s, "shop", "api", 1, 1, "10.0.0.1"));
  Node__StatusReport report = NODE__STATUS_REPORT__INIT;
  char id[] = "shop/api.1", *gone[] = {id};
  report.gone = gone;
  report.n_gone = 1;
  take(w, "n2", &report); /* not that node's to say */
  assert_non_null(status(w, 1));
  take(w, "n1", &report);
  assert_null(status(w, 1));
}

/* An agent that lost its memory between removing a container and saying so. */
static void a_full_report_sweeps(void **state) {
  struct world *w = *state;
  struct said s;
  for (uint64_t i = 1; i <= 3; i++) {
    put_instance(w, "shop", "api", i, 1, i == 3 ? "n2" : "n1", RUN);
    take(w, i == 3 ? "n2" : "n1", says(&s, "shop", "api", i, 1, "10.0.0.1"));
  }
  put_instance(w, "shop", "api", 1, 1, "n1", STOP);
  Node__StatusReport report = NODE__STATUS_REPORT__INIT;
  PB_SET(&report, full, 1);
  take(w, "n1", &report);
  assert_null(status(w, 1));     /* stopped and not there: gone */
  assert_non_null(status(w, 2)); /* wanted: its agent is about to make it */
  assert_non_null(status(w, 3)); /* another node's */
}

static void the_first_image_stays(void **state) {
  struct world *w = *state;
  put_revision(w, "shop", "api", 1, "x:1", NULL);
  Node__StatusReport report = NODE__STATUS_REPORT__INIT;
  Node__ImageResolved image = NODE__IMAGE_RESOLVED__INIT, *images[] = {&image};
  report.images = images;
  report.n_images = 1;
  image.project = TEXT("shop");
  image.service = TEXT("api");
  image.image = TEXT("x@sha256:1");
  PB_SET(&image, revision, 1);
  take(w, "n1", &report);
  image.image = TEXT("x@sha256:2");
  take(w, "n2", &report);
  assert_string_equal(api_cache_revision_status(&w->api.cache, "shop", "api", 1)->image, "x@sha256:1");
  PB_SET(&image, revision, 9);
  take(w, "n1", &report);
  assert_null(api_cache_revision_status(&w->api.cache, "shop", "api", 9));
}

static void events_are_told_as_the_nodes_own(void **state) {
  struct world *w = *state;
  struct api_round r;
  Node__StatusReport report = NODE__STATUS_REPORT__INIT;
  Model__Event event = MODEL__EVENT__INIT, *events[API_ROUND_EVENTS + 5];
  for (size_t i = 0; i < API_ROUND_EVENTS + 5; i++)
    events[i] = &event;
  report.events = events;
  report.n_events = API_ROUND_EVENTS + 5;
  event.kind = TEXT("instance.exited");
  event.node = TEXT("another");
  event.actor = TEXT("admin");
  event.severity = TEXT("loud");
  PB_SET(&event, ms, T0 * 2);
  api_round_init(&r, &w->api.cache);
  assert_int_equal(api_round_report(&r, "n1", &report, T0), 0);
  assert_int_equal(r.event_count, API_ROUND_EVENTS + 1); /* and that the node is ready */
  assert_int_equal(r.refused, 5);
  assert_string_equal(r.events[0]->node, "n1");
  assert_string_equal(r.events[0]->actor, "agent@n1");
  assert_string_equal(r.events[0]->severity, "info");
  assert_true(r.events[0]->ms == T0);
  report.n_events = 1;
  event.kind = TEXT("bad kind\n");
  assert_int_equal(api_round_report(&r, "n1", &report, T0), 0);
  assert_int_equal(r.refused, 6);
  api_round_fini(&r);
}

static void a_node_is_ready_while_it_reports(void **state) {
  struct world *w = *state;
  Node__StatusReport report = NODE__STATUS_REPORT__INIT;
  Model__NodeStatus node = MODEL__NODE_STATUS__INIT;
  node.name = TEXT("another");
  PB_SET(&node, memory, 1000);
  PB_SET(&node, state, MODEL__NODE_STATE__NODE_UNREACHABLE);
  report.node = &node;
  take(w, "n1", &report);
  const Model__NodeStatus *s = api_cache_node_status(&w->api.cache, "n1");
  assert_int_equal(s->state, MODEL__NODE_STATE__NODE_READY);
  assert_string_equal(s->name, "n1");
  struct api_round r;
  api_round_init(&r, &w->api.cache);
  assert_int_equal(api_round_node_state(&r, "n1", MODEL__NODE_STATE__NODE_UNREACHABLE, "agent is not connected", T0), 0);
  assert_int_equal(r.event_count, 1);
  put(w, r.writes.list[0].key, r.writes.list[0].value);
  api_round_fini(&r);
  s = api_cache_node_status(&w->api.cache, "n1");
  assert_int_equal(s->memory, 1000); /* what is known of it stays */
  assert_string_equal(s->reason, "agent is not connected");
}

/* ---- the word for a service ---- */

static const char *word(struct world *w) {
  struct api_view v;
  api_view(&w->api.cache, &w->api.figures, api_cache_service(&w->api.cache, "shop", "api", NULL), &v);
  return v.status;
}

static void what_flies_is_judged_by(void **state) {
  struct world *w = *state;
  struct said s;
  struct api_round r;
  Model__Event *events[API_TAKE_EVENTS];
  size_t count;
  put_instance(w, "shop", "api", 1, 1, "n1", RUN);
  put_status(w, "shop", "api", 1, "n1", RUNNING, false);
  api_round_init(&r, &w->api.cache);
  says(&s, "shop", "api", 1, 1, "10.0.0.1");
  assert_int_equal(api_round_report(&r, "n1", &s.report, T0), 0);
  assert_int_equal(api_round_take(&r, events, &count), 0);
  for (size_t i = 0; i < count; i++)
    model__event__free_unpacked(events[i], NULL);
  assert_true(api_round_is_empty(&r));
  assert_int_equal(r.flying.count, 2); /* the instance, the node */
  /* The same again says nothing new; the opposite does, though the cache still has it. */
  assert_int_equal(api_round_report(&r, "n1", &s.report, T0), 0);
  assert_int_equal(r.writes.count, 0);
  PB_SET(&s.status, ready, 0);
  assert_int_equal(api_round_report(&r, "n1", &s.report, T0), 0);
  assert_int_equal(r.writes.count, 1);
  assert_false(((const Model__InstanceStatus *)r.writes.list[0].value)->ready);
  /* What was judged by a lost part goes with it. */
  api_round_lost(&r);
  assert_true(api_round_is_empty(&r));
  assert_int_equal(r.flying.count, 0);
  api_round_fini(&r);
}

static void many_reports_go_in_parts(void **state) {
  struct world *w = *state;
  struct said s;
  struct api_round r;
  Model__Event *events[API_TAKE_EVENTS];
  api_round_init(&r, &w->api.cache);
  for (uint64_t n = 1; n <= 1500; n++) {
    put_instance(w, "shop", "api", n, 1, "n1", RUN);
    assert_int_equal(api_round_report(&r, "n1", says(&s, "shop", "api", n, 1, "10.0.0.1"), T0), 0);
  }
  size_t all = 0, parts = 0, count;
  for (; !api_round_is_empty(&r); parts++) {
    assert_int_equal(api_round_take(&r, events, &count), 0);
    assert_true(r.flying.count <= 900); /* the store takes 1,000 operations, the events' among them */
    for (size_t i = 0; i < count; i++)
      model__event__free_unpacked(events[i], NULL);
    all += r.flying.count;
    api_round_landed(&r);
  }
  assert_int_equal(all, 1501);
  assert_true(parts >= 2 && parts <= 5);
  api_round_fini(&r);
}

static void texts_are_held_within_bounds(void **state) {
  struct world *w = *state;
  struct said s;
  static char huge[100000], rude[] = "\x1b[2J\r\nlevel=error \xc2\x9b"
                                     "31m";
  put_instance(w, "shop", "api", 1, 1, "n1", RUN);
  memset(huge, 'x', sizeof huge - 1);
  says(&s, "shop", "api", 1, 1, "10.0.0.1");
  s.status.reason = rude;
  s.status.progress = huge;
  take(w, "n1", &s.report);
  assert_string_equal(status(w, 1)->reason, " [2J  level=error   31m");
  assert_true(strlen(status(w, 1)->progress) <= 256);
  /* Fields of a later version are kept, a hundred kilobytes of them are not. */
  ProtobufCMessageUnknownField more = {.tag = 4711, .wire_type = PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED, .len = sizeof huge, .data = (uint8_t *)huge};
  says(&s, "shop", "api", 1, 1, "10.0.0.2");
  s.status.base.unknown_fields = &more;
  s.status.base.n_unknown_fields = 1;
  take(w, "n1", &s.report);
  assert_string_equal(status(w, 1)->address, "10.0.0.1");
}

static void words(void **state) {
  struct world *w = *state;
  put_service(w, "shop", "api", 1, 2);
  put_revision(w, "shop", "api", 1, "x:1", NULL);
  assert_string_equal(word(w), "deploying");
  put_rollout(w, "shop", "api", MODEL__ROLLOUT_STATE__ROLLOUT_PROGRESSING, 1, 0);
  put_instance(w, "shop", "api", 1, 1, "n1", RUN);
  put_instance(w, "shop", "api", 2, 1, "", RUN);
  assert_string_equal(word(w), "pending");
  put_instance(w, "shop", "api", 2, 1, "n1", RUN);
  put_status(w, "shop", "api", 1, "n1", RUNNING, true);
  assert_string_equal(word(w), "deploying");
  put_status(w, "shop", "api", 2, "n1", RUNNING, true);
  put_rollout(w, "shop", "api", MODEL__ROLLOUT_STATE__ROLLOUT_COMPLETE, 1, 1);
  assert_string_equal(word(w), "running");
  put_status(w, "shop", "api", 2, "n1", RUNNING, false);
  assert_string_equal(word(w), "degraded");
  put_status(w, "shop", "api", 2, "n1", RUNNING, true);
  put_service(w, "shop", "api", 1, 3); /* scale */
  put_instance(w, "shop", "api", 3, 1, "n1", RUN);
  assert_string_equal(word(w), "deploying");
  put_status(w, "shop", "api", 3, "n1", RUNNING, false);
  assert_string_equal(word(w), "degraded");
  api_cache_del(&w->api.cache, "/instances/shop/api/0000000003");
  put_service(w, "shop", "api", 2, 2);
  put_rollout(w, "shop", "api", MODEL__ROLLOUT_STATE__ROLLOUT_ROLLING_BACK, 2, 1);
  assert_string_equal(word(w), "rolling_back");
  put_rollout(w, "shop", "api", MODEL__ROLLOUT_STATE__ROLLOUT_ROLLED_BACK, 2, 1);
  assert_string_equal(word(w), "rolled_back");
  put_rollout(w, "shop", "api", MODEL__ROLLOUT_STATE__ROLLOUT_FAILED, 2, 0);
  assert_string_equal(word(w), "failed");
  struct api_view v;
  bool ok;
  api_view(&w->api.cache, &w->api.figures, api_cache_service(&w->api.cache, "shop", "api", NULL), &v);
  assert_string_equal(v.last_error, "it was not ready in time");
  assert_true(api_view_settled(&v, &ok));
  assert_false(ok);
  put_service(w, "shop", "api", 2, 0);
  assert_string_equal(word(w), "stopping");
  api_cache_del(&w->api.cache, "/instances/shop/api/0000000001");
  api_cache_del(&w->api.cache, "/instances/shop/api/0000000002");
  assert_string_equal(word(w), "stopped");
}

static void times_and_text(void **state) {
  (void)state;
  static const char *const good[] = {"2026-01-02T03:04:05Z", "2026-01-02T03:04:05.678Z", "2026-01-02 03:04:05+01:00", "2024-02-29T23:59:59-11:30"};
  static const char *const bad[] = {"", "2026", "2026-13-01T00:00:00Z", "2026-01-02T03:04:05", "2026-01-02T25:04:05Z", "2026-01-02T03:04:05Zx", "x"};
  int64_t ms;
  char text[32];
  for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
    assert_int_equal(api_time_parse(good[i], &ms), 0);
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
    assert_int_equal(api_time_parse(bad[i], &ms), -1);
  assert_int_equal(api_time_parse("2026-01-02T04:04:05.678+01:00", &ms), 0);
  api_time_text(ms, text);
  assert_string_equal(text, "2026-01-02T03:04:05.678Z");
  api_time_text(INT64_MAX, text);
  api_time_text(INT64_MIN, text);
  struct buf out = BUF_INIT(1000);
  struct api_json json = {.out = &out};
  api_json_str(&json, NULL, "a\"\\\x1b[31m\n\x7f\xc3\xa9");
  assert_string_equal(buf_str(&out), "\"a\\\"\\\\\\u001b[31m\\n\\u007f\xc3\xa9\"");
  buf_free(&out);
  char cut[4];
  api_text_copy(cut, sizeof cut, "ab\xc3\xa9");
  assert_string_equal(cut, "ab");
}

int main(void) {
  const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)
      T(only_its_own_instances),
      T(drained_stays_ours),
      T(gone_is_gone),
      T(a_full_report_sweeps),
      T(the_first_image_stays),
      T(events_are_told_as_the_nodes_own),
      T(a_node_is_ready_while_it_reports),
      T(what_flies_is_judged_by),
      T(many_reports_go_in_parts),
      T(texts_are_held_within_bounds),
      T(words),
      cmocka_unit_test(times_and_text),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
