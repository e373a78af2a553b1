#include "orca-store/snapshot_rpc.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/bus/pb.h"

#define SNAPSHOT_CHUNK ((size_t)256 << 10)

struct sending { /* a snapshot on its way */
  struct bus_call *call;
  int fd;
  uint64_t offset;
  uint8_t *chunk;
};

static void sending_free(struct sending *s) {
  if (s->fd >= 0)
    close(s->fd);
  free(s->chunk);
  free(s);
}

static void sending_cancelled(void *arg) {
  struct sending *s = arg;
  s->call = NULL;
  if (s->fd >= 0)
    sending_free(s); /* else the copy is still being made, and is the last to come by */
}

static void send_on(void *arg) {
  struct sending *s = arg;
  for (;;) {
    ssize_t n = pread(s->fd, s->chunk, SNAPSHOT_CHUNK, (off_t)s->offset);
    if (n < 0 && errno == EINTR)
      continue;
    struct err err;
    if (n < 0) {
      struct bus_call *call = s->call;
      err_errno(&err, errno, "the snapshot");
      sending_free(s);
      bus_fail(call, &err);
      return;
    }
    Store__Item item = STORE__ITEM__INIT;
    Store__Chunk chunk = STORE__CHUNK__INIT;
    item.body_case = STORE__ITEM__BODY_CHUNK;
    item.chunk = &chunk;
    PB_SET(&chunk, offset, s->offset);
    chunk.has_data = 1;
    chunk.data = (ProtobufCBinaryData){(size_t)n, s->chunk};
    PB_SET(&chunk, last, n == 0);
    if (bus_push(s->call, &item.base) != 0)
      return; /* no credit: `ready` comes back here */
    s->offset += (uint64_t)n;
    if (n == 0) {
      struct bus_call *call = s->call;
      sending_free(s);
      bus_reply(call, NULL);
      return;
    }
  }
}

static void copy_made(void *arg, int fd, const struct err *err) {
  struct sending *s = arg;
  s->fd = fd;
  if (!s->call) {
    sending_free(s);
  } else if (err) {
    struct bus_call *call = s->call;
    sending_free(s);
    bus_fail(call, err);
  } else {
    send_on(s);
  }
}

static void sending_ready(void *arg) {
  struct sending *s = arg;
  if (s->fd >= 0)
    send_on(s);
}

void snapshot_rpc_send(struct store *store, struct bus_call *call) {
  static const struct bus_answer_ops ops = {.cancelled = sending_cancelled, .ready = sending_ready};
  struct err err;
  struct sending *s = calloc(1, sizeof *s);
  if (!s || !(s->chunk = malloc(SNAPSHOT_CHUNK))) {
    free(s);
    err_set(&err, ERR_MEMORY, "out of memory");
    bus_fail(call, &err);
    return;
  }
  s->call = call;
  s->fd = -1;
  if (store_copy(store, copy_made, s, &err) < 0) {
    sending_free(s);
    bus_fail(call, &err);
    return;
  }
  bus_answer_on(call, &ops, s);
}
