/* Watchers that lag, catch up, come and go: each is told every revision of its ranges once, in order, whole. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orca-store/watch.h"

#define REVISIONS 400
#define WATCHERS 30

struct happened {
  char keys[3][8];
  struct kv_event events[3];
  size_t n;
};

struct client {
  char start[8], end[8];
  uint64_t next_expected; /* of those that touch it */
  unsigned room;
  uint64_t told;
  struct watcher *w;
};

struct world {
  struct happened past[REVISIONS + 1];
  uint64_t revision, rng;
  struct client clients[WATCHERS];
};

static struct world *world;

static uint64_t rnd(uint64_t n) {
  world->rng = world->rng * UINT64_C(6364136223846793005) + 1442695040888963407u;
  return (world->rng >> 33) % n;
}

static bool touches(const struct client *c, const char *key) {
  return c->end[0] ? strcmp(key, c->start) >= 0 && strcmp(key, c->end) < 0 : strcmp(key, c->start) == 0;
}

static size_t touched(const struct client *c, uint64_t revision) {
  size_t n = 0;
  for (size_t i = 0; i < world->past[revision].n; i++)
    n += touches(c, world->past[revision].keys[i]);
  return n;
}

static bool on_item(void *owner, const Store__WatchItem *item) {
  struct client *c = owner;
  if (!c->room)
    return false;
  c->room--;
  /* Exactly the next revision that touches it, with exactly its events. */
  uint64_t expected = c->next_expected;
  while (expected <= world->revision && !touched(c, expected))
    expected++;
  assert_int_equal(item->revision, expected);
  assert_int_equal(item->n_events, touched(c, expected));
  for (size_t i = 0, at = 0; i < world->past[expected].n; i++)
    if (touches(c, world->past[expected].keys[i]))
      assert_memory_equal(item->events[at++]->kv->key.data, world->past[expected].keys[i], strlen(world->past[expected].keys[i]));
  c->next_expected = expected + 1;
  c->told++;
  return true;
}

static void happen(void) {
  struct happened *h = &world->past[++world->revision];
  h->n = 1 + rnd(3);
  for (size_t i = 0; i < h->n; i++) {
    snprintf(h->keys[i], sizeof h->keys[i], "/%c/%u", (char)('a' + (char)rnd(4)), (unsigned)(3 * rnd(3) + i));
    h->events[i] = (struct kv_event){.deleted = rnd(4) == 0, .key = {(const uint8_t *)h->keys[i], strlen(h->keys[i])}};
    h->events[i].now.mod_revision = world->revision;
    h->events[i].now.value = (struct kv_slice){(const uint8_t *)"v", 1};
  }
}

static void catch_up(struct watch_set *set, struct client *c) {
  for (uint64_t r = watch_next(c->w); r <= world->revision; r++)
    if (!watch_replay(set, c->w, r, world->past[r].events, world->past[r].n))
      return;
  watch_caught_up(c->w, world->revision + 1, true);
}

static void come(struct watch_set *set, struct client *c) {
  static const char *const ranges[][2] = {{"/a/", "/a0"}, {"/b/", "/b0"}, {"/a/", "/c0"}, {"/", "0"}, {"/a/1", ""}, {"/d/2", ""}, {"/c/", "/d0"}};
  size_t pick = rnd(7);
  Store__KeyRange range[2], *list[2] = {&range[0], &range[1]};
  *c = (struct client){.room = (unsigned)rnd(20)};
  snprintf(c->start, sizeof c->start, "%s", ranges[pick][0]);
  snprintf(c->end, sizeof c->end, "%s", ranges[pick][1]);
  for (int i = 0; i < 2; i++) { /* the same range twice: told once all the same */
    store__key_range__init(&range[i]);
    range[i].key = (ProtobufCBinaryData){strlen(c->start), (uint8_t *)c->start};
    range[i].range_end = (ProtobufCBinaryData){strlen(c->end), (uint8_t *)c->end};
  }
  bool live = rnd(2);
  c->next_expected = live ? world->revision + 1 : 1 + rnd(world->revision + 1);
  c->w = watch_add(set, list, 1 + rnd(2), rnd(2), c->next_expected, live || c->next_expected > world->revision, c);
  assert_non_null(c->w);
}

static void test_random(void **state) {
  (void)state;
  for (uint64_t seed = 1; seed <= 20; seed++) {
    world = calloc(1, sizeof *world);
    assert_non_null(world);
    world->rng = seed;
    struct watch_set *set = watch_set_new(on_item);
    uint64_t told = 0;
    while (world->revision < REVISIONS) {
      happen();
      watch_publish(set, world->revision, world->past[world->revision].events, world->past[world->revision].n);
      struct client *c = &world->clients[rnd(WATCHERS)];
      uint64_t what = rnd(10);
      if (!c->w) {
        come(set, c);
      } else if (what == 0) {
        told += c->told;
        watch_remove(set, c->w);
        c->w = NULL;
      } else if (what < 6) {
        c->room += (unsigned)rnd(30);
        if (!watch_is_live(c->w))
          catch_up(set, c);
      }
    }
    for (size_t i = 0; i < WATCHERS; i++) {
      struct client *c = &world->clients[i];
      if (!c->w)
        continue;
      c->room = UINT32_MAX;
      if (!watch_is_live(c->w))
        catch_up(set, c);
      told += c->told;
      while (c->next_expected <= world->revision && !touched(c, c->next_expected))
        c->next_expected++;
      assert_int_equal(c->next_expected, world->revision + 1); /* nothing is missing */
    }
    assert_true(told > 500);
    watch_set_free(set);
    free(world);
  }
}

static struct watch_set *the_set;
static struct watcher *victims[3];
static unsigned sent;

static bool remove_all(void *owner, const Store__WatchItem *item) {
  (void)owner;
  (void)item;
  sent++;
  for (int i = 0; i < 3; i++) {
    watch_remove(the_set, victims[i]);
    victims[i] = NULL;
  }
  return true;
}

/* An owner may end any watch while one is told. */
static void test_removed_while_told(void **state) {
  (void)state;
  the_set = watch_set_new(remove_all);
  Store__KeyRange range = STORE__KEY_RANGE__INIT, *list = &range;
  range.key = (ProtobufCBinaryData){2, (uint8_t *)(uintptr_t) "/a"};
  for (int i = 0; i < 3; i++)
    victims[i] = watch_add(the_set, &list, 1, false, 1, true, NULL);
  struct kv_event e = {.key = {(const uint8_t *)"/a", 2}};
  assert_int_equal(watch_publish(the_set, 1, &e, 1), 0);
  assert_int_equal(sent, 1);
  assert_int_equal(watch_count(the_set), 0);
  watch_set_free(the_set);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_random), cmocka_unit_test(test_removed_while_told)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
