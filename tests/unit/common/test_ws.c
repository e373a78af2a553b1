/* Framing, the handshake's head, and the control messages of exec. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/buf.h"
#include "common/ws/exec_wire.h"
#include "common/ws/ws.h"

struct end {
  struct ws *ws;
  struct buf in;    /* what the peer has written */
  struct buf heard; /* messages, each with a | behind it */
  struct end *peer;
  size_t room; /* of one write */
  bool closed;
  unsigned hold_after;
};

static ssize_t on_read(void *arg, uint8_t *to, size_t len) {
  struct end *e = arg;
  if (!e->in.len) {
    errno = EAGAIN;
    return e->closed ? 0 : -1;
  }
  size_t n = len < e->in.len ? len : e->in.len;
  memcpy(to, e->in.data, n);
  buf_consume(&e->in, n);
  return (ssize_t)n;
}

static ssize_t on_write(void *arg, const uint8_t *data, size_t len) {
  struct end *e = arg;
  if (!e->room) {
    errno = EAGAIN;
    return -1;
  }
  size_t n = len < e->room ? len : e->room;
  e->room -= n;
  buf_add(&e->peer->in, data, n);
  return (ssize_t)n;
}

static void on_message(void *arg, const uint8_t *data, size_t len) {
  struct end *e = arg;
  buf_add(&e->heard, data, len);
  buf_add_byte(&e->heard, '|');
  if (e->hold_after && --e->hold_after == 0)
    ws_hold(e->ws);
}

static const struct ws_ops ops = {on_read, on_write, on_message};

static void open_end(struct end *e, struct end *peer, enum ws_role role, size_t max) {
  *e = (struct end){.peer = peer, .room = SIZE_MAX, .in = BUF_INIT((size_t)1 << 24), .heard = BUF_INIT((size_t)1 << 24)};
  e->ws = ws_new(role, max, &ops, e);
  assert_non_null(e->ws);
}

static void close_end(struct end *e) {
  ws_free(e->ws);
  buf_free(&e->in);
  buf_free(&e->heard);
}

static void messages_go_both_ways(void **state) {
  (void)state;
  struct end a, b;
  open_end(&a, &b, WS_SERVER, 1000);
  open_end(&b, &a, WS_CLIENT, 1000);
  assert_int_equal(ws_send(a.ws, "hello", 5), 0);
  assert_int_equal(ws_send(b.ws, "you", 3), 0);
  assert_true(ws_wants_write(a.ws));
  assert_true(ws_write(a.ws) && ws_write(b.ws) && ws_read(a.ws) && ws_read(b.ws));
  assert_string_equal(buf_str(&b.heard), "hello|");
  assert_string_equal(buf_str(&a.heard), "you|");
  close_end(&a);
  close_end(&b);
}

static void pongs_and_keys_that_nobody_asked_for(void **state) {
  (void)state;
  struct end a, b;
  struct err err;
  char key[WS_KEY_LEN + 1], again[WS_KEY_LEN + 1];
  assert_int_equal(ws_new_key(key, &err), 0);
  assert_int_equal(ws_new_key(again, &err), 0);
  assert_string_not_equal(key, again);
  assert_int_equal(strlen(key), WS_KEY_LEN);
  open_end(&a, &b, WS_SERVER, 1000);
  open_end(&b, &a, WS_CLIENT, 1000);
  ws_pong(a.ws);
  ws_send(a.ws, "hello", 5);
  assert_true(ws_queued(a.ws) > 0);
  assert_true(ws_write(a.ws) && ws_read(b.ws));
  assert_int_equal(ws_queued(a.ws), 0);
  assert_string_equal(buf_str(&b.heard), "hello|");
  close_end(&a);
  close_end(&b);
}

static void a_close_comes_after_what_was_sent(void **state) {
  (void)state;
  struct end a, b;
  open_end(&a, &b, WS_SERVER, 1000);
  open_end(&b, &a, WS_CLIENT, 1000);
  a.room = 0;
  ws_send(a.ws, "one", 3);
  ws_send(a.ws, "two", 3);
  ws_close(a.ws, WS_POLICY, "enough");
  assert_int_equal(ws_send(a.ws, "late", 4), -1);
  assert_true(ws_write(a.ws));
  assert_true(ws_wants_write(a.ws));
  a.room = SIZE_MAX;
  ws_write(a.ws);
  assert_false(ws_read(b.ws));
  assert_string_equal(buf_str(&b.heard), "one|two|");
  assert_int_equal(ws_why(b.ws), WS_POLICY);
  ws_write(b.ws);
  assert_false(ws_read(a.ws));
  assert_false(ws_write(a.ws));
  close_end(&a);
  close_end(&b);
}

static void what_is_held_is_kept_in_order(void **state) {
  (void)state;
  struct end a, b;
  open_end(&a, &b, WS_SERVER, 1000);
  open_end(&b, &a, WS_CLIENT, 1000);
  for (const char *c = "abcde"; *c; c++)
    ws_send(b.ws, c, 1);
  ws_write(b.ws);
  a.hold_after = 2;
  assert_true(ws_read(a.ws));
  assert_true(ws_is_held(a.ws) && !ws_wants_read(a.ws));
  assert_string_equal(buf_str(&a.heard), "a|b|");
  a.hold_after = 1;
  ws_resume(a.ws);
  assert_string_equal(buf_str(&a.heard), "a|b|c|");
  ws_resume(a.ws);
  assert_true(ws_read(a.ws));
  assert_string_equal(buf_str(&a.heard), "a|b|c|d|e|");
  close_end(&a);
  close_end(&b);
}

static void what_is_too_long_is_refused(void **state) {
  (void)state;
  struct end a, b;
  static const char much[2000];
  open_end(&a, &b, WS_SERVER, 1000);
  open_end(&b, &a, WS_CLIENT, 1000);
  ws_send(b.ws, much, sizeof much);
  ws_write(b.ws);
  assert_false(ws_read(a.ws));
  ws_write(a.ws);
  assert_int_equal(ws_why(a.ws), WS_TOO_BIG);
  assert_int_equal(a.heard.len, 0);
  close_end(&a);
  close_end(&b);
}

static void an_unmasked_frame_is_refused(void **state) {
  (void)state;
  struct end a, b;
  open_end(&a, &b, WS_SERVER, 1000);
  open_end(&b, &a, WS_CLIENT, 1000);
  ws_give(a.ws, (const uint8_t *)"\x82\x01x", 3);
  assert_false(ws_read(a.ws));
  ws_write(a.ws);
  assert_int_equal(ws_why(a.ws), WS_PROTOCOL);
  close_end(&a);
  close_end(&b);
}

static void pings_are_answered_and_a_flood_of_them_is_not(void **state) {
  (void)state;
  struct end a, b;
  open_end(&a, &b, WS_SERVER, 1000);
  open_end(&b, &a, WS_CLIENT, 1000);
  ws_ping(b.ws);
  ws_write(b.ws);
  assert_true(ws_read(a.ws) && ws_write(a.ws) && ws_read(b.ws));
  assert_int_equal(ws_frames(b.ws), 1);
  a.room = 0;
  for (int n = 0; n < 1000; n++)
    ws_ping(b.ws);
  ws_write(b.ws);
  ws_read(a.ws);
  assert_int_equal(ws_why(a.ws), WS_POLICY);
  close_end(&a);
  close_end(&b);
}

static void the_pipes_end_is_the_end(void **state) {
  (void)state;
  struct end a, b;
  open_end(&a, &b, WS_SERVER, 1000);
  open_end(&b, &a, WS_CLIENT, 1000);
  a.closed = true;
  assert_false(ws_read(a.ws));
  assert_int_equal(ws_why(a.ws), 0);
  close_end(&a);
  close_end(&b);
}

/* RFC 6455, section 1.3 */
static void the_accept_key_is_the_rfcs(void **state) {
  (void)state;
  char accept[WS_ACCEPT_LEN + 1];
  ws_accept_of("dGhlIHNhbXBsZSBub25jZQ==", accept);
  assert_string_equal(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

static enum err_code accepts(struct ws_offer o) {
  struct err err = {.code = ERR_NONE};
  char accept[WS_ACCEPT_LEN + 1] = "";
  return ws_accept(&o, "orca.exec.v1", accept, &err) == 0 ? ERR_NONE : err.code;
}

static void only_a_proper_head_is_upgraded(void **state) {
  (void)state;
  const struct ws_offer good = {.upgrade = "WebSocket",
                                .connection = "keep-alive, Upgrade",
                                .version = "13",
                                .key = "dGhlIHNhbXBsZSBub25jZQ==",
                                .protocols = "chat, orca.exec.v1",
                                .host = "orca.test:6880"};
  struct ws_offer o = good;
  assert_int_equal(accepts(o), ERR_NONE);
  o.upgrade = NULL;
  assert_int_equal(accepts(o), ERR_UNSUPPORTED);
  o = good, o.connection = "close";
  assert_int_equal(accepts(o), ERR_UNSUPPORTED);
  o = good, o.version = "12";
  assert_int_equal(accepts(o), ERR_UNSUPPORTED);
  const char *keys[] = {NULL, "", "dGhlIHNhbXBsZSBub25jZQ=", "dGhlIHNhbXBsZSBub25jZQ==x", "dGhlIHNhbXBsZSBub25jZS==", "!!!!IHNhbXBsZSBub25jZQ=="};
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
    o = good, o.key = keys[i];
    assert_int_equal(accepts(o), ERR_INVALID);
  }
  o = good, o.protocols = "orca.exec.v10";
  assert_int_equal(accepts(o), ERR_INVALID);
  const char *strangers[] = {"", "null", "https://evil.test", "https://orca.test:6880.evil.test", "https://orca.test", "file://", "orca.test:6880"};
  for (size_t i = 0; i < sizeof strangers / sizeof *strangers; i++) {
    o = good, o.origin = strangers[i];
    assert_int_equal(accepts(o), ERR_DENIED);
  }
  o = good, o.origin = "https://ORCA.test:6880";
  assert_int_equal(accepts(o), ERR_NONE);
  o.host = NULL;
  assert_int_equal(accepts(o), ERR_DENIED);
}

static void controls_come_back_as_they_went(void **state) {
  (void)state;
  const struct exec_control all[] = {{.kind = EXEC_RESIZE, .rows = 24, .cols = 80},
                                     {.kind = EXEC_EOF},
                                     {.kind = EXEC_STARTED},
                                     {.kind = EXEC_EXIT, .exit_code = -1},
                                     {.kind = EXEC_ERROR, .text = "it \"broke\"\n", .code = "io"}};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    struct buf b = BUF_INIT(4096);
    struct exec_control got;
    exec_control_write(&all[i], &b);
    assert_int_equal(b.data[0], EXEC_CONTROL);
    assert_true(exec_control_parse(b.data + 1, b.len - 1, &got));
    assert_memory_equal(&got, &all[i], sizeof got);
    buf_free(&b);
  }
}

static void other_controls_are_none(void **state) {
  (void)state;
  const char *bad[] = {"",
                       "{}",
                       "[]",
                       "null",
                       "{\"resize\":[24]}",
                       "{\"resize\":[24,80,1]}",
                       "{\"resize\":[0,80]}",
                       "{\"resize\":[24,10001]}",
                       "{\"resize\":[2.5,80]}",
                       "{\"resize\":{\"0\":1}}",
                       "{\"eof\":false}",
                       "{\"eof\":true,\"exit\":1}",
                       "{\"eof\":true,\"eof\":true}",
                       "{\"exit\":\"0\"}",
                       "{\"exit\":99999999999}",
                       "{\"error\":1}",
                       "{\"error\":\"x\",\"else\":\"y\"}",
                       "{\"what\":1}",
                       "{\"eof\":true} x",
                       "{\"code\":\"io\"}"};
  struct exec_control got;
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    assert_false(exec_control_parse((const uint8_t *)bad[i], strlen(bad[i]), &got));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(messages_go_both_ways),          cmocka_unit_test(a_close_comes_after_what_was_sent),
      cmocka_unit_test(what_is_held_is_kept_in_order),  cmocka_unit_test(what_is_too_long_is_refused),
      cmocka_unit_test(an_unmasked_frame_is_refused),   cmocka_unit_test(pings_are_answered_and_a_flood_of_them_is_not),
      cmocka_unit_test(the_pipes_end_is_the_end),       cmocka_unit_test(the_accept_key_is_the_rfcs),
      cmocka_unit_test(only_a_proper_head_is_upgraded), cmocka_unit_test(controls_come_back_as_they_went),
      cmocka_unit_test(other_controls_are_none),        cmocka_unit_test(pongs_and_keys_that_nobody_asked_for),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
