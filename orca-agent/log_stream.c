/* A stream's turns:
 *
 *   reading ─▶ new lines: again, a little later     ─▶ none, and the container runs: asleep ─▶ (it writes) reading
 *                                                   ─▶ none, and it does not run: until the instance changes
 *                                                   ─▶ no instance, or ended for good: the stream ends
 *
 * A reading that goes on from a mark asks for the newest `window` lines, as many as it will take to find the mark among them: a whole
 * log may be gigabytes. */
#include "orca-agent/log_stream.h"

#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/log.h"
#include "common/logs/mark.h"
#include "orca-agent/docker_logs.h"

#define CHUNK_LINES 512u
#define CHUNK_BYTES ((size_t)32 << 10)
#define WINDOW_MIN 128u
#define WINDOW_MAX (UINT64_C(1) << 20)
#define AGAIN_MIN (50 * NS_PER_MS)
#define AGAIN_MAX (500 * NS_PER_MS)
#define CHECK_SOON (100 * NS_PER_MS)
#define CHECK_LATE NS_PER_SEC
#define RETRY NS_PER_SEC
#define RETRIES 5u
/* With a reader that has paused, before Docker is let go of: asked anew, it unpacks all that was rotated since. */
#define PATIENCE (20 * NS_PER_SEC)
#define REMOVAL_WAIT NS_PER_SEC

enum from { FROM_START, FROM_MARK, FROM_TIME };

struct log_stream {
  struct log_streams *all;
  struct bus_call *call;
  char instance[INSTANCE_ID_MAX];
  char container[AGENT_CONTAINER_ID];
  bool follow;
  uint64_t tail;
  int64_t since_ns;
  enum from from;
  int64_t after_ns; /* FROM_TIME: lines later than this */
  struct log_mark mark;
  struct log_seek seek;
  bool mark_whole;   /* the marked line is no piece of a longer one: no other has its time */
  bool before_mark;  /* this reading has shown an older line of the mark's stream */
  bool in_pieces[2]; /* of each stream: the last line goes on */
  uint64_t window, fresh;
  struct docker_logs *read, *wake;
  struct loop_timer again, patience;
  int64_t began;
  bool starved, lost, caught_up, told_live;
  unsigned checks, failures;
  enum agent_cstate seen_state;
  Model__Phase seen_phase;
  struct log_stream *next, *prev;
};

struct held {
  struct log_streams *all;
  struct agent_action removal;
  struct loop_timer limit;
  struct held *next;
};

struct log_streams {
  struct agent *a;
  struct log_stream *streams;
  struct held *held;
  size_t count;
};

static void read_again(struct log_stream *s);
static void release(struct log_streams *all, bool all_of_them, const struct held *this_one);

/* ---- life ---- */

static void stop_reading(struct log_stream *s) {
  docker_logs_close(s->read);
  s->read = NULL;
  loop_timer_cancel(s->all->a->loop, &s->patience);
}

static void stop_waking(struct log_stream *s) {
  docker_logs_close(s->wake);
  s->wake = NULL;
}

static void stream_free(struct log_stream *s) {
  struct log_streams *all = s->all;
  stop_reading(s);
  stop_waking(s);
  loop_timer_cancel(all->a->loop, &s->again);
  if (s->prev)
    s->prev->next = s->next;
  else
    all->streams = s->next;
  if (s->next)
    s->next->prev = s->prev;
  all->count--;
  free(s);
  release(all, false, NULL);
}

static void end_well(struct log_stream *s) {
  bus_reply(s->call, NULL);
  stream_free(s);
}

static void end_badly(struct log_stream *s, const struct err *why) {
  bus_fail(s->call, why);
  stream_free(s);
}

static void again_in(struct log_stream *s, int64_t delay) {
  struct err err;
  if (loop_timer_in(s->all->a->loop, &s->again, delay, &err) < 0)
    end_badly(s, &err);
}

static const struct agent_instance *instance_of(const struct log_stream *s) {
  return agent_core_find(&s->all->a->core, s->instance);
}

static bool ended_for_good(const struct agent_instance *i) {
  return !i || (i->c.state == AGENT_C_NONE && (i->want == AGENT_WANT_STOP || i->want == AGENT_WANT_NONE)) ||
         (i->c.state == AGENT_C_EXITED && i->phase == MODEL__PHASE__PHASE_EXITED);
}

/* ---- what a reading brings ---- */

static Node__LogLine lines[CHUNK_LINES];
static Node__LogLine *line_list[CHUNK_LINES];

enum taken { TAKEN_NO, TAKEN_YES, TAKEN_MISSED };

static enum taken judge(struct log_stream *s, const struct log_line *line) {
  if (s->from == FROM_START)
    return TAKEN_YES;
  if (s->from == FROM_TIME)
    return line->ns > s->after_ns ? TAKEN_YES : TAKEN_NO;
  bool was_found = s->seek.found;
  enum log_seek_step step = log_seek_line(&s->seek, line->err, line->ns);
  if (step == LOG_SEEK_GONE)
    return TAKEN_MISSED;
  if (!was_found && s->seek.found && !s->mark_whole && !s->before_mark && s->window != DOCKER_LOGS_ALL)
    return TAKEN_MISSED; /* pieces of one line have one time: is this the first? */
  if (line->err == s->mark.err && line->ns < s->mark.ns)
    s->before_mark = true;
  return step == LOG_SEEK_NEW ? TAKEN_YES : TAKEN_NO;
}

static void note(struct log_stream *s, const struct log_line *line) {
  bool piece = line->partial || s->in_pieces[line->err];
  log_mark_seen(&s->mark, line->err, line->ns);
  s->mark_whole = !piece && s->mark.count == 1;
  s->in_pieces[line->err] = line->partial;
  s->fresh++;
}

/* The mark is not among the lines that were asked for. */
static void widen(struct log_stream *s) {
  stop_reading(s);
  if (s->from == FROM_MARK && s->window < WINDOW_MAX) {
    s->window *= 8;
  } else if (s->from == FROM_MARK && s->window != DOCKER_LOGS_ALL) {
    s->window = DOCKER_LOGS_ALL;
  } else {
    s->from = FROM_TIME;
    s->after_ns = s->mark.ns;
    s->lost = true;
  }
  again_in(s, 0);
}

/* One chunk. 1: go on; 0: all was taken; -1: no credit, or the stream is gone. */
static int push_some(struct log_stream *s) {
  struct log_lines *from = docker_logs_lines(s->read);
  struct log_stream before = *s;
  size_t at = from->at, n = 0, bytes = 0;
  struct log_line line;
  int rc = 1;
  while (n < CHUNK_LINES && bytes < CHUNK_BYTES && (rc = log_lines_next(from, &line)) == 1) {
    enum taken taken = judge(s, &line);
    if (taken == TAKEN_MISSED) {
      widen(s); /* nothing of this reading was taken: the mark comes before whatever is new */
      return -1;
    }
    if (taken == TAKEN_NO)
      continue;
    note(s, &line);
    if (s->tail == 0 && s->from == FROM_START)
      continue;
    node__log_line__init(&lines[n]);
    PB_SET(&lines[n], ns, line.ns);
    if (line.err)
      PB_SET(&lines[n], err, true);
    if (line.partial)
      PB_SET(&lines[n], partial, true);
    lines[n].has_text = true;
    lines[n].text = (ProtobufCBinaryData){line.len, (uint8_t *)(uintptr_t)line.text};
    line_list[n] = &lines[n];
    bytes += line.len + 24;
    n++;
  }
  if (rc < 0) {
    struct err err;
    err_set(&err, ERR_INVALID, "Docker's log: %s", from->fault);
    end_badly(s, &err);
    return -1;
  }
  if (n) {
    Node__LogChunk chunk = NODE__LOG_CHUNK__INIT;
    chunk.n_lines = n;
    chunk.lines = line_list;
    if (s->lost)
      PB_SET(&chunk, lost, true);
    Node__Item item = NODE__ITEM__INIT;
    item.body_case = NODE__ITEM__BODY_LOG;
    item.log = &chunk;
    if (bus_push(s->call, &item.base)) {
      before.patience = s->patience;
      before.again = s->again;
      *s = before;
      from->at = at;
      s->starved = true;
      docker_logs_pause(s->read);
      if (loop_timer_in(s->all->a->loop, &s->patience, PATIENCE, NULL) < 0)
        stop_reading(s);
      return -1;
    }
    s->lost = false;
  }
  return rc;
}

static bool on_readable(void *arg, struct docker_logs *logs) {
  (void)logs;
  struct log_stream *s = arg;
  int rc;
  while ((rc = push_some(s)) == 1)
    ;
  return rc == 0;
}

static void on_patience(void *arg) {
  stop_reading(arg); /* and go on from the mark when there is credit */
}

static void on_ready(void *arg) {
  struct log_stream *s = arg;
  if (!s->starved)
    return;
  s->starved = false;
  loop_timer_cancel(s->all->a->loop, &s->patience);
  if (s->read)
    docker_logs_resume(s->read);
  else
    read_again(s);
}

/* ---- between readings ---- */

static bool on_wake_readable(void *arg, struct docker_logs *logs) {
  struct log_stream *s = arg;
  struct log_lines *l = docker_logs_lines(logs);
  if (l->at == l->have)
    return true;
  stop_waking(s);
  again_in(s, 0);
  return false;
}

static void on_wake_done(void *arg, struct docker_logs *logs, const struct err *why) {
  (void)logs;
  (void)why;
  struct log_stream *s = arg;
  stop_waking(s);
  again_in(s, CHECK_SOON);
}

static void sleep_until_written(struct log_stream *s) {
  static const struct docker_logs_ops ops = {on_wake_readable, on_wake_done};
  struct agent *a = s->all->a;
  struct err err;
  if (!s->wake) {
    s->checks = 0;
    s->wake = docker_logs_open(a->loop, &(struct docker_logs_options){a->daemon->config.docker, s->container, 0, 0, true, &ops, s}, &err);
  }
  /* What was written before Docker began to watch wakes nobody. */
  if (!s->wake)
    again_in(s, RETRY);
  else if (s->checks < 2)
    again_in(s, s->checks++ ? CHECK_LATE : CHECK_SOON);
}

static bool tell_live(struct log_stream *s) {
  Node__LogChunk chunk = NODE__LOG_CHUNK__INIT;
  Node__Item item = NODE__ITEM__INIT;
  PB_SET(&chunk, live, true);
  item.body_case = NODE__ITEM__BODY_LOG;
  item.log = &chunk;
  s->told_live = bus_push(s->call, &item.base) == 0;
  s->starved = !s->told_live;
  return s->told_live;
}

static void after_reading(struct log_stream *s) {
  s->caught_up = true;
  release(s->all, false, NULL);
  const struct agent_instance *i = instance_of(s);
  if (!s->follow) {
    end_well(s);
    return;
  }
  if (!s->told_live && !tell_live(s))
    return; /* again when there is credit */
  int64_t took = loop_now(s->all->a->loop) - s->began;
  if (s->fresh) {
    stop_waking(s);
    again_in(s, took * 4 < AGAIN_MIN ? AGAIN_MIN : took * 4 > AGAIN_MAX ? AGAIN_MAX : took * 4);
  } else if (ended_for_good(i)) {
    end_well(s);
  } else if (i->c.state == AGENT_C_RUNNING && strcmp(i->c.id, s->container) == 0) {
    sleep_until_written(s);
  } else {
    stop_waking(s); /* log_streams_changed() goes on */
    if (i->c.state != s->seen_state || i->phase != s->seen_phase || (i->c.id[0] && strcmp(i->c.id, s->container) != 0))
      again_in(s, 0);
  }
}

static void on_read_done(void *arg, struct docker_logs *logs, const struct err *why) {
  (void)logs;
  struct log_stream *s = arg;
  struct err err = *why;
  stop_reading(s);
  if (err.code == ERR_NOT_FOUND) { /* the container was removed meanwhile */
    after_reading(s);
    return;
  }
  if (err.code != ERR_NONE) {
    if (!s->follow || ++s->failures > RETRIES)
      end_badly(s, &err);
    else
      again_in(s, RETRY);
    return;
  }
  s->failures = 0;
  if (s->from == FROM_MARK && !s->seek.found) {
    widen(s);
    return;
  }
  s->tail = DOCKER_LOGS_ALL; /* it was the beginning's */
  if (s->mark.ns && (s->from != FROM_TIME || s->fresh))
    s->from = FROM_MARK;
  s->window = s->fresh * 2 < WINDOW_MIN ? WINDOW_MIN : s->fresh * 2 < WINDOW_MAX ? s->fresh * 2 : WINDOW_MAX;
  after_reading(s);
}

/* ---- a reading ---- */

static void enter_container(struct log_stream *s, const struct agent_instance *i) {
  if (strcmp(s->container, i->c.id) == 0)
    return;
  bool another = s->container[0] != 0;
  memcpy(s->container, i->c.id, sizeof s->container);
  stop_waking(s);
  if (!another)
    return;
  /* Its log begins anew: all of it is later than what the one before it said. */
  if (s->mark.ns) {
    s->from = FROM_TIME;
    s->after_ns = s->mark.ns;
  } else {
    s->from = FROM_START;
    s->tail = DOCKER_LOGS_ALL;
  }
  s->in_pieces[0] = s->in_pieces[1] = false;
}

static void read_again(struct log_stream *s) {
  static const struct docker_logs_ops ops = {on_readable, on_read_done};
  struct agent *a = s->all->a;
  const struct agent_instance *i = instance_of(s);
  loop_timer_cancel(a->loop, &s->again);
  if (s->read || s->starved)
    return;
  if (i) {
    s->seen_state = i->c.state;
    s->seen_phase = i->phase;
  }
  s->fresh = 0;
  s->began = loop_now(a->loop);
  if (!i || !i->c.id[0]) {
    after_reading(s);
    return;
  }
  enter_container(s, i);
  struct docker_logs_options o = {.socket_path = a->daemon->config.docker, .container = s->container, .tail = DOCKER_LOGS_ALL, .ops = &ops, .arg = s};
  switch (s->from) {
  case FROM_START: /* with none wanted, the newest one still says where it goes on */
    o.tail = s->tail ? s->tail : 1;
    o.since_ns = s->since_ns;
    break;
  case FROM_TIME:
    o.since_ns = s->after_ns;
    break;
  case FROM_MARK:
    log_seek_init(&s->seek, &s->mark);
    s->before_mark = false;
    o.tail = s->window;
    if (s->window == DOCKER_LOGS_ALL && s->mark.count == 1)
      o.since_ns = s->mark.ns;
    break;
  }
  struct err err;
  s->read = docker_logs_open(a->loop, &o, &err);
  if (!s->read && s->follow)
    again_in(s, RETRY);
  else if (!s->read)
    end_badly(s, &err);
}

static void on_again(void *arg) {
  read_again(arg);
}

/* ---- calls ---- */

static void on_cancelled(void *arg) {
  stream_free(arg);
}

void log_streams_read(struct log_streams *all, struct bus_call *call, const Node__ReadLogs *what) {
  static const struct bus_answer_ops ops = {.cancelled = on_cancelled, .ready = on_ready};
  struct err err;
  const char *instance = PB_STR(what->instance);
  struct log_stream *s = NULL;
  if (!agent_core_find(&all->a->core, instance))
    err_set(&err, ERR_NOT_FOUND, "no such instance here");
  else if (all->count >= LOG_STREAMS_MAX)
    err_set(&err, ERR_BUSY, "%u logs are read on this node at once already", LOG_STREAMS_MAX);
  else if (what->has_after_ns && (what->after_ns <= 0 || !PB_GET(what, after_count, 0)))
    err_set(&err, ERR_INVALID, "no place in a log");
  else if (!(s = calloc(1, sizeof *s)))
    err_set(&err, ERR_MEMORY, "no memory to read a log");
  if (!s) {
    bus_fail(call, &err);
    return;
  }
  s->all = all;
  s->call = call;
  memcpy(s->instance, instance, strlen(instance) + 1); /* it is the name of one */
  s->follow = PB_GET(what, follow, false);
  s->tail = what->has_tail ? what->tail : DOCKER_LOGS_ALL;
  s->since_ns = PB_GET(what, since_ns, 0);
  s->window = WINDOW_MIN;
  if (what->has_after_ns) {
    bool of_err = PB_GET(what, after_err, false);
    s->mark = (struct log_mark){.ns = what->after_ns, .err = of_err, .count = what->after_count};
    s->mark.newest[of_err] = what->after_ns;
    s->from = FROM_MARK;
    s->window = DOCKER_LOGS_ALL;
  }
  s->again = (struct loop_timer){.cb = on_again, .arg = s};
  s->patience = (struct loop_timer){.cb = on_patience, .arg = s};
  s->next = all->streams;
  if (s->next)
    s->next->prev = s;
  all->streams = s;
  all->count++;
  bus_answer_on(call, &ops, s);
  again_in(s, 0);
}

void log_streams_changed(struct log_streams *all) {
  for (struct log_stream *s = all->streams, *next; s; s = next) {
    next = s->next;
    const struct agent_instance *i = instance_of(s);
    bool same = i && i->c.state == s->seen_state && i->phase == s->seen_phase && strcmp(i->c.id, s->container) == 0;
    if (s->follow && !s->read && !same)
      again_in(s, 0);
  }
}

/* ---- what stands before a removal ---- */

static bool is_awaited(const struct log_streams *all, const char *instance) {
  for (const struct log_stream *s = all->streams; s; s = s->next)
    if (!s->caught_up && strcmp(s->instance, instance) == 0)
      return true;
  return false;
}

static void release(struct log_streams *all, bool all_of_them, const struct held *this_one) {
  for (struct held **at = &all->held; *at;) {
    struct held *h = *at;
    if (!all_of_them && h != this_one && is_awaited(all, h->removal.instance)) {
      at = &h->next;
      continue;
    }
    *at = h->next;
    loop_timer_cancel(all->a->loop, &h->limit);
    if (!all_of_them)
      agent_docker_do(all->a, &h->removal);
    this_one = h == this_one ? NULL : this_one;
    free(h);
    at = &all->held; /* what was called may have changed the list */
  }
}

static void on_limit(void *arg) {
  struct held *h = arg;
  release(h->all, false, h);
}

bool log_streams_hold(struct log_streams *all, const struct agent_action *removal) {
  bool any = false;
  for (struct log_stream *s = all->streams; s; s = s->next)
    any |= strcmp(s->instance, removal->instance) == 0 && strcmp(s->container, removal->container) == 0;
  struct held *h = any ? malloc(sizeof *h) : NULL;
  if (!h)
    return false;
  *h = (struct held){.all = all, .removal = *removal, .next = all->held};
  h->limit = (struct loop_timer){.cb = on_limit, .arg = h};
  if (loop_timer_in(all->a->loop, &h->limit, REMOVAL_WAIT, NULL) < 0) {
    free(h);
    return false;
  }
  all->held = h;
  for (struct log_stream *s = all->streams; s; s = s->next)
    if (strcmp(s->instance, removal->instance) == 0) {
      s->caught_up = false;
      if (!s->read && !s->starved && loop_timer_in(all->a->loop, &s->again, 0, NULL) < 0)
        s->caught_up = true;
    }
  return true;
}

struct log_streams *log_streams_open(struct agent *a, struct err *err) {
  struct log_streams *all = calloc(1, sizeof *all);
  if (all)
    all->a = a;
  else
    err_set(err, ERR_MEMORY, "no memory for logs");
  return all;
}

void log_streams_close(struct log_streams *all) {
  if (!all)
    return;
  release(all, true, NULL);
  struct err err;
  err_set(&err, ERR_UNAVAILABLE, "the agent is ending");
  while (all->streams)
    end_badly(all->streams, &err);
  free(all);
}
