/* Following the history: resumed anywhere, also inside of a revision, in the same order; filtered; and what is gone is said. */
#include "tests/unit/apiserver/world.h"

static void put_event(struct world *w, const char *prefix, int64_t ms, uint32_t seq, uint64_t mod, const char *kind, const char *service) {
  char key[KEY_MAX], copy[64];
  snprintf(copy, sizeof copy, "%s", kind);
  Model__Event e = MODEL__EVENT__INIT;
  PB_SET(&e, ms, ms);
  e.kind = copy;
  e.project = TEXT("shop");
  e.service = TEXT(service);
  key_event(key, prefix, ms, seq);
  struct err err;
  assert_int_equal(api_cache_put_message(&w->api.cache, key, &e.base, mod, &err), 0);
  if (mod > w->revision)
    w->revision = mod;
  w->api.cache.revision = w->revision;
}

static struct api_request *start(struct world *w, const char *key, const char *value, const char *last_id) {
  struct api_request *r = api_request_new(&w->api, "GET", "/api/v1/events");
  assert_int_equal(api_request_add_query(r, "follow", "true"), 0);
  if (key)
    assert_int_equal(api_request_add_query(r, key, value), 0);
  if (last_id)
    r->last_event_id = strdup(last_id);
  if (api_admit(&w->api, r, "Bearer a"))
    api_dispatch(&w->api, r);
  assert_non_null(r->stream);
  return r;
}

/* The kinds and ids of what is told now: "kind@id kind@id". */
static void told(struct api_request *r, char *out, size_t size) {
  struct buf b = BUF_INIT(1 << 20);
  out[0] = 0;
  size_t used = 0;
  while (r->stream->fill(r->stream_arg, &b) == API_PIECE_SOME) {
    for (const char *at = buf_str(&b); (at = strstr(at, "event: ")); at++) {
      char name[32], id[32] = "", kind[64] = "";
      const char *data = strstr(at, "data: "), *tag = strstr(at, "id: ");
      sscanf(at, "event: %31s", name);
      if (tag && tag < data)
        sscanf(tag, "id: %31s", id);
      const char *k = strstr(data, "\"kind\":\"");
      if (k && strcmp(name, "event") == 0)
        sscanf(k, "\"kind\":\"%63[^\"]", kind);
      used += (size_t)snprintf(out + used, size - used, "%s%s@%s", used ? " " : "", *kind ? kind : name, id);
    }
    buf_reset(&b);
  }
  buf_free(&b);
}

static void fill(struct world *w) {
  put_token(w, "a", "a", "admin", NULL, 0);
  uint64_t at = w->revision;
  assert_true(at < 10);
  put_event(w, KEY_HISTORY_APISERVER, T0, 1, 10, "service.deployed", "web");
  put_event(w, KEY_HISTORY_SCHEDULER, T0 + 1, 0, 11, "rollout.started", "web");
  put_event(w, KEY_HISTORY_SCHEDULER, T0 + 1, 1, 11, "instance.pending", "web");
  put_event(w, KEY_HISTORY_SCHEDULER, T0 + 1, 2, 11, "rollout.started", "db");
  put_event(w, KEY_HISTORY_APISERVER, T0 + 2, 2, 12, "instance.started", "web");
}

#define EXPECT(w, key, value, last_id, expected)                                                                                                     \
  do {                                                                                                                                               \
    char out[2000];                                                                                                                                  \
    struct api_request *r = start(w, key, value, last_id);                                                                                           \
    told(r, out, sizeof out);                                                                                                                        \
    assert_string_equal(out, expected);                                                                                                              \
    api_request_unref(r);                                                                                                                            \
  } while (0)

static void resumed_anywhere(void **state) {
  struct world *w = *state;
  fill(w);
  EXPECT(w, "since", "1", NULL, "service.deployed@10 rollout.started@11.1 instance.pending@11.2 rollout.started@11 instance.started@12");
  EXPECT(w, NULL, NULL, "10", "rollout.started@11.1 instance.pending@11.2 rollout.started@11 instance.started@12");
  EXPECT(w, NULL, NULL, "11.1", "instance.pending@11.2 rollout.started@11 instance.started@12");
  EXPECT(w, NULL, NULL, "11.2", "rollout.started@11 instance.started@12");
  EXPECT(w, NULL, NULL, "11", "instance.started@12");
  EXPECT(w, NULL, NULL, "12", "");
  EXPECT(w, NULL, NULL, "11.99", "instance.started@12");
  EXPECT(w, NULL, NULL, "12.1", "");
  EXPECT(w, NULL, NULL, "18446744073709551615.3", "");
}

static void filtered(void **state) {
  struct world *w = *state;
  fill(w);
  EXPECT(w, "kind", "rollout", "1", "rollout.started@11.1 rollout.started@11");
  EXPECT(w, "kind", "rollout.", "1", "rollout.started@11.1 rollout.started@11");
  EXPECT(w, "kind", "rollout.started", "1", "rollout.started@11.1 rollout.started@11");
  EXPECT(w, "kind", "roll", "1", "");
  EXPECT(w, "service", "db", "1", "rollout.started@11");
  EXPECT(w, "service", "shop/db", "1", "rollout.started@11");
  EXPECT(w, "service", "sho/db", "1", "");
  EXPECT(w, "service", "shopp/db", "1", "");
}

static void what_is_gone_is_said(void **state) {
  struct world *w = *state;
  put_token(w, "a", "a", "admin", NULL, 0);
  for (uint32_t i = 0; i < API_HISTORY_MAX; i++)
    put_event(w, KEY_HISTORY_SCHEDULER, T0 + i, 0, 100 + i, "instance.pending", "web");
  char out[400000];
  struct api_request *r = start(w, "since", "5", NULL);
  told(r, out, sizeof out);
  assert_memory_equal(out, "trimmed@ instance.pending@100 instance.pending@101", 50);
  api_request_unref(r);
  r = start(w, "since", "99", NULL);
  told(r, out, sizeof out);
  assert_memory_equal(out, "instance.pending@100 ", 21);
  api_request_unref(r);
  r = start(w, NULL, NULL, "7.1"); /* a client that was away for too long */
  told(r, out, sizeof out);
  assert_memory_equal(out, "trimmed@ instance.pending@100", 29);
  api_request_unref(r);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, world_setup, world_teardown)
  const struct CMUnitTest tests[] = {T(resumed_anywhere), T(filtered), T(what_is_gone_is_said)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
