/* Membership: one server at a time (§4.1), and as bytes. */
#include "orca-store/raft_internal.h"

#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "proto/raft.pb-c.h"

static enum err_code changed(const struct raft *r, const struct raft_change *c, struct raft_members *to) {
  size_t at = 0, voters = 0;
  *to = r->members;
  for (size_t i = 0; i < to->n; i++)
    voters += to->m[i].voter;
  while (at < to->n && to->m[at].id < c->id)
    at++;
  bool there = at < to->n && to->m[at].id == c->id;
  switch (c->type) {
  case RAFT_ADD_LEARNER:
    if (there)
      return ERR_CONFLICT;
    if (c->id == 0 || !c->address || strlen(c->address) >= RAFT_ADDRESS_MAX || to->n == RAFT_MEMBERS_MAX)
      return ERR_INVALID;
    memmove(&to->m[at + 1], &to->m[at], (to->n - at) * sizeof to->m[0]);
    to->m[at] = (struct raft_member){.id = c->id};
    memcpy(to->m[at].address, c->address, strlen(c->address));
    to->n++;
    return ERR_NONE;
  case RAFT_PROMOTE:
    if (!there)
      return ERR_NOT_FOUND;
    /* §4.2.1: a voter that has yet to catch up would hold up commits. */
    if (to->m[at].voter || r->peers[at].match < r->commit)
      return ERR_CONFLICT;
    to->m[at].voter = true;
    return ERR_NONE;
  case RAFT_REMOVE:
    if (!there)
      return ERR_NOT_FOUND;
    if (to->m[at].voter && voters == 1)
      return ERR_INVALID;
    memmove(&to->m[at], &to->m[at + 1], (to->n - at - 1) * sizeof to->m[0]);
    to->n--;
    return ERR_NONE;
  }
  return ERR_INVALID;
}

void raft_change(struct raft *r, const struct raft_change *c) {
  struct raft_actions *a = r->a;
  struct raft_members members;
  a->proposed_first = r->shape.last + 1;
  a->proposed_term = r->hard.term;
  if (r->role != RAFT_LEADER || r->transfer != 0)
    a->proposed = ERR_NO_LEADER;
  else if (r->members_index > r->commit ||
           /* Found after the dissertation (raft-dev, 2015-07-10): not before an entry of this term is committed, or two majorities of
              memberships that differ by two servers could both decide. */
           (raft_shape_term(&r->shape, r->commit) != r->hard.term && !MUTANT(CHANGE_BEFORE_NOOP)))
    a->proposed = ERR_BUSY;
  else
    a->proposed = changed(r, c, &members);
  if (a->proposed != ERR_NONE)
    return;
  if (!a->scratch && !(a->scratch = malloc(RAFT_MEMBERS_BYTES))) {
    r->failed = true;
    return;
  }
  size_t len = raft_members_encode(&members, a->scratch, RAFT_MEMBERS_BYTES);
  raft_append(r, &(struct raft_entry){.type = RAFT_ENTRY_MEMBERS, .data = a->scratch, .len = len}, &members);
  raft_replicate_all(r);
  raft_advance_commit(r);
}

/* ---------------------------------------------------------------- bytes */

size_t raft_members_encode(const struct raft_members *members, uint8_t *out, size_t cap) {
  Raft__Members pb = RAFT__MEMBERS__INIT;
  Raft__Member m[RAFT_MEMBERS_MAX], *list[RAFT_MEMBERS_MAX];
  char address[RAFT_MEMBERS_MAX][RAFT_ADDRESS_MAX];
  for (size_t i = 0; i < members->n; i++) {
    raft__member__init(&m[i]);
    PB_SET(&m[i], id, members->m[i].id);
    PB_SET(&m[i], voter, members->m[i].voter);
    memcpy(address[i], members->m[i].address, RAFT_ADDRESS_MAX);
    m[i].address = address[i];
    list[i] = &m[i];
  }
  pb.n_members = members->n;
  pb.members = list;
  if (raft__members__get_packed_size(&pb) > cap)
    return 0;
  return raft__members__pack(&pb, out);
}

static int take_member(struct raft_members *to, const Raft__Member *m, struct err *err) {
  uint64_t id = PB_GET(m, id, 0);
  size_t len = strlen(PB_STR(m->address));
  if (id == 0 || len >= RAFT_ADDRESS_MAX || (to->n > 0 && to->m[to->n - 1].id >= id))
    return err_set(err, ERR_CORRUPT, "membership: member %zu: id 0, ids not ascending or an address too long", to->n);
  struct raft_member *at = &to->m[to->n++];
  *at = (struct raft_member){.id = id, .voter = PB_GET(m, voter, false)};
  memcpy(at->address, PB_STR(m->address), len);
  return 0;
}

int raft_members_decode(const void *data, size_t len, struct raft_members *ret, struct err *err) {
  Raft__Members *pb = (Raft__Members *)pb_unpack(&raft__members__descriptor, data, len, err);
  if (!pb)
    return err_context(err, "membership");
  struct raft_members out = {0};
  size_t voters = 0;
  int rc = 0;
  if (pb->n_members > RAFT_MEMBERS_MAX)
    rc = err_set(err, ERR_CORRUPT, "membership: %zu members, more than %d", pb->n_members, RAFT_MEMBERS_MAX);
  for (size_t i = 0; rc == 0 && i < pb->n_members; i++) {
    rc = take_member(&out, pb->members[i], err);
    voters += rc == 0 && out.m[i].voter;
  }
  if (rc == 0 && voters == 0)
    rc = err_set(err, ERR_CORRUPT, "membership: no voter");
  if (rc == 0)
    *ret = out;
  protobuf_c_message_free_unpacked(&pb->base, NULL);
  return rc;
}

const struct raft_member *raft_members_find(const struct raft_members *members, uint64_t id) {
  for (size_t i = 0; i < members->n; i++)
    if (members->m[i].id == id)
      return &members->m[i];
  return NULL;
}
