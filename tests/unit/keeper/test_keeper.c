/* What the agent is told, and when: a verdict that it could not keep must come again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/bus/pb.h"
#include "orca-keeper/keeper.h"

static unsigned news_count;

static void on_news(void *arg) {
  (void)arg;
  news_count++;
}

static void set(struct keeper *k, const char *instance, int64_t started_ms) {
  struct err err;
  Model__Probe probe = MODEL__PROBE__INIT;
  Keeper__Target target = KEEPER__TARGET__INIT;
  PB_SET(&probe, tcp, 1);
  PB_SET(&probe, port, 1);
  target.instance = (char *)(uintptr_t)instance;
  target.container_id = (char *)(uintptr_t) "c1";
  target.address = (char *)(uintptr_t) "127.0.0.1";
  target.readiness = &probe;
  PB_SET(&target, started_ms, started_ms);
  assert_int_equal(keeper_set_target(k, &target, &err), 0);
}

static void an_agent_that_lists_is_told_everything(void **state) {
  (void)state;
  struct err err;
  struct keeper_news news[4];
  struct loop *loop = loop_new(NULL, &err);
  assert_non_null(loop);
  const struct keeper_config config = {on_news, NULL};
  struct keeper *k = keeper_new(loop, &config, &err);
  assert_non_null(k);
  int64_t now_ms = loop_wall(loop) / NS_PER_MS;
  set(k, "shop/a.1", now_ms);
  set(k, "shop/b.1", now_ms);
  while (keeper_take_news(k, news, 4))
    keeper_sent_is_known(k);
  /* The agent is replaced. It lists one of them as it was; the other is gone. */
  news_count = 0;
  keeper_full_begin(k);
  set(k, "shop/a.1", now_ms);
  keeper_full_end(k);
  assert_int_equal(keeper_count(k), 1);
  assert_true(news_count > 0);
  assert_int_equal(keeper_take_news(k, news, 4), 1);
  assert_string_equal(news[0].instance, "shop/a.1");
  assert_int_equal(news[0].started_ms, now_ms);
  /* Not taken: it comes again; taken: it does not. */
  keeper_sent_is_lost(k);
  assert_int_equal(keeper_take_news(k, news, 4), 1);
  keeper_sent_is_known(k);
  assert_int_equal(keeper_take_news(k, news, 4), 0);
  keeper_free(k);
  loop_free(loop);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(an_agent_that_lists_is_told_everything)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
