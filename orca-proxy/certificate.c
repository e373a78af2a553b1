#include "orca-proxy/certificate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/log.h"
#include "common/tls/cert.h"
#include "proto/node.pb-c.h"

#define FILE_NAME "api.pem"
#define ASK_TIMEOUT (20 * NS_PER_SEC)
#define AGAIN_FIRST (2 * NS_PER_SEC)
#define AGAIN_MOST (60 * NS_PER_SEC)
#define ADDRESSES_MAX 16

struct certificate {
  struct loop *loop;
  struct state *state;
  void (*changed)(void *arg);
  void *arg;
  struct tls_server *server;
  struct buf chain;
  int64_t renew_at_s, not_after_s;
  char wanted[ADDRESSES_MAX][64];
  size_t wanted_count;
  struct bus_conn *conn;
  struct bus_call *call;
  struct buf key; /* of the request that is on its way */
  struct loop_timer timer;
  int64_t again; /* how long after the next failure */
  char fault[200];
};

int64_t certificate_renew_at(int64_t not_before_s, int64_t not_after_s) {
  return not_after_s > not_before_s ? not_before_s + (not_after_s - not_before_s) / 3 * 2 : not_before_s;
}

struct tls_server *certificate_server(const struct certificate *c) {
  return c->server;
}

int64_t certificate_ends_s(const struct certificate *c) {
  return c->server ? c->not_after_s : 0;
}

const char *certificate_fault(const struct certificate *c) {
  return c->fault;
}

static int64_t now_s(const struct certificate *c) {
  return loop_wall(c->loop) / NS_PER_SEC;
}

bool certificate_covers(const struct certificate *c, const char *address) {
  return c->server && tls_certificate_covers((const char *)c->chain.data, c->chain.len, address);
}

static void set_fault(struct certificate *c, const char *fault) {
  if (strcmp(c->fault, fault) == 0)
    return;
  snprintf(c->fault, sizeof c->fault, "%.199s", fault);
  if (*fault)
    log_warn("no certificate for the API", "error", fault);
  c->changed(c->arg);
}

static void wake_at(struct certificate *c, int64_t in_ns) {
  struct err err;
  if (loop_timer_in(c->loop, &c->timer, in_ns, &err) < 0)
    log_error("no timer for the certificate", "error", err.msg);
}

/* ---- taking one ---- */

/* pem: chain and key. On failure nothing has changed. */
static int take(struct certificate *c, const char *chain, size_t chain_len, const char *key, size_t key_len, struct err *err) {
  struct tls_certificate info;
  if (tls_certificate_read(chain, chain_len, &info, err) < 0)
    return -1;
  if (info.not_after_s <= now_s(c))
    return err_set(err, ERR_INVALID, "the certificate has expired");
  struct tls_server *server = tls_server_new(chain, chain_len, key, key_len, err);
  struct buf copy = BUF_INIT(TLS_PEM_MAX);
  if (!server || buf_add(&copy, chain, chain_len) < 0) {
    tls_server_free(server);
    buf_free(&copy);
    return server ? err_set(err, ERR_MEMORY, "no memory for a certificate") : -1;
  }
  tls_server_free(c->server);
  buf_free(&c->chain);
  c->server = server;
  c->chain = copy;
  c->not_after_s = info.not_after_s;
  c->renew_at_s = certificate_renew_at(info.not_before_s, info.not_after_s);
  return 0;
}

static void load(struct certificate *c) {
  struct err err;
  struct buf text = BUF_INIT(2 * TLS_PEM_MAX);
  if (state_read(c->state, FILE_NAME, &text, &err) == 0) {
    /* Key and certificates in one text: each reader takes the blocks that are its own. The chain alone is kept. */
    const char *from = strstr(buf_str(&text), "-----BEGIN CERTIFICATE-----");
    if (!from || take(c, from, strlen(from), buf_str(&text), text.len, &err) < 0)
      log_warn("the cached certificate of the API can't be used", "error", from ? err.msg : "there is none in its file");
  } else if (err.code != ERR_NOT_FOUND) {
    log_warn("the cached certificate of the API can't be used", "error", err.msg);
  }
  tls_wipe(&text);
}

static void keep(struct certificate *c) {
  struct err err;
  struct buf text = BUF_INIT(2 * TLS_PEM_MAX);
  buf_add(&text, c->key.data, c->key.len);
  buf_add(&text, c->chain.data, c->chain.len);
  if (buf_failed(&text))
    err_set(&err, ERR_MEMORY, "no memory");
  if (buf_failed(&text) || state_write(c->state, FILE_NAME, &text, 0400, &err) < 0)
    log_warn("the certificate of the API was not cached", "error", err.msg); /* the next process asks for its own */
  tls_wipe(&text);
}

/* ---- asking for one ---- */

static void look(struct certificate *c);

/* When to ask again is set before anybody hears of a change: who then says once more what is wanted must not make it ask at once. */
static void failed(struct certificate *c, const struct err *why) {
  wake_at(c, c->again);
  c->again = c->again * 2 < AGAIN_MOST ? c->again * 2 : AGAIN_MOST;
  if (!c->server || now_s(c) >= c->not_after_s || c->renew_at_s <= now_s(c))
    set_fault(c, why->msg);
}

static void on_failed(void *arg, const struct err *why) {
  struct certificate *c = arg;
  c->call = NULL;
  tls_wipe(&c->key);
  failed(c, why);
}

static void on_signed(void *arg, const uint8_t *body, size_t len) {
  struct certificate *c = arg;
  struct err err;
  c->call = NULL;
  Node__Reply *reply = (Node__Reply *)pb_unpack(&node__reply__descriptor, body, len, &err);
  int rc = reply ? 0 : -1;
  if (reply && (reply->body_case != NODE__REPLY__BODY_CERTIFICATE || !reply->certificate->has_chain_pem))
    rc = err_set(&err, ERR_INVALID, "an answer without a certificate");
  if (rc == 0)
    rc = take(c, (const char *)reply->certificate->chain_pem.data, reply->certificate->chain_pem.len, (const char *)c->key.data, c->key.len, &err);
  if (rc == 0)
    keep(c);
  tls_wipe(&c->key);
  if (reply)
    node__reply__free_unpacked(reply, NULL);
  if (rc < 0) {
    failed(c, &err);
    return;
  }
  log_info("a certificate for the API", "days", log_u64((uint64_t)(c->not_after_s - now_s(c)) / 86400));
  const char *missing = NULL;
  for (size_t i = 0; i < c->wanted_count && !missing; i++)
    if (!certificate_covers(c, c->wanted[i]))
      missing = c->wanted[i];
  c->again = AGAIN_FIRST;
  if (missing) {
    snprintf(c->fault, sizeof c->fault, "the apiserver signed no certificate for %.63s: it is another node's address", missing);
    log_warn("not the certificate that is wanted", "error", c->fault);
    wake_at(c, AGAIN_MOST);
  } else {
    c->fault[0] = 0;
    look(c);
  }
  c->changed(c->arg);
}

static void ask(struct certificate *c) {
  static const struct bus_call_ops ops = {.done = on_signed, .failed = on_failed};
  struct err err;
  struct buf request = BUF_INIT(TLS_REQUEST_MAX);
  c->key = BUF_INIT(TLS_PEM_MAX);
  if (tls_key_and_request(&c->key, &request, &err) < 0) {
    tls_wipe(&c->key);
    failed(c, &err);
  } else {
    Node__SignCertificate sign = NODE__SIGN_CERTIFICATE__INIT;
    Node__Call call = NODE__CALL__INIT;
    sign.has_request_der = 1;
    sign.request_der = (ProtobufCBinaryData){.data = request.data, .len = request.len};
    call.body_case = NODE__CALL__BODY_SIGN_CERTIFICATE;
    call.sign_certificate = &sign;
    c->call = bus_call(c->conn, &call.base, ASK_TIMEOUT, &ops, c);
  }
  buf_free(&request);
}

static bool is_needed(const struct certificate *c) {
  if (c->wanted_count && (!c->server || now_s(c) >= c->renew_at_s))
    return true;
  for (size_t i = 0; i < c->wanted_count; i++)
    if (!certificate_covers(c, c->wanted[i]))
      return true;
  return false;
}

static void look(struct certificate *c) {
  if (c->call || !c->wanted_count)
    return;
  if (!is_needed(c)) {
    int64_t left = c->renew_at_s - now_s(c); /* the wall clock may be set: look again at least once a day */
    wake_at(c, (left < 86400 ? left : 86400) * NS_PER_SEC + NS_PER_SEC);
  } else if (c->conn && bus_conn_is_up(c->conn)) {
    ask(c);
  }
}

static void on_timer(void *arg) {
  look(arg);
}

int certificate_want(struct certificate *c, const char *const *addresses, size_t count, struct err *err) {
  size_t n = 0;
  for (size_t i = 0; i < count; i++) {
    if (n == ADDRESSES_MAX || strlen(addresses[i]) >= sizeof c->wanted[0])
      return err_set(err, ERR_TOO_LARGE, "more addresses of the API than %u", ADDRESSES_MAX);
    snprintf(c->wanted[n++], sizeof c->wanted[0], "%s", addresses[i]);
  }
  c->wanted_count = n;
  if (!n)
    c->fault[0] = 0;
  if (!loop_timer_is_set(&c->timer) || (c->server && !*c->fault))
    look(c);
  return 0;
}

void certificate_connected(struct certificate *c, struct bus_conn *conn) {
  c->conn = conn;
  c->again = AGAIN_FIRST;
  look(c);
}

struct certificate *certificate_new(struct loop *loop, struct state *state, void (*changed)(void *arg), void *arg, struct err *err) {
  struct certificate *c = calloc(1, sizeof *c);
  if (!c) {
    err_set(err, ERR_MEMORY, "no memory");
    return NULL;
  }
  *c = (struct certificate){.loop = loop, .state = state, .changed = changed, .arg = arg, .again = AGAIN_FIRST};
  c->timer = (struct loop_timer){.cb = on_timer, .arg = c};
  load(c);
  return c;
}

void certificate_free(struct certificate *c) {
  if (!c)
    return;
  loop_timer_cancel(c->loop, &c->timer);
  tls_server_free(c->server);
  buf_free(&c->chain);
  tls_wipe(&c->key);
  free(c);
}
