/* The API's certificate, with an apiserver that is played here: what is asked for and when. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/bus/pb.h"
#include "common/tls/cert.h"
#include "orca-proxy/certificate.h"
#include "proto/node.pb-c.h"
#include "tests/lib/ca.h"

#define ASKED_MAX 10

struct bus_call { /* the bus's own are not linked here */
  struct bus_call_ops ops;
  void *arg;
  struct buf request;
};

struct world {
  char dir[64];
  struct loop *loop;
  struct state *state;
  struct certificate *certificate;
  const char *wanted;
  struct ca ca;
  struct bus_call call;
  bool open;
  unsigned asked, changed;
};

static struct world world;

bool bus_conn_is_up(const struct bus_conn *conn) {
  return conn != NULL;
}

struct bus_call *bus_call(struct bus_conn *conn, const ProtobufCMessage *message, int64_t timeout_ns, const struct bus_call_ops *ops, void *arg) {
  const Node__Call *call = (const Node__Call *)(const void *)message;
  (void)conn;
  (void)timeout_ns;
  assert_false(world.open);
  assert_int_equal(call->body_case, NODE__CALL__BODY_SIGN_CERTIFICATE);
  world.call = (struct bus_call){.ops = *ops, .arg = arg, .request = BUF_INIT(TLS_REQUEST_MAX)};
  buf_add(&world.call.request, call->sign_certificate->request_der.data, call->sign_certificate->request_der.len);
  world.open = true;
  world.asked++;
  return &world.call;
}

/* The apiserver answers what was asked last, with a certificate for that name. */
static void answer(struct world *w, const char *name) {
  struct err err;
  struct bus_call call = w->call;
  struct buf chain = BUF_INIT(TLS_PEM_MAX), body = BUF_INIT(2 * TLS_PEM_MAX);
  int64_t until;
  struct tls_signing how = {.ca_pem = w->ca.pem,
                            .ca_key_pem = w->ca.key,
                            .common_name = "n1",
                            .names = &name,
                            .name_count = 1,
                            .now_s = loop_wall(w->loop) / NS_PER_SEC,
                            .life_s = INT64_C(86400) * 30};
  assert_true(w->open);
  assert_int_equal(tls_sign(call.request.data, call.request.len, &how, &chain, &until, &err), 0);
  Node__SignedCertificate certificate = NODE__SIGNED_CERTIFICATE__INIT;
  Node__Reply reply = NODE__REPLY__INIT;
  certificate.has_chain_pem = 1;
  certificate.chain_pem = (ProtobufCBinaryData){.data = chain.data, .len = chain.len};
  reply.body_case = NODE__REPLY__BODY_CERTIFICATE;
  reply.certificate = &certificate;
  assert_int_equal(pb_pack(&reply.base, &body), 0);
  w->open = false;
  call.ops.done(call.arg, body.data, body.len);
  buf_free(&call.request);
  buf_free(&chain);
  buf_free(&body);
}

static void refuse(struct world *w, const char *why) {
  struct err err;
  struct bus_call call = w->call;
  assert_true(w->open);
  err_set(&err, ERR_UNAVAILABLE, "%s", why);
  w->open = false;
  call.ops.failed(call.arg, &err);
  buf_free(&call.request);
}

/* As control does it: what is wanted is said again whenever something has changed. */
static void on_changed(void *arg) {
  struct world *w = arg;
  struct err err;
  w->changed++;
  if (w->certificate)
    assert_int_equal(certificate_want(w->certificate, &w->wanted, 1, &err), 0);
}

static int set_up(void **state) {
  struct err err;
  world = (struct world){.wanted = "192.0.2.1", .dir = "/tmp/orca-certificate-XXXXXX"};
  assert_non_null(mkdtemp(world.dir));
  world.loop = loop_new(NULL, &err);
  world.state = state_open(world.dir, &err);
  assert_non_null(world.loop);
  assert_non_null(world.state);
  ca_make(&world.ca, INT64_C(86400) * 900);
  world.certificate = certificate_new(world.loop, world.state, on_changed, &world, &err);
  assert_non_null(world.certificate);
  assert_int_equal(certificate_want(world.certificate, &world.wanted, 1, &err), 0);
  assert_int_equal(world.asked, 0);
  certificate_connected(world.certificate, (struct bus_conn *)(void *)&world);
  assert_int_equal(world.asked, 1);
  *state = &world;
  return 0;
}

static int tear_down(void **state) {
  struct world *w = *state;
  char path[128];
  if (w->open)
    buf_free(&w->call.request);
  certificate_free(w->certificate);
  state_close(w->state);
  loop_free(w->loop);
  static const char *const names[] = {"/proxy/api.pem", "/proxy/lock", "/proxy", ""};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    snprintf(path, sizeof path, "%s%s", w->dir, names[i]);
    remove(path);
  }
  return 0;
}

static void test_one_is_enough(void **state) {
  struct world *w = *state;
  answer(w, w->wanted);
  assert_non_null(certificate_server(w->certificate));
  assert_true(certificate_covers(w->certificate, w->wanted));
  assert_string_equal(certificate_fault(w->certificate), "");
  assert_int_equal(w->asked, 1);
}

/* Each question makes a key, has a master sign, and writes a file. */
static void test_an_address_that_is_not_signed_for_is_not_asked_for_at_once(void **state) {
  struct world *w = *state;
  for (int i = 0; i < ASKED_MAX && w->open; i++)
    answer(w, "192.0.2.7");
  assert_int_equal(w->asked, 1);
  assert_non_null(certificate_server(w->certificate));
  assert_non_null(strstr(certificate_fault(w->certificate), "192.0.2.1"));
}

static void test_a_new_failure_waits_as_long_as_a_known_one(void **state) {
  struct world *w = *state;
  refuse(w, "no master");
  assert_string_equal(certificate_fault(w->certificate), "no master");
  assert_false(w->open);
  assert_int_equal(w->asked, 1);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_one_is_enough, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_an_address_that_is_not_signed_for_is_not_asked_for_at_once, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_a_new_failure_waits_as_long_as_a_known_one, set_up, tear_down),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
