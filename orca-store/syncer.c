#include "orca-store/syncer.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

struct syncer {
  struct loop *loop;
  struct dlog *log;
  syncer_ended_fn *ended;
  void *arg;
  pthread_t thread;

  pthread_mutex_t lock; /* of all that follows */
  pthread_cond_t wake;
  bool wanted, quit;
  struct raft_stable synced;
  bool failed;
  struct err err;
  bool posted;
};

static void sync_ended(void *arg) {
  struct syncer *s = arg;
  pthread_mutex_lock(&s->lock);
  s->posted = false;
  struct raft_stable synced = s->synced;
  bool failed = s->failed;
  pthread_mutex_unlock(&s->lock);
  s->ended(s->arg, &synced, failed ? &s->err : NULL); /* the thread ended with that error, and left it behind */
}

static void *run(void *arg) {
  struct syncer *s = arg;
  pthread_mutex_lock(&s->lock);
  for (;;) {
    while (!s->wanted && !s->quit)
      pthread_cond_wait(&s->wake, &s->lock);
    if (!s->wanted)
      break;
    s->wanted = false;
    pthread_mutex_unlock(&s->lock);
    struct raft_stable stable;
    struct err err;
    uint64_t ticket;
    int rc = dlog_sync(s->log, &stable, &ticket, &err);
    pthread_mutex_lock(&s->lock);
    if (rc < 0) {
      s->failed = true;
      s->err = err;
    } else {
      s->synced = stable;
    }
    bool post = !s->posted;
    s->posted = true;
    /* Without memory for the message nobody would ever learn of this sync: then the next one's stands for both, and there is always a next one
     * as long as anybody waits and asks again. */
    if (post && loop_post(s->loop, sync_ended, s) < 0)
      s->posted = false;
    if (rc < 0)
      break;
  }
  pthread_mutex_unlock(&s->lock);
  return NULL;
}

struct syncer *syncer_start(struct loop *loop, struct dlog *log, syncer_ended_fn *ended, void *arg, struct err *err) {
  struct syncer *s = malloc(sizeof *s);
  if (!s) {
    err_set(err, ERR_MEMORY, "out of memory");
    return NULL;
  }
  *s = (struct syncer){.loop = loop, .log = log, .ended = ended, .arg = arg, .lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};
  int rc = pthread_create(&s->thread, NULL, run, s);
  if (rc) {
    err_errno(err, rc, "a thread for syncs");
    free(s);
    return NULL;
  }
  return s;
}

void syncer_want(struct syncer *s) {
  pthread_mutex_lock(&s->lock);
  s->wanted = true;
  pthread_cond_signal(&s->wake);
  pthread_mutex_unlock(&s->lock);
}

void syncer_stop(struct syncer *s) {
  if (!s)
    return;
  pthread_mutex_lock(&s->lock);
  s->quit = true;
  pthread_cond_signal(&s->wake);
  pthread_mutex_unlock(&s->lock);
  pthread_join(s->thread, NULL);
  loop_post_cancel(s->loop, sync_ended, s); /* what it posted must not find this freed */
  pthread_mutex_destroy(&s->lock);
  pthread_cond_destroy(&s->wake);
  free(s);
}
