#include "orca-store/raft_internal.h"

#include <stdlib.h>
#include <string.h>

int raft_shape_init(struct raft_shape *s, uint64_t index, uint64_t term, const struct raft_members *members) {
  *s = (struct raft_shape){.base_index = index, .base_term = term, .last = index, .cap_runs = 8, .cap_lens = 256, .cap_members = 1};
  s->runs = calloc(s->cap_runs, sizeof *s->runs);
  s->lens = calloc(s->cap_lens, sizeof *s->lens);
  s->members = calloc(s->cap_members, sizeof *s->members);
  if (!s->runs || !s->lens || !s->members) {
    raft_shape_fini(s);
    return -1;
  }
  s->members[0] = (struct raft_members_at){index, *members};
  s->n_members = 1;
  return 0;
}

void raft_shape_fini(struct raft_shape *s) {
  free(s->runs);
  free(s->lens);
  free(s->members);
  *s = (struct raft_shape){0};
}

static int grow_lens(struct raft_shape *s) {
  size_t cap = s->cap_lens * 2;
  uint32_t *lens = calloc(cap, sizeof *lens);
  if (!lens)
    return -1;
  for (uint64_t i = s->base_index + 1; i <= s->last; i++)
    lens[i & (cap - 1)] = s->lens[i & (s->cap_lens - 1)];
  free(s->lens);
  s->lens = lens;
  s->cap_lens = cap;
  return 0;
}

int raft_shape_push(struct raft_shape *s, uint64_t term, size_t len, const struct raft_members *members) {
  if (s->last - s->base_index >= s->cap_lens && grow_lens(s) < 0)
    return -1;
  if (members && s->n_members == s->cap_members) {
    struct raft_members_at *grown = reallocarray(s->members, s->cap_members * 2, sizeof *grown);
    if (!grown)
      return -1;
    s->members = grown;
    s->cap_members *= 2;
  }
  if (term != raft_shape_last_term(s) || s->n_runs == 0) {
    if (s->n_runs == s->cap_runs) {
      struct raft_run *grown = reallocarray(s->runs, s->cap_runs * 2, sizeof *grown);
      if (!grown)
        return -1;
      s->runs = grown;
      s->cap_runs *= 2;
    }
    s->runs[s->n_runs++] = (struct raft_run){s->last + 1, term};
  }
  s->last++;
  s->lens[s->last & (s->cap_lens - 1)] = (uint32_t)len;
  if (members)
    s->members[s->n_members++] = (struct raft_members_at){s->last, *members};
  return 0;
}

void raft_shape_truncate(struct raft_shape *s, uint64_t last) {
  s->last = last;
  while (s->n_runs > 0 && s->runs[s->n_runs - 1].first > last)
    s->n_runs--;
  while (s->n_members > 1 && s->members[s->n_members - 1].index > last)
    s->n_members--;
}

void raft_shape_compact(struct raft_shape *s, uint64_t index) {
  s->base_term = raft_shape_term(s, index);
  s->base_index = index;
  size_t gone = 0;
  while (gone + 1 < s->n_runs && s->runs[gone + 1].first <= index + 1)
    gone++;
  if (s->last == index)
    gone = s->n_runs;
  memmove(s->runs, s->runs + gone, (s->n_runs - gone) * sizeof *s->runs);
  s->n_runs -= gone;
  if (s->n_runs > 0 && s->runs[0].first <= index)
    s->runs[0].first = index + 1;

  gone = 0;
  while (gone + 1 < s->n_members && s->members[gone + 1].index <= index)
    gone++;
  memmove(s->members, s->members + gone, (s->n_members - gone) * sizeof *s->members);
  s->n_members -= gone;
}

void raft_shape_reset(struct raft_shape *s, const struct raft_snapshot *snapshot) {
  s->base_index = s->last = snapshot->index;
  s->base_term = snapshot->term;
  s->n_runs = 0;
  s->members[0] = (struct raft_members_at){snapshot->index, snapshot->members};
  s->n_members = 1;
}

uint64_t raft_shape_term(const struct raft_shape *s, uint64_t index) {
  if (index == s->base_index)
    return s->base_term;
  if (index < s->base_index || index > s->last)
    return 0;
  size_t lo = 0, hi = s->n_runs; /* the run before hi begins at or before index */
  while (hi - lo > 1) {
    size_t mid = lo + (hi - lo) / 2;
    if (s->runs[mid].first <= index)
      lo = mid;
    else
      hi = mid;
  }
  return s->runs[lo].term;
}

uint64_t raft_shape_last_term(const struct raft_shape *s) {
  return s->n_runs > 0 ? s->runs[s->n_runs - 1].term : s->base_term;
}

uint32_t raft_shape_len(const struct raft_shape *s, uint64_t index) {
  return s->lens[index & (s->cap_lens - 1)];
}

uint64_t raft_shape_seek(const struct raft_shape *s, uint64_t from, uint64_t term) {
  uint64_t end = from < s->last ? from : s->last; /* last index of the run looked at */
  for (size_t i = s->n_runs; i > 0; i--) {
    if (s->runs[i - 1].first > end)
      continue;
    if (s->runs[i - 1].term <= term)
      return end;
    end = s->runs[i - 1].first - 1;
  }
  return s->base_index < from ? s->base_index : from;
}
