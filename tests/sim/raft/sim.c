#include "tests/sim/raft/sim.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/crypto/crypto.h"
#include "orca-store/log.h"
#include "orca-store/raft.h"
#include "orca-store/snapshot.h"
#include "tests/lib/simdisk.h"

#define MS INT64_C(1000000)
#define NODES_MAX 8
#define INDEX_MAX 16384
#define SEEN_MAX 65536
#define TERMS_MAX 4096
#define FAULTY (6000 * MS)
#define HEALED (12000 * MS)

static const uint8_t cluster[DLOG_CLUSTER_ID] = "simulatedcluster";

enum what { DELIVER, SYNC, TICK, CLIENT, NEMESIS, RESTART, SENT, HEAL };

struct mail { /* a message on its way, with all it needs */
  struct raft_msg msg;
  struct raft_entry *entries;
  uint8_t *data;
  bool is_snapshot;
  struct snapshot_meta meta;
  uint64_t chain;
};

struct happening {
  int64_t at;
  uint64_t order;
  enum what what;
  int node;
  uint64_t epoch, peer;
  bool ok;
  struct mail *mail;
};

struct held {
  struct mail *mail;
  uint64_t ticket;
};

struct node {
  uint64_t id, epoch;
  bool up;
  struct simdisk *disk;
  struct raft *raft;
  struct raft_actions actions;
  struct dlog *log;
  uint64_t synced_ticket;
  bool syncing, full;
  int64_t deadline, tick_at;
  struct held held[512];
  size_t n_held;
  uint64_t applied, chain, snapshot;
  uint64_t seen_term;
  bool was_leader;
  enum err_code proposed; /* of the last PROPOSE or CHANGE: the actions may have been used again since */
  int64_t skew;
};

struct seen { /* an entry of some log, by index and term */
  uint64_t index, term, prev_term, value, generation;
};
struct fate {
  uint64_t term, value, chain;
  bool known;
};
struct waiting {
  int node;
  uint64_t epoch, index, term, value;
};
struct asked {
  uint64_t id, at_least;
  int node;
};

struct sim {
  uint64_t random, order, seed;
  bool verbose, healed;
  int64_t now;
  struct happening *heap;
  size_t n_heap, cap_heap;
  struct node nodes[NODES_MAX];
  int n_nodes, voters;
  bool cut[NODES_MAX][NODES_MAX];
  unsigned loss, duplicate, slow; /* per 1,000 */
  bool with_changes, with_disk_faults, with_snapshots;
  struct fate fates[INDEX_MAX];
  uint64_t max_applied, max_acked;
  struct waiting waiting[1024];
  size_t n_waiting;
  struct asked asked[1024];
  size_t n_asked;
  uint64_t next_value, next_read;
  uint64_t leader_of[TERMS_MAX];
  struct raft_members founded;
  struct sim_result *result;
};

static struct seen seen[SEEN_MAX]; /* kept from run to run for speed: generations tell */
static uint64_t generation;

static uint64_t draw(struct sim *s) {
  uint64_t z = s->random += UINT64_C(0x9e3779b97f4a7c15);
  z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
  return z ^ (z >> 31);
}
static uint64_t below(struct sim *s, uint64_t n) {
  return draw(s) % n;
}
static bool chance(struct sim *s, unsigned per_mille) {
  return below(s, 1000) < per_mille;
}

static uint64_t mix(uint64_t a, uint64_t b) {
  uint64_t z = a * UINT64_C(0x9e3779b97f4a7c15) ^ b;
  z = (z ^ (z >> 31)) * UINT64_C(0x94d049bb133111eb);
  return z ^ (z >> 29);
}

__attribute__((format(printf, 2, 3))) static void tell(struct sim *s, const char *fmt, ...) {
  if (!s->verbose)
    return;
  va_list ap;
  printf("%10.3f ms  ", (double)s->now / 1e6);
  va_start(ap, fmt);
  vprintf(fmt, ap);
  va_end(ap);
  putchar('\n');
}

__attribute__((format(printf, 2, 3))) static void violation(struct sim *s, const char *fmt, ...) {
  va_list ap;
  if (s->result->violated)
    return;
  s->result->violated = true;
  va_start(ap, fmt);
  vsnprintf(s->result->text, sizeof s->result->text, fmt, ap);
  va_end(ap);
  tell(s, "VIOLATION %s", s->result->text);
}

/* ---------------------------------------------------------------- what is to come */

static bool sooner(const struct happening *a, const struct happening *b) {
  return a->at != b->at ? a->at < b->at : a->order < b->order;
}

static void later(struct sim *s, int64_t delay, struct happening h) {
  if (s->n_heap == s->cap_heap) {
    s->cap_heap = s->cap_heap ? s->cap_heap * 2 : 256;
    s->heap = realloc(s->heap, s->cap_heap * sizeof *s->heap);
    if (!s->heap)
      abort();
  }
  h.at = s->now + delay;
  h.order = s->order++;
  size_t i = s->n_heap++;
  for (; i > 0 && sooner(&h, &s->heap[(i - 1) / 2]); i = (i - 1) / 2)
    s->heap[i] = s->heap[(i - 1) / 2];
  s->heap[i] = h;
}

static struct happening next(struct sim *s) {
  struct happening first = s->heap[0], last = s->heap[--s->n_heap];
  size_t i = 0;
  for (;;) {
    size_t child = 2 * i + 1;
    if (child >= s->n_heap)
      break;
    if (child + 1 < s->n_heap && sooner(&s->heap[child + 1], &s->heap[child]))
      child++;
    if (!sooner(&s->heap[child], &last))
      break;
    s->heap[i] = s->heap[child];
    i = child;
  }
  s->heap[i] = last;
  return first;
}

static void mail_free(struct mail *m) {
  if (!m)
    return;
  free(m->entries);
  free(m->data);
  free(m);
}

static struct mail *mail_copy(const struct mail *m) {
  struct mail *c = malloc(sizeof *c);
  size_t bytes = 0;
  if (!c)
    abort();
  *c = *m;
  if (m->entries) {
    for (uint64_t i = 0; i < m->msg.n_entries; i++)
      bytes += m->entries[i].len;
    c->entries = calloc(m->msg.n_entries + 1, sizeof *c->entries);
    c->data = malloc(bytes + 1);
    if (!c->entries || !c->data)
      abort();
    memcpy(c->data, m->data, bytes);
    size_t at = 0;
    for (uint64_t i = 0; i < m->msg.n_entries; i++) {
      c->entries[i] = m->entries[i];
      c->entries[i].data = c->data + at;
      at += c->entries[i].len;
    }
    c->msg.entries = c->entries;
  }
  return c;
}

static struct node *node_by_id(struct sim *s, uint64_t id) {
  return id >= 1 && id <= (uint64_t)s->n_nodes ? &s->nodes[id - 1] : NULL;
}

static int64_t delay(struct sim *s) {
  int64_t d = 50000 + (int64_t)below(s, 1000000);
  return chance(s, s->slow) ? d + (int64_t)below(s, 400) * MS : d;
}

static void tell_mail(struct sim *s, const char *what, const struct raft_msg *m) {
  static const char *const names[] = {"?", "vote", "vote-reply", "append", "append-reply", "snapshot", "snapshot-reply", "timeout-now"};
  if (s->verbose)
    tell(s,
         "  %s n%" PRIu64 "->n%" PRIu64 " %s%s term %" PRIu64 " at %" PRIu64 "/%" PRIu64 " +%" PRIu64 " commit %" PRIu64 "%s match %" PRIu64
         " read %" PRIu64,
         what, m->from, m->to, m->pre ? "pre-" : "", names[m->type], m->term, m->index, m->index_term, m->n_entries, m->commit, m->ok ? " ok" : "",
         m->match, m->read_seq);
}

static void post(struct sim *s, struct mail *m) {
  struct node *to = node_by_id(s, m->msg.to);
  tell_mail(s, "send", &m->msg);
  if (!to || s->cut[m->msg.from - 1][m->msg.to - 1] || chance(s, s->loss)) {
    mail_free(m);
    return;
  }
  if (chance(s, s->duplicate))
    later(s, delay(s), (struct happening){.what = DELIVER, .node = (int)(to - s->nodes), .mail = mail_copy(m)});
  later(s, delay(s), (struct happening){.what = DELIVER, .node = (int)(to - s->nodes), .mail = m});
}

/* ---------------------------------------------------------------- checks */

static uint64_t value_of(const struct raft_entry *e, const uint8_t *data) {
  return mix(crypto_crc32c((uint32_t)e->type, data, e->len), e->len);
}

/* Log matching: an index and a term name one entry, and one entry before it, in all logs and for ever. */
static void check_entry(struct sim *s, struct node *n, const struct raft_entry *e, const uint8_t *data, uint64_t prev_term) {
  uint64_t value = value_of(e, data);
  for (size_t at = mix(e->index, e->term) % SEEN_MAX, tries = 0; tries < SEEN_MAX; at = (at + 1) % SEEN_MAX, tries++) {
    struct seen *x = &seen[at];
    if (x->generation != generation) {
      *x = (struct seen){e->index, e->term, prev_term, value, generation};
      return;
    }
    if (x->index != e->index || x->term != e->term)
      continue;
    if (x->value != value)
      violation(s, "log matching: two entries %" PRIu64 " of term %" PRIu64 ", one at node %" PRIu64, e->index, e->term, n->id);
    else if (x->prev_term != prev_term && prev_term != 0 && x->prev_term != 0)
      violation(s, "log matching: entry %" PRIu64 " of term %" PRIu64 " follows two different ones, one at node %" PRIu64, e->index, e->term, n->id);
    return;
  }
}

static void check_leader(struct sim *s, struct node *n) {
  uint64_t term = raft_term(n->raft);
  if (term >= TERMS_MAX)
    return;
  if (s->leader_of[term] == 0) {
    s->leader_of[term] = n->id;
    s->result->elections++;
    tell(s, "n%" PRIu64 " leads term %" PRIu64, n->id, term);
  } else if (s->leader_of[term] != n->id) {
    violation(s, "election safety: %" PRIu64 " and %" PRIu64 " both lead term %" PRIu64, s->leader_of[term], n->id, term);
  }
  for (uint64_t i = raft_first_index(n->raft); i <= s->max_applied && i < INDEX_MAX; i++) {
    if (s->fates[i].known && raft_term_at(n->raft, i) != s->fates[i].term) {
      violation(s, "leader completeness: %" PRIu64 " leads term %" PRIu64 " without entry %" PRIu64 " of term %" PRIu64, n->id, term, i,
                s->fates[i].term);
      return;
    }
  }
}

static void applied(struct sim *s, struct node *n, const struct raft_entry *e, const uint8_t *data) {
  uint64_t value = value_of(e, data);
  if (e->index >= INDEX_MAX)
    return;
  n->chain = mix(n->chain, mix(e->term, value));
  n->applied = e->index;
  struct fate *f = &s->fates[e->index];
  if (!f->known) {
    *f = (struct fate){e->term, value, n->chain, true};
    if (e->index > s->max_applied)
      s->max_applied = e->index;
  } else if (f->term != e->term || f->value != value || f->chain != n->chain) {
    violation(s, "state machine safety: node %" PRIu64 " applies entry %" PRIu64 " of term %" PRIu64 ", another applied that of term %" PRIu64, n->id,
              e->index, e->term, f->term);
  }
  size_t kept = 0;
  for (size_t i = 0; i < s->n_waiting; i++) {
    struct waiting w = s->waiting[i];
    if (&s->nodes[w.node] == n && w.index == e->index && w.epoch == n->epoch) {
      if (w.term == e->term) {
        if (w.value != value)
          violation(s, "entry %" PRIu64 " is another than was proposed", e->index);
        if (e->index > s->max_acked)
          s->max_acked = e->index;
        s->result->acked++;
      }
      continue;
    }
    s->waiting[kept++] = w;
  }
  s->n_waiting = kept;
}

/* ---------------------------------------------------------------- a node's shell */

static void step(struct sim *s, struct node *n, const struct raft_event *ev);

static void fall(struct sim *s, struct node *n, bool power) {
  if (!n->up)
    return;
  tell(s, "n%" PRIu64 " %s", n->id, power ? "loses power" : "is killed");
  s->result->crashes++;
  n->up = false;
  n->epoch++;
  for (size_t i = 0; i < n->n_held; i++)
    mail_free(n->held[i].mail);
  n->n_held = 0;
  dlog_close(n->log);
  n->log = NULL;
  raft_free(n->raft);
  n->raft = NULL;
  if (power) {
    simdisk_power_cut(n->disk);
    n->applied = 0;
  } else {
    simdisk_kill(n->disk);
  }
  size_t kept = 0;
  for (size_t i = 0; i < s->n_asked; i++)
    if (&s->nodes[s->asked[i].node] != n)
      s->asked[kept++] = s->asked[i];
  s->n_asked = kept;
  later(s, 1 * MS + (int64_t)below(s, 600) * MS, (struct happening){.what = RESTART, .node = (int)(n - s->nodes)});
}

static void trouble(struct sim *s, struct node *n, const struct err *err) {
  if (err->code == ERR_IO || err->code == ERR_NO_SPACE)
    fall(s, n, chance(s, 500)); /* a failed sync ends the process */
  else
    violation(s, "node %" PRIu64 ": %s", n->id, err->msg);
}

static void reschedule(struct sim *s, struct node *n, int64_t deadline) {
  n->deadline = deadline;
  if (deadline == INT64_MAX || (n->tick_at > s->now && n->tick_at <= deadline))
    return;
  n->tick_at = deadline > s->now ? deadline : s->now + 1;
  later(s, n->tick_at - s->now, (struct happening){.what = TICK, .node = (int)(n - s->nodes), .epoch = n->epoch});
}

static int read_snapshot(struct sim *s, struct node *n, struct snapshot_meta *meta, uint64_t *chain) {
  char path[SNAPSHOT_PATH_MAX];
  struct err err = {0};
  struct disk *d = simdisk_disk(n->disk);
  int rc = snapshot_newest(d, "snap", cluster, true, meta, path, NULL, NULL, &err);
  if (rc < 0 && err.code != ERR_IO)
    violation(s, "node %" PRIu64 ": snapshots: %s", n->id, err.msg);
  if (rc <= 0)
    return rc;
  int fd = d->open(d, path, DISK_READ);
  if (fd < 0 || disk_read_at(d, fd, chain, sizeof *chain, 0) != sizeof *chain)
    violation(s, "node %" PRIu64 ": snapshot cannot be read", n->id);
  if (fd >= 0)
    d->close(d, fd);
  return 1;
}

static int write_snapshot(struct node *n, struct snapshot_meta *meta, uint64_t chain, const uint8_t *sha, struct err *err) {
  char path[SNAPSHOT_PATH_MAX];
  struct disk *d = simdisk_disk(n->disk);
  memcpy(meta->cluster_id, cluster, sizeof cluster);
  if (snapshot_begin(d, "snap", path, err) < 0)
    return -1;
  int fd = d->open(d, path, DISK_CREATE_NEW);
  if (fd < 0)
    return err_errno(err, -fd, "%s", path);
  int rc = disk_write_at(d, fd, &chain, sizeof chain, 0);
  d->close(d, fd);
  return rc < 0 ? err_errno(err, -rc, "%s", path) : snapshot_commit(d, "snap", path, meta, sha, err);
}

static void take_snapshot(struct sim *s, struct node *n) {
  struct err err = {0};
  struct snapshot_meta meta = {.raft = {.index = n->applied, .term = raft_term_at(n->raft, n->applied)}};
  const struct raft_members *m = raft_members_at(n->raft, n->applied);
  if (!m || m->n == 0 || meta.raft.term == 0)
    return;
  meta.raft.members = *m;
  if (write_snapshot(n, &meta, n->chain, NULL, &err) < 0) {
    if (err.code != ERR_NO_SPACE)
      trouble(s, n, &err);
    return;
  }
  n->snapshot = n->applied;
  tell(s, "n%" PRIu64 " snapshot at %" PRIu64, n->id, n->applied);
  bool cut = chance(s, 700); /* or keep the log for those who are a little behind */
  if (snapshot_clean(simdisk_disk(n->disk), "snap", 2, &err) < 0 || (cut && dlog_cut(n->log, n->applied, &err) < 0)) {
    trouble(s, n, &err);
    return;
  }
  if (cut)
    step(s, n, &(struct raft_event){.type = RAFT_EV_COMPACTED, .snapshot = &meta.raft});
}

static struct mail *make_mail(struct sim *s, struct node *n, const struct raft_msg *m) {
  struct mail *mail = calloc(1, sizeof *mail);
  struct err err = {0};
  if (!mail)
    abort();
  mail->msg = *m;
  if (m->type == RAFT_MSG_SNAPSHOT) {
    mail->is_snapshot = read_snapshot(s, n, &mail->meta, &mail->chain) > 0;
    later(s, 2 * delay(s),
          (struct happening){.what = SENT, .node = (int)(n - s->nodes), .epoch = n->epoch, .peer = m->to, .ok = mail->is_snapshot && chance(s, 800)});
    if (!mail->is_snapshot) {
      free(mail);
      return NULL;
    }
  }
  if (m->n_entries > 0) {
    struct buf data = BUF_INIT(64 << 20);
    mail->entries = calloc(m->n_entries, sizeof *mail->entries);
    if (!mail->entries)
      abort();
    for (uint64_t i = 0; i < m->n_entries; i++) {
      if (dlog_read(n->log, m->first + i, &mail->entries[i], &data, &err) < 0) {
        violation(s, "node %" PRIu64 ": to send: %s", n->id, err.msg);
        buf_free(&data);
        mail_free(mail);
        return NULL;
      }
    }
    size_t len, at = 0;
    buf_add(&data, "", 1);
    mail->data = buf_take(&data, &len);
    for (uint64_t i = 0; i < m->n_entries; i++) {
      mail->entries[i].data = mail->data + at;
      at += mail->entries[i].len;
    }
    mail->msg.entries = mail->entries;
  }
  return mail;
}

static void apply_committed(struct sim *s, struct node *n, uint64_t commit) {
  struct err err = {0};
  while (n->up && n->applied < commit && !s->result->violated) {
    struct raft_entry e;
    struct buf data = BUF_INIT(1 << 20);
    if (dlog_read(n->log, n->applied + 1, &e, &data, &err) < 0)
      violation(s, "node %" PRIu64 ": to apply: %s", n->id, err.msg);
    else
      applied(s, n, &e, data.data);
    buf_free(&data);
  }
  if (n->up && s->with_snapshots && n->applied >= n->snapshot + 40 && chance(s, 100))
    take_snapshot(s, n);
}

static bool write_actions(struct sim *s, struct node *n) {
  struct raft_actions *a = &n->actions;
  struct err err = {0};
  if (!a->write)
    return true;
  if (dlog_write(n->log, a->hard_changed ? &a->hard : NULL, a->append, a->n_append, &err) < 0) {
    if (err.code == ERR_NO_SPACE)
      step(s, n, &(struct raft_event){.type = RAFT_EV_WRITE_FAILED});
    else
      trouble(s, n, &err);
    return false;
  }
  for (size_t i = 0; i < a->n_append; i++)
    check_entry(s, n, &a->append[i], a->append[i].data, i > 0 ? a->append[i - 1].term : raft_term_at(n->raft, a->append[i].index - 1));
  if (!n->syncing) {
    n->syncing = true;
    later(s, 100000 + (int64_t)below(s, chance(s, 50) ? 100 * MS : 2 * MS),
          (struct happening){.what = SYNC, .node = (int)(n - s->nodes), .epoch = n->epoch});
  }
  return true;
}

static void answer_reads(struct sim *s, struct node *n) {
  for (size_t i = 0; i < n->actions.n_reads; i++) {
    const struct raft_read *r = &n->actions.reads[i];
    for (size_t k = 0; k < s->n_asked; k++) {
      if (s->asked[k].id != r->id)
        continue;
      if (r->ok && r->index < s->asked[k].at_least)
        violation(s, "stale read: node %" PRIu64 " reads at %" PRIu64 ", %" PRIu64 " was acknowledged before", n->id, r->index, s->asked[k].at_least);
      if (r->ok)
        s->result->reads++;
      s->asked[k] = s->asked[--s->n_asked];
      break;
    }
  }
}

static void step(struct sim *s, struct node *n, const struct raft_event *ev) {
  struct raft_actions *a = &n->actions;
  struct err err = {0};
  uint64_t epoch = n->epoch;
  if (!n->up || s->result->violated)
    return;
  s->result->steps++;
  if (raft_step(n->raft, ev, s->now + n->skew, a) < 0)
    abort();
  if (ev->type == RAFT_EV_PROPOSE || ev->type == RAFT_EV_CHANGE)
    n->proposed = a->proposed;
  if (a->install && ev->snapshot) {
    if (ev->snapshot->index < n->applied)
      violation(s, "node %" PRIu64 " installs a snapshot of %" PRIu64 " over its state of %" PRIu64, n->id, ev->snapshot->index, n->applied);
    s->result->snapshots++;
    tell(s, "n%" PRIu64 " installs snapshot %" PRIu64, n->id, ev->snapshot->index);
    if (dlog_reset(n->log, ev->snapshot->index, ev->snapshot->term, &err) < 0) {
      trouble(s, n, &err);
      return;
    }
    struct mail *mail = (struct mail *)((char *)(uintptr_t)ev->msg - offsetof(struct mail, msg));
    n->applied = n->snapshot = ev->snapshot->index;
    n->chain = mail->chain;
    if (n->applied < INDEX_MAX && s->fates[n->applied].known && s->fates[n->applied].chain != n->chain)
      violation(s, "snapshot of %" PRIu64 " holds another state", n->applied);
  }
  reschedule(s, n, a->deadline == INT64_MAX ? INT64_MAX : a->deadline - n->skew);
  if (!write_actions(s, n) || epoch != n->epoch)
    return;
  if (raft_role(n->raft) == RAFT_LEADER && (!n->was_leader || n->seen_term != raft_term(n->raft)))
    check_leader(s, n);
  n->was_leader = raft_role(n->raft) == RAFT_LEADER;
  n->seen_term = raft_term(n->raft);
  for (size_t i = 0; i < a->n_msgs && !s->result->violated; i++) {
    struct mail *mail = make_mail(s, n, &a->msgs[i]);
    if (!mail)
      continue;
    if (a->msgs[i].after_sync && n->synced_ticket < dlog_ticket(n->log)) {
      if (n->n_held == sizeof n->held / sizeof n->held[0])
        mail_free(mail); /* as good as lost */
      else
        n->held[n->n_held++] = (struct held){mail, dlog_ticket(n->log)};
    } else {
      post(s, mail);
    }
  }
  answer_reads(s, n);
  apply_committed(s, n, a->commit);
}

static void on_sync(struct sim *s, struct node *n) {
  struct raft_stable stable;
  struct err err = {0};
  n->syncing = false;
  if (dlog_sync(n->log, &stable, &n->synced_ticket, &err) < 0) {
    trouble(s, n, &err);
    return;
  }
  size_t out = 0;
  while (out < n->n_held && n->held[out].ticket <= n->synced_ticket)
    post(s, n->held[out++].mail);
  memmove(n->held, n->held + out, (n->n_held - out) * sizeof n->held[0]);
  n->n_held -= out;
  step(s, n, &(struct raft_event){.type = RAFT_EV_STABLE, .stable = stable});
}

static void start(struct sim *s, struct node *n) {
  struct dlog_options lo = {.dir = "log", .disk = simdisk_disk(n->disk), .segment_size = 65536};
  struct dlog_found found;
  struct snapshot_meta meta = {0};
  struct err err = {0};
  uint64_t chain = 0;
  memcpy(lo.cluster_id, cluster, sizeof cluster);
  int has = read_snapshot(s, n, &meta, &chain);
  if (has < 0) {
    later(s, 50 * MS, (struct happening){.what = RESTART, .node = (int)(n - s->nodes)});
    return;
  }
  if (dlog_open(&n->log, &lo, &found, &err) < 0 || (has && dlog_follow_snapshot(n->log, meta.raft.index, meta.raft.term, &err) < 0)) {
    dlog_close(n->log);
    n->log = NULL;
    if (err.code == ERR_NO_SPACE || err.code == ERR_IO)
      later(s, 50 * MS, (struct happening){.what = RESTART, .node = (int)(n - s->nodes)});
    else
      violation(s, "node %" PRIu64 " does not open: %s", n->id, err.msg);
    return;
  }
  if (!has || n->applied < meta.raft.index) {
    n->applied = has ? meta.raft.index : 0;
    n->chain = chain;
  }
  n->snapshot = meta.raft.index;
  if (n->applied > dlog_last(n->log)) {
    violation(s, "node %" PRIu64 " applied %" PRIu64 ", its log ends at %" PRIu64, n->id, n->applied, dlog_last(n->log));
    return;
  }
  struct raft_options ro = {.id = n->id,
                            .seed = draw(s),
                            .max_append_entries = 4 + below(s, 20),
                            .max_inflight = 1 + below(s, 8),
                            .hard = dlog_mark(n->log).hard,
                            .snapshot = meta.raft,
                            .applied = n->applied};
  if (!has && n->id <= (uint64_t)s->voters)
    ro.snapshot.members = s->founded;
  n->raft = raft_new(&ro, &err);
  for (uint64_t i = dlog_first(n->log); n->raft && i <= dlog_last(n->log); i++) {
    struct raft_entry e;
    struct buf data = BUF_INIT(1 << 20);
    int rc = dlog_read(n->log, i, &e, &data, &err);
    e.data = data.data;
    if (rc < 0 || raft_restore(n->raft, &e, &err) < 0)
      violation(s, "node %" PRIu64 ": restoring: %s", n->id, err.msg);
    buf_free(&data);
  }
  if (!n->raft) {
    violation(s, "node %" PRIu64 ": %s", n->id, err.msg);
    return;
  }
  tell(s, "n%" PRIu64 " starts: log %" PRIu64 "..%" PRIu64 " term %" PRIu64 " snapshot %" PRIu64 " applied %" PRIu64 "%s%s", n->id,
       dlog_first(n->log), dlog_last(n->log), raft_term(n->raft), meta.raft.index, n->applied, found.torn ? ", torn " : "", found.torn_text);
  n->up = true;
  n->syncing = n->was_leader = false;
  n->synced_ticket = dlog_ticket(n->log);
  n->tick_at = 0;
  n->skew = (int64_t)below(s, 1000) * MS;
  step(s, n, &(struct raft_event){.type = RAFT_EV_START});
}

static void deliver(struct sim *s, struct node *n, struct mail *m) {
  struct err err = {0};
  if (!n->up)
    return;
  tell_mail(s, "recv", &m->msg);
  size_t bytes = 0;
  for (uint64_t i = 0; i < m->msg.n_entries; i++)
    bytes += m->entries[i].len;
  if (m->msg.n_entries > 0 && dlog_reserve(n->log, m->msg.n_entries, bytes, &err) < 0) {
    if (err.code != ERR_NO_SPACE)
      trouble(s, n, &err);
    return;
  }
  if (!m->is_snapshot) {
    step(s, n, &(struct raft_event){.type = RAFT_EV_MESSAGE, .msg = &m->msg});
    return;
  }
  step(s, n, &(struct raft_event){.type = RAFT_EV_MESSAGE, .msg = &m->msg});
  if (n->up && !s->result->violated)
    on_sync(s, n); /* the term is durable before the snapshot is */
  if (!n->up || s->result->violated || m->msg.term < raft_term(n->raft))
    return;
  struct snapshot_meta meta = m->meta;
  if (meta.raft.index > n->snapshot && write_snapshot(n, &meta, m->chain, m->meta.sha256, &err) < 0) {
    if (err.code != ERR_NO_SPACE)
      trouble(s, n, &err);
    return;
  }
  step(s, n, &(struct raft_event){.type = RAFT_EV_INSTALL, .msg = &m->msg, .snapshot = &meta.raft});
}

/* ---------------------------------------------------------------- clients and adversity */

static void propose(struct sim *s, struct node *n) {
  uint8_t data[4][160];
  struct raft_entry e[4];
  struct err err = {0};
  size_t count = 1 + below(s, 4), bytes = 0;
  for (size_t i = 0; i < count; i++) {
    uint64_t value = ++s->next_value;
    e[i] = (struct raft_entry){.type = RAFT_ENTRY_DATA, .data = data[i], .len = sizeof value + below(s, 150)};
    memset(data[i], (int)value, sizeof data[i]);
    memcpy(data[i], &value, sizeof value);
    bytes += e[i].len;
  }
  if (dlog_reserve(n->log, count, bytes, &err) < 0) {
    if (err.code != ERR_NO_SPACE)
      trouble(s, n, &err);
    return;
  }
  /* the clients wait before the step: with one voter nothing is acknowledged inside it, but a fault might */
  if (s->n_waiting + count > sizeof s->waiting / sizeof s->waiting[0])
    s->n_waiting = 0;
  uint64_t first = raft_last_index(n->raft) + 1;
  for (size_t i = 0; i < count; i++)
    s->waiting[s->n_waiting++] = (struct waiting){(int)(n - s->nodes), n->epoch, first + i, raft_term(n->raft), value_of(&e[i], data[i])};
  uint64_t epoch = n->epoch;
  step(s, n, &(struct raft_event){.type = RAFT_EV_PROPOSE, .entries = e, .n_entries = count});
  if (epoch != n->epoch || n->proposed == ERR_NONE)
    return;
  size_t kept = 0;
  for (size_t i = 0; i < s->n_waiting; i++)
    if (&s->nodes[s->waiting[i].node] != n || s->waiting[i].index < first)
      s->waiting[kept++] = s->waiting[i];
  s->n_waiting = kept;
}

static void change_members(struct sim *s, struct node *n) {
  static const enum raft_change_type types[] = {RAFT_ADD_LEARNER, RAFT_PROMOTE, RAFT_PROMOTE, RAFT_REMOVE};
  struct raft_event ev = {.type = RAFT_EV_CHANGE,
                          .change = {.type = types[below(s, 4)], .id = 1 + below(s, (uint64_t)s->n_nodes), .address = "tcp://sim:1"}};
  size_t voters = 0;
  const struct raft_members *m = raft_members(n->raft);
  struct err err = {0};
  for (size_t i = 0; i < m->n; i++)
    voters += m->m[i].voter;
  if ((ev.change.type == RAFT_REMOVE && voters <= 2 && s->voters > 2) || dlog_reserve(n->log, 1, 2048, &err) < 0)
    return;
  step(s, n, &ev);
  if (n->up && n->proposed == ERR_NONE) {
    s->result->changes++;
    tell(s, "n%" PRIu64 " changes members: %d of %" PRIu64 " at %" PRIu64, n->id, (int)ev.change.type, ev.change.id, raft_last_index(n->raft));
  }
}

static void client(struct sim *s) {
  struct node *n = &s->nodes[below(s, (uint64_t)s->n_nodes)];
  if (n->up) {
    if (raft_role(n->raft) == RAFT_LEADER && raft_last_index(n->raft) < INDEX_MAX - 100)
      propose(s, n);
    if (n->up && s->n_asked < sizeof s->asked / sizeof s->asked[0]) {
      uint64_t id = ++s->next_read;
      s->asked[s->n_asked++] = (struct asked){id, s->max_acked, (int)(n - s->nodes)};
      step(s, n, &(struct raft_event){.type = RAFT_EV_READ, .read_id = id});
    }
    if (n->up && !s->healed && raft_role(n->raft) == RAFT_LEADER && chance(s, 10))
      step(s, n, &(struct raft_event){.type = RAFT_EV_TRANSFER, .peer = below(s, (uint64_t)s->n_nodes + 1)});
    if (n->up && !s->healed && s->with_changes && raft_role(n->raft) == RAFT_LEADER && chance(s, 60))
      change_members(s, n);
  }
  later(s, (int64_t)below(s, 12) * MS, (struct happening){.what = CLIENT});
}

static void partition(struct sim *s) {
  memset(s->cut, 0, sizeof s->cut);
  uint64_t side = draw(s), kind = below(s, 5);
  if (kind < 2)
    return; /* whole again */
  for (int a = 0; a < s->n_nodes; a++)
    for (int b = 0; b < s->n_nodes; b++)
      s->cut[a][b] = kind == 2   ? (side >> a & 1) != (side >> b & 1)  /* two sides */
                     : kind == 3 ? (side >> a & 1) && !(side >> b & 1) /* one way */
                                 : chance(s, 250);                     /* here and there */
  tell(s, "partition of kind %d", (int)kind);
}

static void nemesis(struct sim *s) {
  if (s->healed)
    return;
  struct node *n = &s->nodes[below(s, (uint64_t)s->n_nodes)];
  switch (below(s, 10)) {
  case 0:
  case 1:
    partition(s);
    break;
  case 2:
  case 3:
    fall(s, n, true);
    break;
  case 4:
    fall(s, n, false);
    break;
  case 5: /* the whole room */
    if (chance(s, 300))
      for (int i = 0; i < s->n_nodes; i++)
        fall(s, &s->nodes[i], true);
    break;
  case 6: { /* whoever leads */
    for (int i = 0; i < s->n_nodes; i++)
      if (s->nodes[i].up && raft_role(s->nodes[i].raft) == RAFT_LEADER)
        fall(s, &s->nodes[i], chance(s, 700));
    break;
  }
  case 7:
    if (s->with_disk_faults && n->up) {
      n->full = !n->full;
      simdisk_set_full(n->disk, n->full);
      tell(s, "n%" PRIu64 " disk %s", n->id, n->full ? "full" : "has room");
    }
    break;
  case 8:
    if (s->with_disk_faults && n->up)
      simdisk_fail_at(n->disk, 1 + below(s, 20), (enum simdisk_fault)below(s, 3));
    break;
  default:
    s->loss = (unsigned)below(s, 200);
    s->slow = (unsigned)below(s, 150);
    break;
  }
  later(s, (int64_t)below(s, 400) * MS, (struct happening){.what = NEMESIS});
}

static void heal(struct sim *s) {
  tell(s, "faults end");
  s->healed = true;
  s->loss = s->slow = s->duplicate = 0;
  memset(s->cut, 0, sizeof s->cut);
  for (int i = 0; i < s->n_nodes; i++) {
    simdisk_set_full(s->nodes[i].disk, false);
    simdisk_fail_at(s->nodes[i].disk, 0, SIMDISK_EIO);
  }
}

/* Once faults have stopped: somebody leads, what was acknowledged is there, everyone who belongs gets there. */
static void check_end(struct sim *s, uint64_t acked_before) {
  struct node *leader = NULL;
  for (int i = 0; i < s->n_nodes; i++)
    if (s->nodes[i].up && raft_role(s->nodes[i].raft) == RAFT_LEADER && (!leader || raft_term(s->nodes[i].raft) > raft_term(leader->raft)))
      leader = &s->nodes[i];
  if (!leader) {
    violation(s, "progress: nobody leads, %" PRId64 " ms after the faults have stopped", (HEALED - FAULTY) / MS);
    return;
  }
  if (s->result->acked == acked_before)
    violation(s, "progress: no write was acknowledged after the faults had stopped");
  const struct raft_members *m = raft_members(leader->raft);
  for (size_t i = 0; i < m->n; i++) {
    struct node *n = node_by_id(s, m->m[i].id);
    if (!n->up || n->applied + 400 < s->max_acked)
      violation(s, "progress: node %" PRIu64 " has applied %" PRIu64 ", acknowledged: %" PRIu64, n->id, n->applied, s->max_acked);
  }
}

void sim_run(uint64_t seed, int voters, bool verbose, struct sim_result *ret) {
  struct sim *s = calloc(1, sizeof *s);
  if (!s)
    abort();
  *ret = (struct sim_result){0};
  generation++;
  s->result = ret;
  s->verbose = verbose;
  s->seed = seed;
  s->random = seed * 1000 + (uint64_t)voters;
  s->voters = voters;
  s->with_changes = chance(s, 400);
  s->with_disk_faults = chance(s, 400);
  s->with_snapshots = chance(s, 600);
  s->n_nodes = voters + (s->with_changes ? 1 : 0);
  s->loss = (unsigned)below(s, 100);
  s->duplicate = (unsigned)below(s, 100);
  s->slow = (unsigned)below(s, 50);
  s->founded.n = (size_t)voters;
  for (int i = 0; i < voters; i++)
    s->founded.m[i] = (struct raft_member){.id = (uint64_t)i + 1, .voter = true, .address = "tcp://sim:1"};
  for (int i = 0; i < s->n_nodes; i++) {
    s->nodes[i].id = (uint64_t)i + 1;
    s->nodes[i].disk = simdisk_new(mix(seed, (uint64_t)i));
    raft_actions_init(&s->nodes[i].actions);
    later(s, 0, (struct happening){.what = RESTART, .node = i});
  }
  later(s, 1 * MS, (struct happening){.what = CLIENT});
  later(s, 300 * MS, (struct happening){.what = NEMESIS});
  later(s, FAULTY, (struct happening){.what = HEAL});
  uint64_t acked_before = 0;
  while (s->n_heap > 0 && !ret->violated && s->heap[0].at < HEALED) {
    struct happening h = next(s);
    struct node *n = &s->nodes[h.node];
    s->now = h.at;
    switch (h.what) {
    case DELIVER:
      if (!s->cut[h.mail->msg.from - 1][h.mail->msg.to - 1])
        deliver(s, n, h.mail);
      mail_free(h.mail);
      break;
    case SYNC:
      if (n->up && n->epoch == h.epoch)
        on_sync(s, n);
      break;
    case TICK:
      if (!n->up || n->epoch != h.epoch)
        break;
      if (s->now >= n->deadline)
        step(s, n, &(struct raft_event){.type = RAFT_EV_TICK});
      else
        reschedule(s, n, n->deadline);
      break;
    case CLIENT:
      client(s);
      break;
    case NEMESIS:
      nemesis(s);
      break;
    case RESTART:
      if (!n->up)
        start(s, n);
      break;
    case SENT:
      if (n->up && n->epoch == h.epoch)
        step(s, n, &(struct raft_event){.type = RAFT_EV_SNAPSHOT_SENT, .peer = h.peer, .ok = h.ok});
      break;
    case HEAL:
      heal(s);
      acked_before = ret->acked;
      break;
    }
  }
  if (!ret->violated)
    check_end(s, acked_before);
  for (size_t i = 0; i < s->n_heap; i++)
    if (s->heap[i].what == DELIVER)
      mail_free(s->heap[i].mail);
  for (int i = 0; i < s->n_nodes; i++) {
    struct node *n = &s->nodes[i];
    for (size_t k = 0; k < n->n_held; k++)
      mail_free(n->held[k].mail);
    dlog_close(n->log);
    raft_free(n->raft);
    raft_actions_fini(&n->actions);
    simdisk_free(n->disk);
  }
  free(s->heap);
  free(s);
}
