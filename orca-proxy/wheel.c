#include "orca-proxy/wheel.h"

#include <stddef.h>
#include <string.h>

void wheel_init(struct wheel *w, int64_t now) {
  memset(w, 0, sizeof *w);
  for (unsigned i = 0; i < WHEEL_SLOTS; i++)
    w->slots[i].next = w->slots[i].prev = &w->slots[i];
  w->tick = now >> WHEEL_SHIFT;
}

static void put(struct wheel *w, struct wheel_timer *t) {
  int64_t tick = (t->deadline + (1 << WHEEL_SHIFT) - 1) >> WHEEL_SHIFT;
  if (tick <= w->tick)
    tick = w->tick + 1;
  if (tick > w->tick + WHEEL_SLOTS - 1)
    tick = w->tick + WHEEL_SLOTS - 1;
  unsigned slot = (unsigned)(tick % WHEEL_SLOTS);
  struct wheel_timer *head = &w->slots[slot];
  t->tick = tick;
  t->next = head;
  t->prev = head->prev;
  head->prev->next = t;
  head->prev = t;
  w->used[slot / 64] |= UINT64_C(1) << slot % 64;
}

void wheel_remove(struct wheel *w, struct wheel_timer *t) {
  t->deadline = 0;
  if (!t->tick)
    return;
  unsigned slot = (unsigned)(t->tick % WHEEL_SLOTS);
  t->next->prev = t->prev;
  t->prev->next = t->next;
  if (w->slots[slot].next == &w->slots[slot])
    w->used[slot / 64] &= ~(UINT64_C(1) << slot % 64);
  t->tick = 0;
}

void wheel_set(struct wheel *w, struct wheel_timer *t, int64_t deadline) {
  if (t->tick && t->tick << WHEEL_SHIFT <= deadline + (1 << WHEEL_SHIFT)) {
    t->deadline = deadline;
    return;
  }
  wheel_remove(w, t);
  t->deadline = deadline;
  put(w, t);
}

struct wheel_timer *wheel_due(struct wheel *w, int64_t now) {
  int64_t until = now >> WHEEL_SHIFT;
  while (w->tick <= until) {
    struct wheel_timer *head = &w->slots[w->tick % WHEEL_SLOTS];
    while (head->next != head) {
      struct wheel_timer *t = head->next;
      int64_t deadline = t->deadline;
      wheel_remove(w, t);
      if (!deadline)
        continue;
      if (deadline <= now)
        return t;
      t->deadline = deadline;
      put(w, t);
    }
    w->tick++;
  }
  return NULL;
}

int wheel_wait(const struct wheel *w, int64_t now) {
  for (int64_t k = 0; k < WHEEL_SLOTS;) {
    int64_t tick = w->tick + k;
    unsigned slot = (unsigned)(tick % WHEEL_SLOTS);
    uint64_t word = w->used[slot / 64] >> slot % 64;
    if (!word) {
      k += 64 - slot % 64;
      continue;
    }
    tick += __builtin_ctzll(word);
    int64_t wait = (tick << WHEEL_SHIFT) - now;
    return wait < 0 ? 0 : (int)wait + 1;
  }
  return -1;
}
