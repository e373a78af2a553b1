/* The event loop: timers against a clock of the test's own, descriptors, hooks, posts from threads, removal from callbacks. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/loop.h"

struct fake {
  int64_t now;
};
static int64_t fake_mono(void *arg) {
  return ((struct fake *)arg)->now;
}
static void fake_sleep(void *arg, int64_t until) {
  assert_int_not_equal(until, INT64_MAX);
  ((struct fake *)arg)->now = until;
}

static struct loop *fake_loop(struct fake *fake) {
  struct loop_clock clock = {fake_mono, fake_mono, fake_sleep, fake};
  struct loop *loop = loop_new(&clock, NULL);
  assert_non_null(loop);
  return loop;
}

#define MANY 500
static int64_t fired[MANY];
static size_t fired_count;
struct noted {
  struct loop_timer timer;
  struct loop *loop;
};
static void note(void *arg) {
  struct noted *n = arg;
  fired[fired_count++] = loop_now(n->loop);
}

static void timers_fire_in_order_at_their_time(void **state) {
  (void)state;
  struct fake fake = {1000};
  struct loop *loop = fake_loop(&fake);
  static struct noted timers[MANY];
  unsigned seed = 7;
  fired_count = 0;
  for (int i = 0; i < MANY; i++) {
    timers[i] = (struct noted){.timer = {.cb = note, .arg = &timers[i]}, .loop = loop};
    loop_timer_in(loop, &timers[i].timer, rand_r(&seed) % 100000, NULL);
  }
  for (int i = 0; i < MANY; i += 5) /* move some, cancel some */
    loop_timer_in(loop, &timers[i].timer, rand_r(&seed) % 100000, NULL);
  for (int i = 0; i < MANY; i += 7)
    loop_timer_cancel(loop, &timers[i].timer);
  size_t left = 0;
  for (int i = 0; i < MANY; i++)
    left += loop_timer_is_set(&timers[i].timer);
  while (fired_count < left)
    assert_int_equal(loop_once(loop, -1, NULL), 0);
  for (size_t i = 1; i < fired_count; i++)
    assert_true(fired[i - 1] <= fired[i]);
  loop_free(loop);
}

struct again {
  struct loop_timer timer;
  struct loop *loop;
  int left;
};
static void rearm(void *arg) {
  struct again *a = arg;
  if (--a->left)
    loop_timer_in(a->loop, &a->timer, 0, NULL);
  else
    loop_stop(a->loop);
}

static void a_timer_set_for_now_does_not_starve_the_rest(void **state) {
  (void)state;
  struct loop *loop = loop_new(NULL, NULL);
  struct again a = {.timer = {.cb = rearm, .arg = &a}, .loop = loop, .left = 100};
  loop_timer_in(loop, &a.timer, 0, NULL);
  assert_int_equal(loop_run(loop, NULL), 0);
  assert_int_equal(a.left, 0);
  loop_free(loop);
}

struct pair {
  struct loop *loop;
  struct loop_io a, b;
  int calls;
};
static void remove_both(void *arg, uint32_t events) {
  struct pair *p = arg;
  assert_true(events & EPOLLIN);
  p->calls++;
  loop_io_remove(p->loop, &p->a);
  loop_io_remove(p->loop, &p->b);
}

static void what_was_removed_is_not_called_in_the_same_round(void **state) {
  (void)state;
  struct pair p = {.loop = loop_new(NULL, NULL)};
  int one[2], two[2];
  assert_int_equal(pipe(one) | pipe(two), 0);
  p.a = p.b = (struct loop_io){.cb = remove_both, .arg = &p};
  assert_int_equal(loop_io_add(p.loop, &p.a, one[0], EPOLLIN, NULL), 0);
  assert_int_equal(loop_io_add(p.loop, &p.b, two[0], EPOLLIN, NULL), 0);
  assert_int_equal(write(one[1], "x", 1), 1);
  assert_int_equal(write(two[1], "x", 1), 1);
  assert_int_equal(loop_once(p.loop, 0, NULL), 0);
  assert_int_equal(loop_once(p.loop, 0, NULL), 0);
  assert_int_equal(p.calls, 1);
  for (int i = 0; i < 2; i++) {
    close(one[i]);
    close(two[i]);
  }
  loop_free(p.loop);
}

struct counter {
  struct loop *loop;
  int posted, hooked;
};
static void count_post(void *arg) {
  struct counter *c = arg;
  if (++c->posted == 1000)
    loop_stop(c->loop);
}
static void *post_many(void *arg) {
  struct counter *c = arg;
  for (int i = 0; i < 500; i++)
    loop_post(c->loop, count_post, c);
  return NULL;
}
static bool count_hook(void *arg) {
  struct counter *c = arg;
  return c->hooked++ < 3;
}

static void posts_from_threads_all_arrive(void **state) {
  (void)state;
  struct counter c = {.loop = loop_new(NULL, NULL)};
  pthread_t threads[2];
  for (int i = 0; i < 2; i++)
    assert_int_equal(pthread_create(&threads[i], NULL, post_many, &c), 0);
  assert_int_equal(loop_run(c.loop, NULL), 0);
  for (int i = 0; i < 2; i++)
    pthread_join(threads[i], NULL);
  assert_int_equal(c.posted, 1000);
  loop_free(c.loop);
}

static void cancel_rest(void *arg) {
  struct counter *c = arg;
  c->hooked++;
  loop_post_cancel(c->loop, count_post, c);
}

static void cancelled_posts_do_not_run(void **state) {
  (void)state;
  struct counter c = {.loop = loop_new(NULL, NULL)};
  assert_int_equal(loop_post(c.loop, cancel_rest, &c) | loop_post(c.loop, count_post, &c), 0);
  assert_int_equal(loop_once(c.loop, 0, NULL), 0);
  assert_int_equal(loop_post(c.loop, count_post, &c) | loop_post(c.loop, cancel_rest, &c), 0);
  loop_post_cancel(c.loop, count_post, &c);
  assert_int_equal(loop_once(c.loop, 0, NULL), 0);
  assert_int_equal(c.posted, 0);
  assert_int_equal(c.hooked, 2);
  loop_free(c.loop);
}

static void a_hook_that_has_more_keeps_the_loop_from_waiting(void **state) {
  (void)state;
  struct counter c = {.loop = loop_new(NULL, NULL)};
  struct loop_hook hook = {.cb = count_hook, .arg = &c};
  loop_hook_add(c.loop, &hook);
  for (int i = 0; i < 3; i++)
    assert_int_equal(loop_once(c.loop, 3600 * NS_PER_SEC, NULL), 0);
  assert_int_equal(c.hooked, 3);
  loop_hook_remove(c.loop, &hook);
  loop_free(c.loop);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(timers_fire_in_order_at_their_time),
      cmocka_unit_test(a_timer_set_for_now_does_not_starve_the_rest),
      cmocka_unit_test(what_was_removed_is_not_called_in_the_same_round),
      cmocka_unit_test(posts_from_threads_all_arrive),
      cmocka_unit_test(cancelled_posts_do_not_run),
      cmocka_unit_test(a_hook_that_has_more_keeps_the_loop_from_waiting),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
