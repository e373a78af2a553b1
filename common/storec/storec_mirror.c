#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/storec/storec_int.h"

#define READ_TIMEOUT (10 * NS_PER_SEC)
#define AGAIN_NS (50 * NS_PER_MS)
#define DENIED_AGAIN_NS NS_PER_SEC

/* What the owner has been told: only keys and revisions, to tell the difference after a history that was compacted. Open addressing; a deleted key
 * stays as a tombstone until the table is made anew. */
struct known {
  char *key;             /* NULL: empty */
  uint64_t mod_revision; /* 0: told as deleted */
  uint64_t generation;   /* of the read that last saw it */
};

struct storec_mirror {
  struct storec *c;
  char **prefixes;
  size_t count;
  struct storec_mirror_ops ops;
  void *arg;
  struct storec_user user;

  struct known *known;
  size_t known_size, known_used; /* used: with tombstones */

  struct storec_op *reading;
  struct bus_call *watch;
  struct loop_timer again;
  size_t prefix;          /* being read */
  struct buf from;        /* the key to go on from */
  uint64_t read_revision; /* 0: not known yet */
  uint64_t generation;
  uint64_t revision; /* told up to here; 0: nothing */
  bool synced, told_lost;

  unsigned calling; /* inside a callback of the owner's: freeing waits */
  bool dead;
};

static void start(struct storec_mirror *m);
static void read_on(struct storec_mirror *m);

/* ---------------------------------------------------------------- the table */

static uint64_t hash_text(const char *s, size_t len) {
  uint64_t h = UINT64_C(0xcbf29ce484222325);
  for (size_t i = 0; i < len; i++)
    h = (h ^ (uint8_t)s[i]) * UINT64_C(0x100000001b3);
  return h ^ h >> 29;
}

static struct known *slot(struct known *table, size_t size, const char *key, size_t len) {
  size_t i = (size_t)hash_text(key, len) & (size - 1);
  while (table[i].key && (strncmp(table[i].key, key, len) != 0 || table[i].key[len]))
    i = (i + 1) & (size - 1);
  return &table[i];
}

static int make_room(struct storec_mirror *m) {
  if (2 * (m->known_used + 1) <= m->known_size)
    return 0;
  size_t live = 0;
  for (size_t i = 0; i < m->known_size; i++)
    live += m->known[i].key && m->known[i].mod_revision;
  size_t size = 32;
  while (size < 4 * (live + 1))
    size *= 2;
  struct known *fresh = calloc(size, sizeof *fresh);
  if (!fresh)
    return -1;
  for (size_t i = 0; i < m->known_size; i++) {
    struct known *k = &m->known[i];
    if (k->key && k->mod_revision)
      *slot(fresh, size, k->key, strlen(k->key)) = *k;
    else
      free(k->key);
  }
  free(m->known);
  m->known = fresh;
  m->known_size = size;
  m->known_used = live;
  return 0;
}

static struct known *known_get(struct storec_mirror *m, const char *key, size_t len, bool make) {
  if (make && make_room(m) < 0)
    return NULL;
  if (!m->known_size)
    return NULL;
  struct known *k = slot(m->known, m->known_size, key, len);
  if (k->key || !make)
    return k->key ? k : NULL;
  if (!(k->key = strndup(key, len)))
    return NULL;
  m->known_used++;
  return k;
}

/* ---------------------------------------------------------------- telling the owner */

static void destroy(struct storec_mirror *m) {
  for (size_t i = 0; i < m->known_size; i++)
    free(m->known[i].key);
  free(m->known);
  for (size_t i = 0; i < m->count; i++)
    free(m->prefixes[i]);
  free(m->prefixes);
  buf_free(&m->from);
  free(m);
}

/* Around every callback. false: the owner freed the mirror meanwhile, and it is gone. */
static bool leave(struct storec_mirror *m) {
  if (--m->calling == 0 && m->dead) {
    destroy(m);
    return false;
  }
  return !m->dead;
}

static void tell_lost(struct storec_mirror *m, const struct err *why) {
  m->synced = false;
  if (m->told_lost || !m->ops.lost)
    return;
  m->told_lost = true;
  m->ops.lost(m->arg, why);
}

static void tell_synced(struct storec_mirror *m) {
  if (m->synced)
    return;
  m->synced = true;
  m->told_lost = false;
  m->ops.synced(m->arg, m->revision);
}

/* Keys with a NUL in them are not ours and cannot be told as text. */
static bool tellable(const ProtobufCBinaryData *key) {
  return key->len && !memchr(key->data, 0, key->len);
}

static int tell_put(struct storec_mirror *m, const Store__KeyValue *kv) {
  if (!tellable(&kv->key))
    return 0;
  struct known *k = known_get(m, (const char *)kv->key.data, kv->key.len, true);
  if (!k)
    return -1;
  uint64_t mod = PB_GET(kv, mod_revision, 0);
  k->generation = m->generation;
  if (k->mod_revision == mod)
    return 0;
  k->mod_revision = mod;
  m->ops.put(m->arg, k->key, kv->value.data, kv->value.len, mod);
  return 0;
}

static void tell_delete(struct storec_mirror *m, const ProtobufCBinaryData *key, uint64_t mod_revision) {
  struct known *k = tellable(key) ? known_get(m, (const char *)key->data, key->len, false) : NULL;
  if (!k || !k->mod_revision)
    return;
  k->mod_revision = 0;
  m->ops.del(m->arg, k->key, mod_revision);
}

/* ---------------------------------------------------------------- failures */

static void again(void *arg) {
  start(arg);
}

static void stop(struct storec_mirror *m) {
  storec_op_cancel(m->reading);
  m->reading = NULL;
  if (m->watch)
    bus_call_cancel(m->watch);
  m->watch = NULL;
  loop_timer_cancel(m->c->loop, &m->again);
}

/* Not in touch: tries again, soon, or when the conversation is back. Inside of calling++. */
static void failed(struct storec_mirror *m, const struct err *why) {
  stop(m);
  if (why->code == ERR_COMPACTED && bus_conn_is_up(m->c->conn)) {
    /* What happened meanwhile is forgotten: read all of it and tell the difference. */
    m->read_revision = 0;
    m->revision = 0;
    m->synced = false;
  } else {
    tell_lost(m, why);
  }
  struct err err;
  if (!m->dead && bus_conn_is_up(m->c->conn) &&
      loop_timer_in(m->c->loop, &m->again,
                    why->code == ERR_COMPACTED ? 0
                    : why->code == ERR_DENIED  ? DENIED_AGAIN_NS
                                               : AGAIN_NS,
                    &err) < 0)
    bus_conn_cut(m->c->conn); /* no memory for a timer: then the reconnection starts it again */
}

static void out_of_memory(struct storec_mirror *m) {
  struct err err;
  err_set(&err, ERR_MEMORY, "out of memory");
  /* What was told may have a gap now: read again. */
  m->revision = 0;
  failed(m, &err);
}

/* ---------------------------------------------------------------- watching */

static void watch_failed(void *arg, const struct err *why) {
  struct storec_mirror *m = arg;
  m->watch = NULL;
  m->calling++;
  failed(m, why);
  leave(m);
}

static void watch_done(void *arg, const uint8_t *body, size_t len) {
  struct err err;
  (void)body;
  (void)len;
  err_set(&err, ERR_UNAVAILABLE, "the store ended the watch");
  watch_failed(arg, &err);
}

static void watch_item(void *arg, const uint8_t *body, size_t len) {
  struct storec_mirror *m = arg;
  struct err err;
  Store__Item *item = (Store__Item *)pb_unpack(&store__item__descriptor, body, len, &err);
  m->calling++;
  if (!item || item->body_case != STORE__ITEM__BODY_WATCH) {
    if (item)
      err_set(&err, ERR_INVALID, "the store sent something else than a watch's item");
    failed(m, &err);
  } else {
    const Store__WatchItem *w = item->watch;
    uint64_t revision = PB_GET(w, revision, 0);
    bool ok = true;
    for (size_t i = 0; i < w->n_events && ok && !m->dead && revision > m->revision; i++) {
      const Store__WatchEvent *e = w->events[i];
      if (!e->kv)
        continue;
      if (PB_GET(e, type, STORE__EVENT_TYPE__PUT) == STORE__EVENT_TYPE__DELETE)
        tell_delete(m, &e->kv->key, PB_GET(e->kv, mod_revision, revision));
      else
        ok = tell_put(m, e->kv) == 0;
    }
    if (!ok) {
      out_of_memory(m);
    } else if (!m->dead) {
      bool fresh = revision > m->revision;
      if (fresh)
        m->revision = revision;
      if (fresh && w->n_events)
        m->ops.end_of_revision(m->arg, revision);
      if (!m->dead && PB_GET(w, progress, false))
        tell_synced(m);
    }
  }
  if (item)
    store__item__free_unpacked(item, NULL);
  leave(m);
}

static void watch(struct storec_mirror *m) {
  static const struct bus_call_ops ops = {.done = watch_done, .failed = watch_failed, .item = watch_item};
  Store__Call call = STORE__CALL__INIT;
  Store__WatchRequest request = STORE__WATCH_REQUEST__INIT;
  Store__KeyRange *ranges = calloc(m->count, sizeof *ranges), **list = calloc(m->count, sizeof(Store__KeyRange *));
  bool ok = ranges && list;
  for (size_t i = 0; ok && i < m->count; i++) {
    store__key_range__init(&ranges[i]);
    list[i] = &ranges[i];
    ranges[i].has_key = ranges[i].has_range_end = 1;
    ok = storec_prefix_range(m->prefixes[i], &ranges[i].key, &ranges[i].range_end);
  }
  if (ok) {
    request.n_ranges = m->count;
    request.ranges = list;
    PB_SET(&request, start_revision, m->revision + 1);
    call.body_case = STORE__CALL__BODY_WATCH;
    call.watch = &request;
    m->watch = bus_call(m->c->conn, &call.base, 0, &ops, m);
  }
  for (size_t i = 0; ranges && i < m->count; i++) {
    free(ranges[i].key.data);
    free(ranges[i].range_end.data);
  }
  free(ranges);
  free(list);
  if (!m->watch)
    out_of_memory(m);
}

/* ---------------------------------------------------------------- reading: all prefixes as of one revision, page by page */

static void read_ended(struct storec_mirror *m) {
  for (size_t i = 0; i < m->known_size && !m->dead; i++) {
    struct known *k = &m->known[i];
    if (!k->key || !k->mod_revision || k->generation == m->generation)
      continue;
    k->mod_revision = 0;
    m->ops.del(m->arg, k->key, m->read_revision);
  }
  if (m->dead)
    return;
  m->revision = m->read_revision;
  m->ops.end_of_revision(m->arg, m->revision);
  if (!m->dead)
    tell_synced(m);
  if (!m->dead && !m->watch && bus_conn_is_up(m->c->conn))
    watch(m);
}

static void read_page(void *arg, const Store__Reply *reply, const struct err *err) {
  struct storec_mirror *m = arg;
  struct err wrong;
  m->reading = NULL;
  m->calling++;
  if (!err && reply->body_case != STORE__REPLY__BODY_RANGE) {
    err_set(&wrong, ERR_INVALID, "the store answered a range with something else");
    err = &wrong;
  }
  if (err) {
    failed(m, err);
    leave(m);
    return;
  }
  const Store__RangeReply *r = reply->range;
  if (!m->read_revision)
    m->read_revision = PB_GET(r, revision, 0);
  bool ok = true;
  for (size_t i = 0; i < r->n_kvs && ok && !m->dead; i++)
    ok = tell_put(m, r->kvs[i]) == 0;
  if (!ok) {
    out_of_memory(m);
  } else if (!m->dead) {
    buf_reset(&m->from);
    if (PB_GET(r, more, false) && r->n_kvs) {
      const ProtobufCBinaryData *last = &r->kvs[r->n_kvs - 1]->key;
      buf_add(&m->from, last->data, last->len);
      buf_add_byte(&m->from, 0); /* the next key there can be */
    } else {
      m->prefix++;
    }
    if (m->prefix < m->count)
      read_on(m);
    else
      read_ended(m);
  }
  leave(m);
}

static void read_on(struct storec_mirror *m) {
  Store__Call *call = storec_new_call();
  Store__RangeRequest *r = call ? malloc(sizeof *r) : NULL;
  if (!r) {
    free(call);
    out_of_memory(m);
    return;
  }
  store__range_request__init(r);
  call->body_case = STORE__CALL__BODY_RANGE;
  call->range = r;
  r->has_key = r->has_range_end = 1;
  bool ok = storec_prefix_range(m->prefixes[m->prefix], &r->key, &r->range_end);
  if (ok && m->from.len) {
    free(r->key.data);
    ok = storec_bytes(&r->key, m->from.data, m->from.len);
  }
  if (m->read_revision)
    PB_SET(r, revision, m->read_revision);
  if (ok)
    m->reading = storec_op_new(m->c, call, READ_TIMEOUT, read_page, m);
  else
    store__call__free_unpacked(call, NULL);
  if (!m->reading)
    out_of_memory(m);
}

static void start(struct storec_mirror *m) {
  if (m->reading || m->watch || !bus_conn_is_up(m->c->conn))
    return;
  m->calling++;
  if (m->revision) {
    watch(m);
  } else {
    m->generation++;
    m->read_revision = 0;
    m->prefix = 0;
    buf_reset(&m->from);
    read_on(m);
  }
  leave(m);
}

static void on_up(void *arg) {
  struct storec_mirror *m = arg;
  loop_timer_cancel(m->c->loop, &m->again);
  start(m);
}

static void on_down(void *arg, const struct err *why) {
  struct storec_mirror *m = arg;
  m->calling++;
  stop(m);
  tell_lost(m, why);
  leave(m);
}

struct storec_mirror *storec_mirror_new(struct storec *c, const char *const *prefixes, size_t count, const struct storec_mirror_ops *ops, void *arg,
                                        struct err *err) {
  struct storec_mirror *m = calloc(1, sizeof *m);
  if (!m || !(m->prefixes = calloc(count ? count : 1, sizeof *m->prefixes)))
    goto no_memory;
  *m = (struct storec_mirror){.c = c, .prefixes = m->prefixes, .ops = *ops, .arg = arg, .from = BUF_INIT(1024)};
  for (; m->count < count; m->count++)
    if (!(m->prefixes[m->count] = strdup(prefixes[m->count])))
      goto no_memory;
  m->again = (struct loop_timer){.cb = again, .arg = m};
  m->user = (struct storec_user){.up = on_up, .down = on_down, .arg = m};
  /* Never from within this call: the first word comes from the loop. */
  if (loop_timer_in(c->loop, &m->again, 0, err) < 0) {
    destroy(m);
    return NULL;
  }
  storec_user_add(c, &m->user);
  return m;
no_memory:
  err_set(err, ERR_MEMORY, "out of memory");
  if (m)
    destroy(m);
  return NULL;
}

void storec_mirror_free(struct storec_mirror *m) {
  if (!m)
    return;
  stop(m);
  storec_user_remove(m->c, &m->user);
  m->dead = true;
  if (!m->calling)
    destroy(m);
}
