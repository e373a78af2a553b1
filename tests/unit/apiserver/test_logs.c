/* Logs: whose line is next; where a client goes on; lines as JSON. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "orca-apiserver/log_merge.h"
#include "orca-apiserver/log_relay.h"
#include "tests/unit/apiserver/world.h"

static void test_merge(void **state) {
  (void)state;
  int64_t until, at;
  struct log_merge_head h[3] = {
      {.state = LOG_MERGE_HISTORY, .any = true, .ns = 30}, {.state = LOG_MERGE_HISTORY, .any = true, .ns = 10}, {.state = LOG_MERGE_HISTORY}};
  assert_int_equal(log_merge_pick(h, 3, 0, &until, &at), -1); /* the third may still have an older one */
  assert_true(at == INT64_MAX);
  h[2] = (struct log_merge_head){.state = LOG_MERGE_HISTORY, .any = true, .ns = 20};
  assert_int_equal(log_merge_pick(h, 3, 0, &until, &at), 1);
  assert_true(until == 20);
  h[2].any = false;
  h[2].state = LOG_MERGE_OVER;
  assert_int_equal(log_merge_pick(h, 3, 0, &until, &at), 1);
  assert_true(until == 30);
  /* Live: waits its window, and no longer. */
  h[2].state = LOG_MERGE_LIVE;
  h[1].arrived = 1000;
  assert_int_equal(log_merge_pick(h, 3, 1000, &until, &at), -1);
  assert_true(at == 1000 + LOG_MERGE_WINDOW);
  assert_int_equal(log_merge_pick(h, 3, at, &until, &at), 1);
  /* A line is not torn apart. */
  h[0].in_pieces = true;
  assert_int_equal(log_merge_pick(h, 3, 1000, &until, &at), 0);
  /* One alone never waits. */
  h[1].state = LOG_MERGE_LIVE;
  assert_int_equal(log_merge_pick(h + 1, 1, 1000, &until, &at), 0);
  assert_true(until == INT64_MAX);
  h[1].any = false;
  assert_int_equal(log_merge_pick(h + 1, 1, 1000, &until, &at), -1);
  assert_int_equal(log_merge_pick(h, 0, 0, &until, &at), -1);
}

static void test_resume(void **state) {
  (void)state;
  struct log_resume r;
  struct err err;
  assert_int_equal(log_resume_parse("@12,3:100-o-1,14:200-e-7", &r, &err), 0);
  assert_true(r.began_ns == 12 && r.count == 2 && r.places[1].number == 14 && r.places[1].mark.ns == 200 && r.places[1].mark.count == 7);
  free(r.places);
  assert_int_equal(log_resume_parse("3:100-o-1", &r, &err), 0);
  assert_true(!r.began_ns && r.count == 1);
  free(r.places);
  assert_int_equal(log_resume_parse("@5", &r, &err), 0);
  assert_int_equal(r.count, 0);
  free(r.places);
  static const char *const wrong[] = {"3", "@", "@x", "3:", ":100-o-1", "x:100-o-1", "3:100-o-1;4:100-o-1", "3:100", "@1 ,3:100-o-1", ",,"};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    if (log_resume_parse(wrong[i], &r, &err) == 0)
      fail_msg("taken: %s", wrong[i]);
    assert_null(r.places);
  }
}

static void test_json(void **state) {
  (void)state;
  static const uint8_t text[] = "a\"\\\x1b[31m\0\n\xc3\xa4\xff\xed\xa0\x80\x7f";
  struct buf out = BUF_INIT(4096);
  log_line_json(&out, "shop/web.3", INT64_C(1795262400123456789), true, text, sizeof text - 1, true);
  json_t *json = json_loadb(buf_str(&out), out.len, JSON_ALLOW_NUL, NULL);
  assert_non_null(json);
  assert_string_equal(json_string_value(json_object_get(json, "time")), "2026-11-21T12:00:00.123456789Z");
  assert_string_equal(json_string_value(json_object_get(json, "stream")), "stderr");
  assert_true(json_is_true(json_object_get(json, "partial")));
  const char *back = json_string_value(json_object_get(json, "text"));
  static const char want[] = "a\"\\\x1b[31m\0\n\xc3\xa4\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\x7f";
  assert_int_equal(json_string_length(json_object_get(json, "text")), sizeof want - 1);
  assert_memory_equal(back, want, sizeof want - 1);
  assert_string_equal(json_string_value(json_object_get(json, "base64")), "YSJcG1szMW0ACsOk/+2ggH8=");
  assert_null(memchr(out.data, 0x1b, out.len)); /* nothing in it moves a terminal */
  json_decref(json);
  buf_free(&out);
}

/* A service may have ten thousand instances: the logs of the first thousand are read at once. */
static void test_more_instances_than_are_read(void **state) {
  (void)state;
  struct world *w = world_new();
  put_token(w, "a", "a", "admin", NULL, 0);
  put_service(w, "shop", "web", 1, 1100);
  for (uint64_t n = 1; n <= 1100; n++)
    put_instance(w, "shop", "web", n, 1, "n1", MODEL__DESIRED__DESIRED_RUN);
  struct api_request *r = api_request_new(&w->api, "GET", "/api/v1/services/web/logs");
  assert_int_equal(api_request_add_query(r, "follow", "true"), 0);
  if (api_admit(&w->api, r, "Bearer a"))
    api_dispatch(&w->api, r);
  assert_non_null(r->stream);
  struct buf b = BUF_INIT(8 << 20);
  assert_int_equal(r->stream->fill(r->stream_arg, &b), API_PIECE_SOME);
  unsigned told = 0;
  for (const char *at = buf_str(&b); (at = strstr(at, "event: note")); at++)
    told++;
  assert_int_equal(told, 1000);
  buf_free(&b);
  api_request_unref(r);
  world_free(w);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_merge), cmocka_unit_test(test_resume), cmocka_unit_test(test_json),
                                     cmocka_unit_test(test_more_instances_than_are_read)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
