#include "orca-store/reads.h"

#include <stdbool.h>
#include <stdlib.h>

struct reader {
  store_read_fn *done;
  void *arg;
  struct reader *next;
};

struct read_round {
  uint64_t id, index;
  bool confirmed;
  struct reader *first;
  struct read_round *next;
};

void reads_init(struct reads *r) {
  *r = (struct reads){0};
  r->fresh_last = &r->fresh;
  r->rounds_last = &r->rounds;
}

int reads_add(struct reads *r, store_read_fn *done, void *arg) {
  struct reader *reader = malloc(sizeof *reader);
  if (!reader)
    return -1;
  *reader = (struct reader){.done = done, .arg = arg};
  *r->fresh_last = reader;
  r->fresh_last = &reader->next;
  return 0;
}

static struct reader *take_fresh(struct reads *r) {
  struct reader *first = r->fresh;
  r->fresh = NULL;
  r->fresh_last = &r->fresh;
  return first;
}

static void tell(struct reader *first, const struct err *err) {
  for (struct reader *reader = first, *next; reader; reader = next) {
    next = reader->next;
    reader->done(reader->arg, err);
    free(reader);
  }
}

uint64_t reads_begin_round(struct reads *r) {
  struct read_round *round = calloc(1, sizeof *round);
  struct reader *first = take_fresh(r);
  if (!round) {
    struct err err;
    err_set(&err, ERR_MEMORY, "out of memory");
    tell(first, &err);
    return 0;
  }
  *round = (struct read_round){.id = ++r->last_id, .first = first};
  *r->rounds_last = round;
  r->rounds_last = &round->next;
  return round->id;
}

/* *at is that round, which has left the list when its readers hear of it. */
static void finish(struct reads *r, struct read_round **at, const struct err *err) {
  struct read_round *round = *at;
  *at = round->next;
  if (!*at)
    r->rounds_last = at;
  tell(round->first, err);
  free(round);
}

void reads_heard(struct reads *r, const struct raft_read *read) {
  struct err err;
  for (struct read_round **at = &r->rounds; *at; at = &(*at)->next) {
    struct read_round *round = *at;
    if (round->id != read->id)
      continue;
    if (read->ok) {
      round->confirmed = true;
      round->index = read->index;
      return;
    }
    err_set(&err, ERR_NO_LEADER, "this store is not the leader");
    finish(r, at, &err);
    return;
  }
}

void reads_answer(struct reads *r, uint64_t applied) {
  struct read_round **at = &r->rounds;
  while (*at) {
    if ((*at)->confirmed && (*at)->index <= applied)
      finish(r, at, NULL);
    else
      at = &(*at)->next;
  }
}

void reads_refuse_all(struct reads *r, const struct err *err) {
  tell(take_fresh(r), err);
  while (r->rounds)
    finish(r, &r->rounds, err);
}
