#include "orca-keeper/keeper.h"

#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/log.h"
#include "orca-keeper/try.h"

/* What has been said of a target. News that come while it is under way make it NEWS again. */
enum told { TOLD, NEWS, SENT };

struct item;

struct probing { /* one probe of one target, in the queue or under way */
  struct item *item;
  enum keeper_probe_kind kind;
  const Model__Probe *probe; /* NULL: there is none */
  int64_t timeout;
  struct keeper_try *attempt;
  bool queued;
  struct probing *next;
};

struct item {
  struct keeper *keeper;
  Keeper__Target *wire; /* as the agent sent it */
  struct keeper_target target;
  struct probing probing[KEEPER_PROBE_KINDS];
  struct loop_timer timer;
  enum told told;
  uint64_t seen; /* in which full list */
  struct item *next_in_bucket;
  struct item *prev, *next; /* all of them */
};

struct keeper {
  struct loop *loop;
  struct keeper_config config;
  struct http_client *http;
  struct bus_conn *agent;
  struct item **buckets;
  size_t bucket_count, count;
  struct item *first;
  struct probing *queue, **queue_end;
  unsigned under_way;
  uint64_t full;
  bool listing; /* between keeper_full_begin() and _end() */
};

static uint64_t hash_text(const char *s) {
  uint64_t h = UINT64_C(14695981039346656037);
  for (; *s; s++)
    h = (h ^ (unsigned char)*s) * UINT64_C(1099511628211);
  return h ^ h >> 29;
}

/* ---- the table ---- */

static struct item **place_of(struct keeper *k, const char *instance) {
  struct item **at = &k->buckets[hash_text(instance) & (k->bucket_count - 1)];
  while (*at && strcmp((*at)->wire->instance, instance) != 0)
    at = &(*at)->next_in_bucket;
  return at;
}

static void grow(struct keeper *k) {
  size_t count = k->bucket_count * 2;
  struct item **buckets = calloc(count, sizeof(struct item *));
  if (!buckets)
    return; /* longer chains do too */
  free(k->buckets);
  k->buckets = buckets;
  k->bucket_count = count;
  for (struct item *i = k->first; i; i = i->next) {
    struct item **at = &buckets[hash_text(i->wire->instance) & (count - 1)];
    i->next_in_bucket = *at;
    *at = i;
  }
}

/* ---- tries ---- */

static void follow(struct item *item, const struct keeper_target_step *step);

static void run_queue(struct keeper *k);

static void on_result(void *arg, bool success, const char *reason) {
  struct probing *p = arg;
  struct item *item = p->item;
  struct keeper *k = item->keeper;
  p->attempt = NULL;
  k->under_way--;
  struct keeper_target_step step = keeper_target_result(&item->target, p->kind, success, reason, loop_now(k->loop));
  if (step.changed) {
    const struct keeper_verdict *v = &item->target.verdict;
    log_debug("verdict", "instance", item->wire->instance, "started", v->started ? "yes" : "no", "ready", v->ready ? "yes" : "no", "live",
              v->live ? "yes" : "no", "reason", *v->reason ? v->reason : NULL);
  }
  follow(item, &step);
  run_queue(k);
}

static void start_try(struct keeper *k, struct probing *p) {
  const struct keeper_try_tools tools = {k->loop, k->http, k->agent};
  const Keeper__Target *wire = p->item->wire;
  const struct keeper_try_what what = {p->probe, wire->instance, wire->container_id, PB_STR(wire->address), p->timeout};
  p->attempt = keeper_try_start(&tools, &what, on_result, p);
  if (p->attempt) {
    k->under_way++;
    return;
  }
  log_error("no memory for a probe", "instance", wire->instance);
  struct keeper_target_step step = keeper_target_result(&p->item->target, p->kind, false, "the keeper has no memory for it", loop_now(k->loop));
  follow(p->item, &step);
}

static void run_queue(struct keeper *k) {
  while (k->queue && k->under_way < KEEPER_MAX_TRIES) {
    struct probing *p = k->queue;
    k->queue = p->next;
    if (!k->queue)
      k->queue_end = &k->queue;
    p->queued = false;
    start_try(k, p);
  }
}

static void enqueue(struct keeper *k, struct probing *p) {
  if (p->queued || p->attempt)
    return;
  p->queued = true;
  p->next = NULL;
  *k->queue_end = p;
  k->queue_end = &p->next;
}

static void unqueue(struct keeper *k, struct probing *p) {
  if (!p->queued)
    return;
  struct probing **at = &k->queue;
  while (*at != p)
    at = &(*at)->next;
  *at = p->next;
  if (!*at)
    k->queue_end = at;
  p->queued = false;
}

static void drop_tries(struct item *item) {
  for (int kind = 0; kind < KEEPER_PROBE_KINDS; kind++) {
    struct probing *p = &item->probing[kind];
    unqueue(item->keeper, p);
    if (p->attempt) {
      keeper_try_cancel(p->attempt);
      p->attempt = NULL;
      item->keeper->under_way--;
    }
  }
}

/* Does what a step of the target asks for. */
static void follow(struct item *item, const struct keeper_target_step *step) {
  struct keeper *k = item->keeper;
  struct err err;
  for (int kind = 0; kind < KEEPER_PROBE_KINDS; kind++)
    if (step->tries & 1u << kind)
      enqueue(k, &item->probing[kind]);
  if (step->next_at == KEEPER_NEVER)
    loop_timer_cancel(k->loop, &item->timer);
  else if (loop_timer_at(k->loop, &item->timer, step->next_at, &err) < 0)
    log_error("timer", "error", err.msg);
  if (!item->target.verdict.live)
    drop_tries(item);
  if (step->changed) {
    item->told = NEWS;
    k->config.news(k->config.arg);
  }
}

static void on_timer(void *arg) {
  struct item *item = arg;
  struct keeper_target_step step = keeper_target_time(&item->target, loop_now(item->keeper->loop));
  follow(item, &step);
  run_queue(item->keeper);
}

/* ---- targets ---- */

static void item_free(struct item *item) {
  struct keeper *k = item->keeper;
  drop_tries(item);
  loop_timer_cancel(k->loop, &item->timer);
  if (item->prev)
    item->prev->next = item->next;
  else
    k->first = item->next;
  if (item->next)
    item->next->prev = item->prev;
  k->count--;
  keeper__target__free_unpacked(item->wire, NULL);
  free(item);
}

static void remove_at(struct item **at) {
  struct item *item = *at;
  *at = item->next_in_bucket;
  item_free(item);
}

void keeper_remove_target(struct keeper *k, const char *instance) {
  struct item **at = place_of(k, instance);
  if (*at)
    remove_at(at);
  run_queue(k);
}

static uint32_t positive(uint32_t value, uint32_t otherwise) {
  return value ? value : otherwise;
}

/* Defaults as in proto/model.proto; whatever the numbers are, nothing here overflows or spins. */
static struct keeper_probe_rules rules_of(const Model__Probe *probe) {
  uint32_t interval = positive(PB_GET(probe, interval_secs, 10), 1), timeout = positive(PB_GET(probe, timeout_secs, 3), 1);
  return (struct keeper_probe_rules){
      .interval = (int64_t)interval * NS_PER_SEC,
      .timeout = (int64_t)timeout * NS_PER_SEC,
      .initial_delay = (int64_t)PB_GET(probe, initial_delay_secs, 0) * NS_PER_SEC,
      .failure_threshold = positive(PB_GET(probe, failure_threshold, 3), 1),
      .success_threshold = positive(PB_GET(probe, success_threshold, 1), 1),
  };
}

static void begin(struct item *item) {
  struct keeper *k = item->keeper;
  const Keeper__Target *wire = item->wire;
  const Model__Probe *probes[KEEPER_PROBE_KINDS] = {
      [KEEPER_STARTUP] = wire->startup, [KEEPER_READINESS] = wire->readiness, [KEEPER_LIVENESS] = wire->liveness};
  struct keeper_probe_rules rules[KEEPER_PROBE_KINDS];
  const struct keeper_probe_rules *given[KEEPER_PROBE_KINDS] = {NULL};
  for (int kind = 0; kind < KEEPER_PROBE_KINDS; kind++) {
    item->probing[kind] = (struct probing){.item = item, .kind = (enum keeper_probe_kind)kind, .probe = probes[kind]};
    if (!probes[kind])
      continue;
    rules[kind] = rules_of(probes[kind]);
    given[kind] = &rules[kind];
    item->probing[kind].timeout = rules[kind].timeout;
  }
  int64_t age = loop_wall(k->loop) - PB_GET(wire, started_ms, 0) * NS_PER_MS;
  if (!wire->has_started_ms || age < 0)
    age = 0;
  int64_t now = loop_now(k->loop);
  uint64_t seed = hash_text(wire->instance) ^ hash_text(PB_STR(wire->container_id)) >> 1;
  struct keeper_target_step step = keeper_target_begin(&item->target, given, now - age, !k->listing, seed, now);
  item->told = TOLD;
  follow(item, &step);
}

int keeper_set_target(struct keeper *k, const Keeper__Target *target, struct err *err) {
  if (!target->instance || !*target->instance)
    return err_set(err, ERR_INVALID, "a target without an instance");
  if (target->has_started_ms && (target->started_ms < 0 || target->started_ms > INT64_MAX / NS_PER_MS))
    return err_set(err, ERR_INVALID, "%.120s: started at an impossible time", target->instance);
  struct item **at = place_of(k, target->instance), *item = *at;
  if (item && pb_equal(&item->wire->base, &target->base)) {
    item->seen = k->full;
    return 0;
  }
  if (!item && k->count >= KEEPER_MAX_TARGETS)
    return err_set(err, ERR_BUSY, "%.120s: more than %u targets", target->instance, KEEPER_MAX_TARGETS);
  Keeper__Target *wire = (Keeper__Target *)pb_clone(&target->base);
  if (!wire)
    return err_set(err, ERR_MEMORY, "no memory for a target");
  if (item) {
    drop_tries(item);
    loop_timer_cancel(k->loop, &item->timer);
    keeper__target__free_unpacked(item->wire, NULL);
  } else {
    item = calloc(1, sizeof *item);
    if (!item) {
      keeper__target__free_unpacked(wire, NULL);
      return err_set(err, ERR_MEMORY, "no memory for a target");
    }
    item->keeper = k;
    item->timer = (struct loop_timer){.cb = on_timer, .arg = item};
    *at = item;
    item->next = k->first;
    if (k->first)
      k->first->prev = item;
    k->first = item;
    k->count++;
  }
  item->wire = wire;
  item->seen = k->full;
  begin(item);
  if (k->count > k->bucket_count)
    grow(k);
  return 0;
}

void keeper_full_begin(struct keeper *k) {
  k->full++;
  k->listing = true;
}

void keeper_full_end(struct keeper *k) {
  k->listing = false;
  for (size_t b = 0; b < k->bucket_count; b++)
    for (struct item **at = &k->buckets[b]; *at;)
      if ((*at)->seen != k->full)
        remove_at(at);
      else
        at = &(*at)->next_in_bucket;
  /* Before it listed, the agent did not know of these containers: what it was told then it could not keep. */
  for (struct item *i = k->first; i; i = i->next)
    if (i->target.verdict.known)
      i->told = NEWS;
  k->config.news(k->config.arg);
  run_queue(k);
}

size_t keeper_count(const struct keeper *k) {
  return k->count;
}

void keeper_set_agent(struct keeper *k, struct bus_conn *agent) {
  k->agent = agent;
}

/* ---- verdicts ---- */

size_t keeper_take_news(struct keeper *k, struct keeper_news *out, size_t max) {
  size_t n = 0;
  for (struct item *i = k->first; i && n < max; i = i->next)
    if (i->told == NEWS) {
      i->told = SENT;
      out[n++] = (struct keeper_news){i->wire->instance, PB_STR(i->wire->container_id), PB_GET(i->wire, started_ms, 0), &i->target.verdict};
    }
  return n;
}

void keeper_sent_is_known(struct keeper *k) {
  for (struct item *i = k->first; i; i = i->next)
    if (i->told == SENT)
      i->told = TOLD;
}

void keeper_sent_is_lost(struct keeper *k) {
  for (struct item *i = k->first; i; i = i->next)
    if (i->told == SENT)
      i->told = NEWS;
}

/* ---- */

struct keeper *keeper_new(struct loop *loop, const struct keeper_config *config, struct err *err) {
  struct keeper *k = calloc(1, sizeof *k);
  if (k) {
    k->loop = loop;
    k->config = *config;
    k->queue_end = &k->queue;
    k->bucket_count = 64;
    k->buckets = calloc(k->bucket_count, sizeof(struct item *));
  }
  if (!k || !k->buckets) {
    free(k);
    err_set(err, ERR_MEMORY, "no memory");
    return NULL;
  }
  k->http = http_client_new(loop, err);
  if (!k->http) {
    keeper_free(k);
    return NULL;
  }
  return k;
}

void keeper_free(struct keeper *k) {
  if (!k)
    return;
  while (k->first)
    item_free(k->first);
  http_client_free(k->http);
  free(k->buckets);
  free(k);
}
