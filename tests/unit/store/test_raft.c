/* The Raft core by hand: exact traces of the rules that others got wrong, and messages that no honest member sends. Whole clusters: tests/sim/raft.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "orca-store/raft.h"

#define MS INT64_C(1000000)

struct rig {
  struct raft *raft;
  struct raft_actions a;
  int64_t now;
  struct raft_stable written; /* what a log would have */
  uint64_t commit;
};

static struct raft_members members_of(size_t voters) {
  struct raft_members m = {.n = voters};
  for (size_t i = 0; i < voters; i++)
    m.m[i] = (struct raft_member){.id = i + 1, .voter = true, .address = "tcp://127.0.0.1:6883"};
  return m;
}

static void rig_new(struct rig *g, uint64_t id, size_t voters, uint64_t term, const struct raft_entry *log, size_t n) {
  struct raft_options o = {.id = id, .seed = 42, .hard = {term, 0}};
  struct err err = {0};
  *g = (struct rig){.now = 1000 * MS};
  o.snapshot.members = members_of(voters);
  raft_actions_init(&g->a);
  g->raft = raft_new(&o, &err);
  assert_non_null(g->raft);
  g->written.hard = o.hard;
  for (size_t i = 0; i < n; i++) {
    assert_int_equal(raft_restore(g->raft, &log[i], &err), 0);
    g->written.index = log[i].index;
    g->written.term = log[i].term;
  }
}

static void rig_end(struct rig *g) {
  raft_actions_fini(&g->a);
  raft_free(g->raft);
}

static void step(struct rig *g, struct raft_event ev) {
  assert_int_equal(raft_step(g->raft, &ev, g->now, &g->a), 0);
  if (g->a.hard_changed)
    g->written.hard = g->a.hard;
  if (g->a.n_append > 0) {
    g->written.index = g->a.append[g->a.n_append - 1].index;
    g->written.term = g->a.append[g->a.n_append - 1].term;
  }
  assert_true(g->a.commit >= g->commit);
  assert_true(g->a.commit <= raft_stable_index(g->raft));
  g->commit = g->a.commit;
}

static void sync_now(struct rig *g) {
  step(g, (struct raft_event){.type = RAFT_EV_STABLE, .stable = g->written});
}
static void message(struct rig *g, struct raft_msg m) {
  m.to = raft_id(g->raft);
  step(g, (struct raft_event){.type = RAFT_EV_MESSAGE, .msg = &m});
}
static void tick_after(struct rig *g, int64_t ms) {
  g->now += ms * MS;
  step(g, (struct raft_event){.type = RAFT_EV_TICK});
}

static const struct raft_msg *sent(struct rig *g, enum raft_msg_type type, uint64_t to) {
  for (size_t i = 0; i < g->a.n_msgs; i++)
    if (g->a.msgs[i].type == type && g->a.msgs[i].to == to)
      return &g->a.msgs[i];
  return NULL;
}

/* Leader of three in term 2, its no-op at 1 stable; nobody has answered yet. */
static void lead(struct rig *g) {
  rig_new(g, 1, 3, 1, NULL, 0);
  step(g, (struct raft_event){.type = RAFT_EV_START});
  tick_after(g, 400);
  assert_true(sent(g, RAFT_MSG_VOTE, 2)->pre);
  message(g, (struct raft_msg){.type = RAFT_MSG_VOTE_REPLY, .from = 2, .term = 2, .pre = true, .ok = true});
  assert_int_equal(raft_role(g->raft), RAFT_CANDIDATE);
  assert_true(g->a.hard_changed);
  const struct raft_msg *ask = sent(g, RAFT_MSG_VOTE, 3);
  assert_true(ask && !ask->pre && ask->after_sync && ask->term == 2);
  message(g, (struct raft_msg){.type = RAFT_MSG_VOTE_REPLY, .from = 2, .term = 2, .ok = true});
  assert_int_equal(raft_role(g->raft), RAFT_CANDIDATE); /* its own vote is not durable yet: it does not count */
  sync_now(g);
  assert_int_equal(raft_role(g->raft), RAFT_LEADER);
  assert_int_equal(g->a.n_append, 1);
  assert_int_equal(g->a.append[0].type, RAFT_ENTRY_NOOP);
  const struct raft_msg *m = sent(g, RAFT_MSG_APPEND, 2);
  assert_true(m && !m->after_sync && m->n_entries == 1);
  sync_now(g);
}

static void alone_from_nothing_to_a_commit(void **state) {
  (void)state;
  struct rig g;
  rig_new(&g, 1, 1, 0, NULL, 0);
  step(&g, (struct raft_event){.type = RAFT_EV_START}); /* at once: there is nobody to wait for */
  assert_true(g.a.write && g.a.hard_changed && g.a.hard.term == 1 && g.a.hard.vote == 1 && g.a.n_append == 0);
  assert_int_equal(raft_role(g.raft), RAFT_CANDIDATE);
  struct raft_entry e[2] = {{.type = RAFT_ENTRY_DATA, .data = "a", .len = 1}, {.type = RAFT_ENTRY_DATA, .data = "b", .len = 1}};
  step(&g, (struct raft_event){.type = RAFT_EV_PROPOSE, .entries = e, .n_entries = 2});
  assert_int_equal(g.a.proposed, ERR_NO_LEADER);
  sync_now(&g);
  assert_int_equal(raft_role(g.raft), RAFT_LEADER);
  assert_true(g.a.role_changed && g.a.n_append == 1 && g.a.deadline == INT64_MAX);
  step(&g, (struct raft_event){.type = RAFT_EV_READ, .read_id = 5}); /* not before the no-op is committed */
  assert_int_equal(g.a.n_reads, 0);
  step(&g, (struct raft_event){.type = RAFT_EV_PROPOSE, .entries = e, .n_entries = 2});
  assert_int_equal(g.a.proposed, ERR_NONE);
  assert_int_equal(g.a.proposed_first, 2);
  assert_int_equal(g.a.n_append, 2);
  assert_ptr_equal(g.a.append[1].data, e[1].data);
  assert_int_equal(g.a.commit, 0); /* nothing before the sync, not even alone (etcd 14370) */
  sync_now(&g);
  assert_int_equal(g.a.commit, 3);
  assert_int_equal(g.a.n_reads, 1);
  assert_true(g.a.reads[0].ok && g.a.reads[0].index == 3 && g.a.reads[0].id == 5);
  step(&g, (struct raft_event){.type = RAFT_EV_READ, .read_id = 6});
  assert_true(g.a.n_reads == 1 && g.a.reads[0].index == 3);
  assert_int_equal(g.a.n_msgs, 0);
  rig_end(&g);
}

static void only_entries_of_the_term_commit(void **state) {
  (void)state;
  struct rig g;
  const struct raft_entry log[] = {{.index = 1, .term = 1, .type = RAFT_ENTRY_NOOP},
                                   {.index = 2, .term = 2, .type = RAFT_ENTRY_DATA, .data = "x", .len = 1}};
  rig_new(&g, 1, 3, 2, log, 2);
  step(&g, (struct raft_event){.type = RAFT_EV_START});
  tick_after(&g, 400);
  message(&g, (struct raft_msg){.type = RAFT_MSG_VOTE_REPLY, .from = 2, .term = 3, .pre = true, .ok = true});
  message(&g, (struct raft_msg){.type = RAFT_MSG_VOTE_REPLY, .from = 2, .term = 3, .ok = true});
  sync_now(&g);
  assert_int_equal(raft_role(g.raft), RAFT_LEADER);
  sync_now(&g);
  message(&g, (struct raft_msg){.type = RAFT_MSG_APPEND_REPLY, .from = 2, .term = 3, .ok = true, .match = 2, .index = 2});
  assert_int_equal(raft_commit(g.raft), 0); /* entry 2 is on a majority, but of an earlier term */
  message(&g, (struct raft_msg){.type = RAFT_MSG_APPEND_REPLY, .from = 2, .term = 3, .ok = true, .match = 3, .index = 2});
  assert_int_equal(raft_commit(g.raft), 3);
  rig_end(&g);
}

static void a_follower_commits_no_further_than_what_was_sent(void **state) {
  (void)state;
  struct rig g;
  const struct raft_entry log[] = {{.index = 1, .term = 1, .type = RAFT_ENTRY_NOOP}, {.index = 2, .term = 1, .type = RAFT_ENTRY_DATA}};
  rig_new(&g, 2, 3, 1, log, 2);
  step(&g, (struct raft_event){.type = RAFT_EV_START});
  message(&g, (struct raft_msg){
                  .type = RAFT_MSG_APPEND, .from = 1, .term = 2, .index = 1, .index_term = 1, .commit = 2}); /* entry 2 there may be another */
  assert_int_equal(g.a.commit, 1);
  const struct raft_msg *r = sent(&g, RAFT_MSG_APPEND_REPLY, 1);
  assert_true(r && r->ok && r->after_sync && r->match == 1);
  assert_true(g.a.hard_changed && g.a.hard.term == 2);
  /* a conflict gives way; the stale report of the sync before does not make the new entry stable */
  struct raft_stable before = g.written;
  const struct raft_entry e = {.index = 2, .term = 2, .type = RAFT_ENTRY_DATA, .data = "y", .len = 1};
  message(&g,
          (struct raft_msg){.type = RAFT_MSG_APPEND, .from = 1, .term = 2, .index = 1, .index_term = 1, .commit = 2, .n_entries = 1, .entries = &e});
  assert_true(g.a.n_append == 1 && g.a.append[0].index == 2);
  assert_int_equal(raft_commit(g.raft), 2);
  assert_int_equal(g.a.commit, 1);
  step(&g, (struct raft_event){.type = RAFT_EV_STABLE, .stable = before});
  assert_int_equal(raft_stable_index(g.raft), 1);
  sync_now(&g);
  assert_int_equal(g.a.commit, 2);
  rig_end(&g);
}

static void a_refusal_names_where_to_go_on(void **state) {
  (void)state;
  struct rig g;
  struct raft_entry log[12];
  for (uint64_t i = 0; i < 12; i++)
    log[i] = (struct raft_entry){.index = i + 1, .term = i < 3 ? 1 : i < 8 ? 2 : 4, .type = RAFT_ENTRY_DATA};
  rig_new(&g, 2, 3, 5, log, 12);
  step(&g, (struct raft_event){.type = RAFT_EV_START});
  message(&g, (struct raft_msg){.type = RAFT_MSG_APPEND, .from = 1, .term = 6, .index = 11, .index_term = 3});
  const struct raft_msg *r = sent(&g, RAFT_MSG_APPEND_REPLY, 1);
  assert_true(r && !r->ok && r->index == 11 && r->match == 8 && r->index_term == 2); /* all of term 4 skipped at once */
  message(&g, (struct raft_msg){.type = RAFT_MSG_APPEND, .from = 1, .term = 6, .index = 50, .index_term = 6});
  r = sent(&g, RAFT_MSG_APPEND_REPLY, 1);
  assert_true(r && !r->ok && r->match == 12 && r->index_term == 4);
  rig_end(&g);
}

static void one_vote_in_a_term(void **state) {
  (void)state;
  struct rig g;
  rig_new(&g, 2, 3, 1, NULL, 0);
  step(&g, (struct raft_event){.type = RAFT_EV_START});
  message(&g, (struct raft_msg){.type = RAFT_MSG_VOTE, .from = 1, .term = 5});
  assert_true(g.a.hard_changed && g.a.hard.term == 5 && g.a.hard.vote == 1);
  const struct raft_msg *r = sent(&g, RAFT_MSG_VOTE_REPLY, 1);
  assert_true(r && r->ok && r->after_sync);
  message(&g, (struct raft_msg){.type = RAFT_MSG_VOTE, .from = 3, .term = 5});
  assert_false(sent(&g, RAFT_MSG_VOTE_REPLY, 3)->ok);
  message(&g, (struct raft_msg){.type = RAFT_MSG_VOTE, .from = 1, .term = 5}); /* again: the same answer */
  assert_true(sent(&g, RAFT_MSG_VOTE_REPLY, 1)->ok);
  assert_false(g.a.write);
  /* the target of a transfer has voted for itself then (cowsql ad19f79a) */
  message(&g, (struct raft_msg){.type = RAFT_MSG_APPEND, .from = 1, .term = 6});
  message(&g, (struct raft_msg){.type = RAFT_MSG_TIMEOUT_NOW, .from = 1, .term = 6});
  assert_true(raft_role(g.raft) == RAFT_CANDIDATE && g.a.hard.term == 7 && g.a.hard.vote == 2);
  assert_true(sent(&g, RAFT_MSG_VOTE, 3)->transfer);
  message(&g, (struct raft_msg){.type = RAFT_MSG_VOTE, .from = 3, .term = 7, .transfer = true});
  assert_false(sent(&g, RAFT_MSG_VOTE_REPLY, 3)->ok);
  message(&g, (struct raft_msg){.type = RAFT_MSG_TIMEOUT_NOW, .from = 1, .term = 6}); /* a duplicate changes nothing */
  assert_int_equal(raft_term(g.raft), 7);
  rig_end(&g);
}

static void a_living_leader_is_not_disturbed(void **state) {
  (void)state;
  struct rig g;
  rig_new(&g, 2, 3, 1, NULL, 0);
  step(&g, (struct raft_event){.type = RAFT_EV_START});
  message(&g, (struct raft_msg){.type = RAFT_MSG_APPEND, .from = 1, .term = 2});
  g.now += 100 * MS;
  message(&g, (struct raft_msg){.type = RAFT_MSG_VOTE, .from = 3, .term = 9, .pre = true});
  assert_false(sent(&g, RAFT_MSG_VOTE_REPLY, 3)->ok);
  message(&g, (struct raft_msg){.type = RAFT_MSG_VOTE, .from = 3, .term = 9});
  assert_int_equal(g.a.n_msgs, 0);
  assert_int_equal(raft_term(g.raft), 2);
  message(&g, (struct raft_msg){.type = RAFT_MSG_VOTE, .from = 3, .term = 3, .transfer = true}); /* by its own leader's wish */
  assert_true(sent(&g, RAFT_MSG_VOTE_REPLY, 3)->ok);
  rig_end(&g);

  lead(&g); /* and a leader without a quorum stops being one */
  message(&g, (struct raft_msg){.type = RAFT_MSG_APPEND_REPLY, .from = 3, .term = 2, .ok = true, .match = 1});
  tick_after(&g, 100);
  assert_int_equal(raft_role(g.raft), RAFT_LEADER);
  step(&g, (struct raft_event){.type = RAFT_EV_READ, .read_id = 1});
  assert_int_equal(g.a.n_reads, 0);
  tick_after(&g, 160);
  assert_int_equal(raft_role(g.raft), RAFT_FOLLOWER);
  assert_true(g.a.n_reads == 1 && !g.a.reads[0].ok);
  rig_end(&g);
}

static void reads_ask_a_quorum_that_answers_after_them(void **state) {
  (void)state;
  struct rig g;
  lead(&g);
  message(&g, (struct raft_msg){.type = RAFT_MSG_APPEND_REPLY, .from = 2, .term = 2, .ok = true, .match = 1});
  assert_int_equal(g.commit, 1);
  step(&g, (struct raft_event){.type = RAFT_EV_READ, .read_id = 1});
  const struct raft_msg *m = sent(&g, RAFT_MSG_APPEND, 3);
  assert_non_null(m);
  uint64_t seq = m->read_seq;
  assert_int_equal(g.a.n_reads, 0);
  step(&g, (struct raft_event){.type = RAFT_EV_READ, .read_id = 2}); /* shares the next round */
  assert_int_equal(g.a.n_msgs, 0);
  message(&g, (struct raft_msg){.type = RAFT_MSG_APPEND_REPLY, .from = 2, .term = 2, .ok = true, .match = 1, .read_seq = seq - 1});
  assert_int_equal(g.a.n_reads, 0); /* an answer to something older */
  message(&g, (struct raft_msg){.type = RAFT_MSG_APPEND_REPLY, .from = 2, .term = 2, .ok = true, .match = 1, .read_seq = seq + 100});
  assert_int_equal(g.a.n_reads, 0); /* a round that never was */
  message(&g, (struct raft_msg){.type = RAFT_MSG_APPEND_REPLY, .from = 3, .term = 2, .ok = false, .index = 9, .read_seq = seq});
  assert_true(g.a.n_reads == 1 && g.a.reads[0].id == 1 && g.a.reads[0].index == 1);
  assert_int_equal(sent(&g, RAFT_MSG_APPEND, 2)->read_seq, seq + 1);
  rig_end(&g);
}

static void membership_one_at_a_time(void **state) {
  (void)state;
  struct rig g;
  struct raft_event add = {.type = RAFT_EV_CHANGE, .change = {.type = RAFT_ADD_LEARNER, .id = 4, .address = "tcp://127.0.0.4:6883"}};
  lead(&g);
  step(&g, add);
  assert_int_equal(g.a.proposed, ERR_BUSY); /* nothing of this term is committed */
  message(&g, (struct raft_msg){.type = RAFT_MSG_APPEND_REPLY, .from = 2, .term = 2, .ok = true, .match = 1});
  step(&g, add);
  assert_int_equal(g.a.proposed, ERR_NONE);
  assert_int_equal(g.a.append[0].type, RAFT_ENTRY_MEMBERS);
  struct raft_members m;
  assert_int_equal(raft_members_decode(g.a.append[0].data, g.a.append[0].len, &m, NULL), 0);
  assert_true(m.n == 4 && !m.m[3].voter);
  assert_non_null(sent(&g, RAFT_MSG_APPEND, 4));
  step(&g, (struct raft_event){.type = RAFT_EV_CHANGE, .change = {.type = RAFT_REMOVE, .id = 3}});
  assert_int_equal(g.a.proposed, ERR_BUSY);
  sync_now(&g);
  message(&g, (struct raft_msg){.type = RAFT_MSG_APPEND_REPLY, .from = 4, .term = 2, .ok = true, .match = 2});
  assert_int_equal(g.commit, 1); /* a learner does not count */
  message(&g, (struct raft_msg){.type = RAFT_MSG_APPEND_REPLY, .from = 3, .term = 2, .ok = true, .match = 2});
  assert_int_equal(g.commit, 2);
  step(&g, (struct raft_event){.type = RAFT_EV_CHANGE, .change = {.type = RAFT_REMOVE, .id = 9}});
  assert_int_equal(g.a.proposed, ERR_NOT_FOUND);
  step(&g, (struct raft_event){.type = RAFT_EV_CHANGE, .change = {.type = RAFT_PROMOTE, .id = 4}});
  assert_int_equal(g.a.proposed, ERR_NONE);
  rig_end(&g);

  rig_new(&g, 1, 1, 0, NULL, 0);
  step(&g, (struct raft_event){.type = RAFT_EV_START});
  sync_now(&g);
  sync_now(&g);
  step(&g, (struct raft_event){.type = RAFT_EV_CHANGE, .change = {.type = RAFT_REMOVE, .id = 1}});
  assert_int_equal(g.a.proposed, ERR_INVALID); /* the last voter */
  rig_end(&g);
}

static void a_full_disk_is_a_crash_that_nobody_saw(void **state) {
  (void)state;
  struct rig g;
  rig_new(&g, 1, 1, 0, NULL, 0);
  step(&g, (struct raft_event){.type = RAFT_EV_START});
  sync_now(&g);
  sync_now(&g);
  struct raft_stable before = g.written;
  struct raft_entry e = {.type = RAFT_ENTRY_DATA, .data = "a", .len = 1};
  step(&g, (struct raft_event){.type = RAFT_EV_PROPOSE, .entries = &e, .n_entries = 1});
  g.written = before;
  step(&g, (struct raft_event){.type = RAFT_EV_WRITE_FAILED});
  assert_true(raft_role(g.raft) == RAFT_FOLLOWER && raft_last_index(g.raft) == 1 && !g.a.write);
  tick_after(&g, 400); /* tries again by itself */
  assert_true(g.a.hard_changed && g.a.hard.term == 2);
  sync_now(&g);
  assert_int_equal(raft_role(g.raft), RAFT_LEADER);
  sync_now(&g);
  assert_int_equal(g.commit, 2);
  rig_end(&g);
}

static void snapshots_replace_only_what_is_older(void **state) {
  (void)state;
  struct rig g;
  struct raft_entry log[5];
  for (uint64_t i = 0; i < 5; i++)
    log[i] = (struct raft_entry){.index = i + 1, .term = 1, .type = RAFT_ENTRY_DATA};
  rig_new(&g, 2, 3, 1, log, 5);
  step(&g, (struct raft_event){.type = RAFT_EV_START});
  message(&g, (struct raft_msg){.type = RAFT_MSG_APPEND, .from = 1, .term = 1, .index = 5, .index_term = 1, .commit = 3});
  struct raft_msg from = {.type = RAFT_MSG_SNAPSHOT, .from = 1, .to = 2, .term = 1};
  struct raft_snapshot snapshot = {.index = 3, .term = 1, .members = members_of(3)};
  struct raft_event ev = {.type = RAFT_EV_INSTALL, .msg = &from, .snapshot = &snapshot};
  step(&g, ev);
  assert_false(g.a.install);
  assert_int_equal(sent(&g, RAFT_MSG_SNAPSHOT_REPLY, 1)->match, 3);
  snapshot.index = 5; /* the log has that very entry: it leads there by itself */
  step(&g, ev);
  assert_false(g.a.install);
  assert_int_equal(g.a.commit, 5);
  snapshot.index = 100;
  step(&g, ev);
  assert_true(g.a.install);
  assert_true(raft_last_index(g.raft) == 100 && raft_commit(g.raft) == 100 && raft_first_index(g.raft) == 101);
  const struct raft_entry e = {.index = 101, .term = 1, .type = RAFT_ENTRY_DATA};
  message(&g, (struct raft_msg){.type = RAFT_MSG_APPEND, .from = 1, .term = 1, .index = 100, .index_term = 1, .n_entries = 1, .entries = &e});
  assert_true(g.a.n_append == 1 && sent(&g, RAFT_MSG_APPEND_REPLY, 1)->ok);
  rig_end(&g);
}

static uint64_t draw(uint64_t *x) {
  *x ^= *x << 13;
  *x ^= *x >> 7;
  *x ^= *x << 17;
  return *x;
}

/* No message, whatever it says, reaches an assertion, or takes back what is committed or in which term one was. */
static void nonsense_is_survived(void **state) {
  (void)state;
  for (uint64_t seed = 1; seed <= 300; seed++) {
    struct rig g;
    uint64_t x = seed * 7919;
    if (seed % 2) {
      lead(&g);
    } else {
      struct raft_entry log[5];
      for (uint64_t i = 0; i < 5; i++)
        log[i] = (struct raft_entry){.index = i + 1, .term = 1, .type = RAFT_ENTRY_DATA};
      rig_new(&g, 2, 3, 1, log, 5);
      step(&g, (struct raft_event){.type = RAFT_EV_START});
    }
    for (int i = 0; i < 200; i++) {
      static const uint64_t numbers[] = {0, 1, 2, 3, 4, 5, 6, 7, 100, UINT64_C(1) << 62, UINT64_MAX - 1, UINT64_MAX};
      struct raft_entry e[3];
      struct raft_msg m = {.type = (enum raft_msg_type)(draw(&x) % 10), .from = draw(&x) % 6, .term = numbers[draw(&x) % 12]};
      m.pre = draw(&x) % 2;
      m.transfer = draw(&x) % 2;
      m.ok = draw(&x) % 2;
      m.index = numbers[draw(&x) % 12];
      m.index_term = numbers[draw(&x) % 12];
      m.commit = numbers[draw(&x) % 12];
      m.match = numbers[draw(&x) % 12];
      m.read_seq = numbers[draw(&x) % 12];
      m.n_entries = draw(&x) % 4;
      m.entries = e;
      for (uint64_t k = 0; k < m.n_entries; k++)
        e[k] = (struct raft_entry){.index = m.index + 1 + k + (draw(&x) % 20 == 0),
                                   .term = m.index_term + draw(&x) % 2,
                                   .type = (enum raft_entry_type)(draw(&x) % 5),
                                   .data = "\x0a\x02\x08\x01",
                                   .len = draw(&x) % 5};
      uint64_t term = raft_term(g.raft), commit = raft_commit(g.raft);
      message(&g, m);
      assert_true(raft_term(g.raft) >= term && raft_commit(g.raft) >= commit && raft_commit(g.raft) <= raft_last_index(g.raft));
      if (i % 10 == 0)
        tick_after(&g, 60);
      if (i % 7 == 0)
        sync_now(&g);
    }
    rig_end(&g);
  }
}

static void memberships_as_bytes(void **state) {
  (void)state;
  struct raft_members m = members_of(RAFT_MEMBERS_MAX), back;
  uint8_t bytes[RAFT_MEMBERS_BYTES];
  struct err err = {0};
  m.m[3].voter = false;
  memset(m.m[5].address, 'x', RAFT_ADDRESS_MAX - 1);
  size_t len = raft_members_encode(&m, bytes, sizeof bytes);
  assert_true(len > 0);
  assert_int_equal(raft_members_decode(bytes, len, &back, &err), 0);
  assert_memory_equal(&m, &back, sizeof m);
  assert_int_equal(raft_members_encode(&m, bytes, 20), 0);
  assert_int_equal(raft_members_decode("\x0a\x02\x08\x01", 4, &back, &err), -1); /* no voter */
  assert_int_equal(err.code, ERR_CORRUPT);
  assert_int_equal(raft_members_decode("\x0a\x04\x08\x02\x10\x01\x0a\x04\x08\x02\x10\x01", 12, &back, &err), -1); /* one twice */
  assert_int_equal(raft_members_decode("\xff\xff", 2, &back, &err), -1);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(alone_from_nothing_to_a_commit),
      cmocka_unit_test(only_entries_of_the_term_commit),
      cmocka_unit_test(a_follower_commits_no_further_than_what_was_sent),
      cmocka_unit_test(a_refusal_names_where_to_go_on),
      cmocka_unit_test(one_vote_in_a_term),
      cmocka_unit_test(a_living_leader_is_not_disturbed),
      cmocka_unit_test(reads_ask_a_quorum_that_answers_after_them),
      cmocka_unit_test(membership_one_at_a_time),
      cmocka_unit_test(a_full_disk_is_a_crash_that_nobody_saw),
      cmocka_unit_test(snapshots_replace_only_what_is_older),
      cmocka_unit_test(nonsense_is_survived),
      cmocka_unit_test(memberships_as_bytes),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
