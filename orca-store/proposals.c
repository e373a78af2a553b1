#include "orca-store/proposals.h"

#include <stdlib.h>

int proposal_push(struct proposal_queue *q, const struct proposal *p) {
  if (q->count == q->size) {
    size_t size = q->size ? 2 * q->size : 64;
    struct proposal *grown = malloc(size * sizeof *grown);
    if (!grown)
      return -1;
    for (size_t i = 0; i < q->count; i++)
      grown[i] = q->list[(q->head + i) & (q->size - 1)];
    free(q->list);
    q->list = grown;
    q->head = 0;
    q->size = size;
  }
  q->list[(q->head + q->count++) & (q->size - 1)] = *p;
  return 0;
}

struct proposal *proposal_at(const struct proposal_queue *q, size_t i) {
  return i < q->count ? &q->list[(q->head + i) & (q->size - 1)] : NULL;
}

struct proposal proposal_pop(struct proposal_queue *q) {
  struct proposal p = q->list[q->head];
  q->head = (q->head + 1) & (q->size - 1);
  q->count--;
  return p;
}

void proposals_drop(struct proposals *ps, struct proposal *p) {
  if (p->weight) {
    ps->bytes -= p->len;
    ps->weight -= p->weight;
  }
  free(p->data);
}

void proposals_refuse(struct proposals *ps, struct proposal *p, const struct err *err) {
  p->done(p->arg, NULL, err);
  proposals_drop(ps, p);
}

void proposals_refuse_all(struct proposals *ps, struct proposal_queue *q, const struct err *err) {
  while (q->count) {
    struct proposal p = proposal_pop(q);
    proposals_refuse(ps, &p, err);
  }
}

void proposals_refuse_behind(struct proposals *ps, uint64_t index, const struct err *err) {
  struct proposal_queue keep = {0};
  while (ps->waiting.count) {
    struct proposal p = proposal_pop(&ps->waiting);
    if (p.index > index || proposal_push(&keep, &p) < 0)
      proposals_refuse(ps, &p, err);
  }
  free(ps->waiting.list);
  ps->waiting = keep;
}

void proposals_fini(struct proposals *ps) {
  free(ps->fresh.list);
  free(ps->waiting.list);
}
