#include "orca-proxy/conn.h"

#include <stdlib.h>
#include <string.h>

/* What an interim answer has left waiting goes out before what comes now. */
void flow_start(struct flow *f, struct sock *from, struct sock *to, enum body_kind in, enum body_kind out, uint64_t length) {
  struct flow old = *f;
  *f = (struct flow){.from = from,
                     .to = to,
                     .in = in,
                     .out = out,
                     .state = FLOW_ON,
                     .left = length,
                     .limit = old.limit,
                     .moved = old.moved,
                     .waiting = old.waiting,
                     .at = old.at,
                     .len = old.len};
  if (in == BODY_NONE)
    f->in_done = true;
}

void flow_fini(struct worker *w, struct flow *f) {
  if (f->waiting)
    block_put(w, f->waiting);
  if (f->pipe)
    pipe_put(w, f->pipe, f->piped == 0);
  if (f->decoder) {
    chunk_fini(f->decoder);
    free(f->decoder);
  }
  *f = (struct flow){0};
}

/* Takes from data what belongs to the flow; the body bytes among it are at *at. */
static enum flow_result decode(struct flow *f, uint8_t *data, size_t len, size_t *used, uint8_t **at, size_t *ret_len) {
  *at = data;
  *used = *ret_len = 0;
  switch (f->in) {
  case BODY_NONE:
    return FLOW_OK;
  case BODY_LENGTH:
    *used = *ret_len = len < f->left ? len : (size_t)f->left;
    f->left -= *used;
    f->in_done = f->left == 0;
    return FLOW_OK;
  case BODY_CHUNKED:
    if (!f->decoder) {
      if (!(f->decoder = malloc(sizeof *f->decoder)))
        return FLOW_BAD;
      chunk_init(f->decoder);
    }
    switch (chunk_decode(f->decoder, data, len, used, at, ret_len)) {
    case CHUNK_BAD:
      return FLOW_BAD;
    case CHUNK_DONE:
      f->in_done = true;
      break;
    case CHUNK_MORE:
      break;
    }
    f->decoded += *ret_len;
    return f->limit && f->decoded > f->limit ? FLOW_BAD : FLOW_OK;
  case BODY_UNTIL_CLOSE:
  default: /* BODY_RAW */
    *used = *ret_len = len;
    return FLOW_OK;
  }
}

static int wait_with(struct worker *w, struct flow *f, const struct iovec *iov, int count, size_t skip) {
  if (!f->waiting && !(f->waiting = block_get(w)))
    return -1;
  if (f->at)
    memmove(f->waiting->data, f->waiting->data + f->at, f->len);
  f->at = 0;
  for (int i = 0; i < count; i++) {
    size_t off = skip < iov[i].iov_len ? skip : iov[i].iov_len;
    skip -= off;
    size_t n = iov[i].iov_len - off;
    if (n > BLOCK_SIZE - f->len)
      return -1;
    memcpy(f->waiting->data + f->len, (const uint8_t *)iov[i].iov_base + off, n);
    f->len += n;
  }
  return 0;
}

#define GATHER_MAX 2048
#define VEC(p, n) ((struct iovec){.iov_base = (p), .iov_len = (n)})

static enum flow_result send_all(struct worker *w, struct flow *f, const struct iovec *iov, int count) {
  size_t total = 0;
  for (int i = 0; i < count; i++)
    total += iov[i].iov_len;
  if (!total)
    return FLOW_OK;
  bool more = f->in == BODY_LENGTH && !f->in_done && f->left >= SPLICE_MIN;
  /* A few small pieces are cheaper to copy together than to describe to the kernel. */
  uint8_t together[GATHER_MAX];
  struct iovec one = VEC(together, total);
  if (count > 1 && total <= sizeof together) {
    size_t at = 0;
    for (int i = 0; i < count; at += iov[i++].iov_len)
      memcpy(together + at, iov[i].iov_base, iov[i].iov_len);
    iov = &one;
    count = 1;
  }
  ssize_t n = f->to->writable && !f->len ? sock_write(f->to, iov, count, more) : 0;
  if (n < 0)
    return FLOW_TO_FAILED;
  f->moved += (size_t)n;
  if ((size_t)n < total && wait_with(w, f, iov, count, (size_t)n) < 0)
    return FLOW_TO_FAILED;
  return FLOW_OK;
}

/* The pieces of body bytes on the wire. Returns how many; scratch holds the chunk's head. */
static int frame(struct flow *f, struct iovec *iov, char scratch[CHUNK_HEAD_MAX], uint8_t *at, size_t len) {
  static char crlf[] = "\r\n", last[] = "0\r\n", last_crlf[] = "0\r\n\r\n";
  int n = 0;
  if (f->out != BODY_CHUNKED) {
    if (len)
      iov[n++] = VEC(at, len);
    return n;
  }
  if (len) {
    iov[n++] = VEC(scratch, chunk_head(scratch, len));
    iov[n++] = VEC(at, len);
    iov[n++] = VEC(crlf, 2);
  }
  if (f->in_done && f->decoder && f->decoder->trailers.len) {
    iov[n++] = VEC(last, 3);
    iov[n++] = VEC(f->decoder->trailers.data, f->decoder->trailers.len);
    iov[n++] = VEC(crlf, 2);
  } else if (f->in_done) {
    iov[n++] = VEC(last_crlf, 5);
  }
  return n;
}

enum flow_result flow_feed(struct worker *w, struct flow *f, const uint8_t *head, size_t head_len, uint8_t *data, size_t len, size_t *used) {
  uint8_t *at;
  size_t body;
  enum flow_result r = decode(f, data, len, used, &at, &body);
  if (r != FLOW_OK)
    return r;
  struct iovec iov[8];
  char scratch[CHUNK_HEAD_MAX];
  int n = 0;
  if (head_len)
    iov[n++] = (struct iovec){.iov_base = (void *)(uintptr_t)head, .iov_len = head_len};
  n += frame(f, iov + n, scratch, at, body);
  return send_all(w, f, iov, n);
}

size_t flow_encode(struct flow *f, uint8_t *out, size_t cap, uint8_t *data, size_t len, size_t *used, bool *bad) {
  uint8_t *at;
  size_t body, total = 0;
  *bad = decode(f, data, len, used, &at, &body) != FLOW_OK;
  if (*bad)
    return 0;
  struct iovec iov[8];
  char scratch[CHUNK_HEAD_MAX];
  int n = frame(f, iov, scratch, at, body);
  for (int i = 0; i < n; i++) {
    if (iov[i].iov_len > cap - total) {
      *bad = true;
      return 0;
    }
    memcpy(out + total, iov[i].iov_base, iov[i].iov_len);
    total += iov[i].iov_len;
  }
  return total;
}

static enum flow_result flush(struct worker *w, struct flow *f) {
  while (f->len && f->to->writable) {
    struct iovec iov = VEC(f->waiting->data + f->at, f->len);
    ssize_t n = sock_write(f->to, &iov, 1, f->in == BODY_LENGTH && f->left >= SPLICE_MIN);
    if (n < 0)
      return FLOW_TO_FAILED;
    f->at += (size_t)n;
    f->len -= (size_t)n;
    f->moved += (size_t)n;
  }
  if (!f->len && f->waiting) {
    block_put(w, f->waiting);
    f->waiting = NULL;
  }
  while (f->piped && f->to->writable) {
    ssize_t n = sock_splice_out(f->to, f->pipe->fd[0], f->piped, f->in == BODY_LENGTH && f->left > 0);
    if (n < 0)
      return FLOW_TO_FAILED;
    f->piped -= (size_t)n;
    f->moved += (size_t)n;
  }
  return FLOW_OK;
}

/* The sender has closed. For a body that ends so, that is its end. */
static enum flow_result end_of_data(struct worker *w, struct flow *f) {
  if (f->in != BODY_UNTIL_CLOSE && f->in != BODY_RAW)
    return FLOW_FROM_FAILED;
  f->in_done = f->ended_by_eof = true;
  struct iovec iov[8];
  char scratch[CHUNK_HEAD_MAX];
  return send_all(w, f, iov, frame(f, iov, scratch, NULL, 0));
}

static bool may_splice(const struct flow *f) {
  return f->out != BODY_CHUNKED &&
         ((f->in == BODY_LENGTH && f->left >= SPLICE_MIN) || ((f->in == BODY_RAW || f->in == BODY_UNTIL_CLOSE) && f->busy)) && !f->from->tls &&
         !f->to->tls;
}

/* 1: read on. 0: nothing now, or the result says why not. */
static int read_by_splice(struct worker *w, struct flow *f, enum flow_result *r) {
  size_t want = f->in == BODY_LENGTH && f->left < PIPE_SIZE ? (size_t)f->left : PIPE_SIZE;
  ssize_t n = sock_splice_in(f->from, f->pipe->fd[1], want);
  if (n > 0) {
    f->piped = (size_t)n;
    if (f->in == BODY_LENGTH) {
      f->left -= (size_t)n;
      f->in_done = f->left == 0;
    } else {
      f->busy = (size_t)n >= IO_MAX / 2;
    }
    return 1;
  }
  if (n < 0 && !f->from->failed)
    return 0;
  *r = n == 0 ? end_of_data(w, f) : FLOW_FROM_FAILED;
  return n == 0 && *r == FLOW_OK;
}

static int read_by_copy(struct worker *w, struct flow *f, enum flow_result *r) {
  /* From an instance all there is: a short read then says that nothing is left. From a client not what may be its next request; behind
   * a chunked body that can't be helped, and it goes to the client's buffer. */
  size_t want = f->in == BODY_LENGTH && f->left < IO_MAX && f->from->kind == SOCK_CLIENT ? (size_t)f->left : IO_MAX;
  ssize_t n = sock_read(f->from, w->in, want);
  if (n > 0) {
    size_t used;
    f->busy = (size_t)n == IO_MAX;
    *r = flow_feed(w, f, NULL, 0, w->in, (size_t)n, &used);
    if (*r == FLOW_OK && used < (size_t)n && f->from->kind == SOCK_UPSTREAM) {
      f->excess = true;
    } else if (*r == FLOW_OK && used < (size_t)n) {
      struct client *c = (struct client *)f->from;
      if (c->in_len || !(c->in = c->in ? c->in : block_get(w)))
        *r = FLOW_BAD;
      else {
        c->in_len = (size_t)n - used;
        c->in_seen = 0;
        memcpy(c->in->data, w->in + used, c->in_len);
      }
    }
    return *r == FLOW_OK;
  }
  if (n < 0 && !f->from->failed)
    return 0;
  *r = n == 0 ? end_of_data(w, f) : FLOW_FROM_FAILED;
  return n == 0 && *r == FLOW_OK;
}

enum flow_result flow_pump(struct worker *w, struct flow *f, bool *more) {
  enum flow_result r = FLOW_OK;
  if (f->state != FLOW_ON)
    return r;
  for (unsigned round = 0;; round++) {
    if (flow_blocked(f) || f->waiting) {
      if ((r = flush(w, f)) != FLOW_OK)
        return r;
      if (flow_blocked(f))
        return r;
    }
    if (f->pipe && !f->piped && !may_splice(f)) {
      pipe_put(w, f->pipe, true);
      f->pipe = NULL;
    }
    if (f->in_done) {
      f->state = FLOW_DONE;
      return r;
    }
    if (!f->from->readable)
      return r;
    if (round == PUMP_ROUNDS) {
      *more = true;
      return r;
    }
    int on;
    if (may_splice(f) && (f->pipe || (f->pipe = pipe_get(w))))
      on = read_by_splice(w, f, &r);
    else
      on = read_by_copy(w, f, &r);
    if (!on)
      return r;
  }
}
