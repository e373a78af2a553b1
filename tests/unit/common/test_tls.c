#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/tls/cert.h"
#include "common/tls/server.h"
#include "tests/lib/ca.h"

#define DAY INT64_C(86400)

static const char *const names[] = {"10.1.2.3", "fd00::7", "n1", "localhost", "10.1.2.3", "orca.example.com"};

static struct tls_signing signing(const struct ca *ca) {
  return (struct tls_signing){.ca_pem = ca->pem,
                              .ca_key_pem = ca->key,
                              .common_name = "n1",
                              .names = names,
                              .name_count = sizeof names / sizeof *names,
                              .now_s = time(NULL),
                              .life_s = 90 * DAY};
}

struct issued {
  struct buf key, request, chain;
  int64_t until;
};

static void issue(struct issued *i, const struct ca *ca) {
  struct err err;
  struct tls_signing how = signing(ca);
  *i = (struct issued){.key = BUF_INIT(TLS_PEM_MAX), .request = BUF_INIT(TLS_REQUEST_MAX), .chain = BUF_INIT(TLS_PEM_MAX)};
  assert_int_equal(tls_key_and_request(&i->key, &i->request, &err), 0);
  assert_int_equal(tls_sign(i->request.data, i->request.len, &how, &i->chain, &i->until, &err), 0);
}

static void issued_free(struct issued *i) {
  tls_wipe(&i->key);
  buf_free(&i->request);
  buf_free(&i->chain);
}

/* ---- certificates ---- */

static void test_a_signed_certificate(void **state) {
  (void)state;
  struct ca ca;
  struct issued i;
  struct tls_certificate info;
  struct err err;
  ca_make(&ca, 3650 * DAY);
  issue(&i, &ca);
  const char *chain = buf_str(&i.chain);
  assert_int_equal(tls_certificate_read(chain, i.chain.len, &info, &err), 0);
  assert_int_equal(info.not_after_s, i.until);
  int64_t left = i.until - time(NULL);
  assert_true(left > 89 * DAY && left <= 90 * DAY && info.not_before_s < time(NULL));
  for (size_t n = 0; n < sizeof names / sizeof *names; n++)
    assert_true(tls_certificate_covers(chain, i.chain.len, names[n]));
  for (const char *const *other = (const char *const[]){"10.1.2.4", "n2", "example.com", "x.n1", "::1", "", NULL}; *other; other++)
    assert_false(tls_certificate_covers(chain, i.chain.len, *other));
  /* The second one is the CA's, and its hash is the pin. */
  const char *second = strstr(strstr(chain, "-----END"), "-----BEGIN");
  struct tls_certificate of_ca, of_file;
  assert_int_equal(tls_certificate_read(second, strlen(second), &of_ca, &err), 0);
  assert_int_equal(tls_certificate_read(ca.pem, strlen(ca.pem), &of_file, &err), 0);
  assert_string_equal(of_ca.sha256, of_file.sha256);
  assert_int_equal(strlen(of_ca.sha256), 64);
  issued_free(&i);
}

static void test_it_never_outlives_its_ca(void **state) {
  (void)state;
  struct ca ca;
  struct issued i;
  ca_make(&ca, 10 * DAY);
  issue(&i, &ca);
  assert_true(i.until <= time(NULL) + 10 * DAY);
  struct tls_signing how = signing(&ca);
  struct buf chain = BUF_INIT(TLS_PEM_MAX);
  struct err err;
  int64_t until;
  how.now_s += 11 * DAY;
  assert_int_equal(tls_sign(i.request.data, i.request.len, &how, &chain, &until, &err), -1);
  assert_non_null(strstr(err.msg, "expired"));
  issued_free(&i);
}

static size_t request_of(EVP_PKEY *key, uint8_t *out, size_t size) {
  X509_REQ *request = X509_REQ_new();
  unsigned char *der = NULL;
  X509_REQ_set_pubkey(request, key);
  assert_true(X509_REQ_sign(request, key, EVP_PKEY_is_a(key, "ED25519") ? NULL : EVP_sha256()) > 0);
  int len = i2d_X509_REQ(request, &der);
  assert_true(len > 0 && (size_t)len <= size);
  memcpy(out, der, (size_t)len);
  OPENSSL_free(der);
  X509_REQ_free(request);
  EVP_PKEY_free(key);
  return (size_t)len;
}

static int sign_it(const struct ca *ca, const uint8_t *der, size_t len, struct err *err) {
  struct tls_signing how = signing(ca);
  struct buf chain = BUF_INIT(TLS_PEM_MAX);
  int64_t until;
  int rc = tls_sign(der, len, &how, &chain, &until, err);
  assert_true(rc == 0 || chain.len == 0);
  buf_free(&chain);
  return rc;
}

static void test_requests_that_are_refused(void **state) {
  (void)state;
  struct ca ca, other;
  struct err err;
  uint8_t der[16384];
  ca_make(&ca, 3650 * DAY);
  ca_make(&other, 3650 * DAY);
  size_t len = request_of(EVP_PKEY_Q_keygen(NULL, NULL, "ED25519"), der, sizeof der);
  assert_int_equal(sign_it(&ca, der, len, &err), 0);
  len = request_of(EVP_EC_gen("P-384"), der, sizeof der);
  assert_int_equal(sign_it(&ca, der, len, &err), -1);
  assert_int_equal(err.code, ERR_INVALID);
  len = request_of(EVP_RSA_gen(2048), der, sizeof der);
  assert_int_equal(sign_it(&ca, der, len, &err), -1);
  assert_non_null(strstr(err.msg, "neither P-256 nor Ed25519"));
  len = request_of(EVP_EC_gen("P-256"), der, sizeof der);
  assert_int_equal(sign_it(&ca, der, len, &err), 0);
  assert_int_equal(sign_it(&ca, der, len - 1, &err), -1);
  assert_int_equal(sign_it(&ca, der, len + 1, &err), -1);
  assert_int_equal(sign_it(&ca, der, 0, &err), -1);
  assert_int_equal(sign_it(&ca, der, sizeof der, &err), -1);
  der[len - 5] ^= 1;
  assert_int_equal(sign_it(&ca, der, len, &err), -1);
  assert_non_null(strstr(err.msg, "not signed by its own key"));
  der[len - 5] ^= 1;
  memcpy(ca.key, other.key, sizeof ca.key);
  assert_int_equal(sign_it(&ca, der, len, &err), -1);
  assert_int_equal(err.code, ERR_CORRUPT);
  snprintf(ca.key, sizeof ca.key, "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAAA\n-----END ENCRYPTED PRIVATE KEY-----\n");
  assert_int_equal(sign_it(&ca, der, len, &err), -1);
}

/* ---- connections ---- */

struct pair {
  struct ca ca;
  struct issued issued;
  struct tls_server *server;
  struct tls_stream *stream;
  SSL_CTX *ctx;
  SSL *client;
  int fd[2];
};

static void trust(SSL_CTX *ctx, const struct ca *ca) {
  BIO *pem = BIO_new_mem_buf(ca->pem, -1);
  X509 *cert = PEM_read_bio_X509(pem, NULL, NULL, NULL);
  assert_non_null(cert);
  X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), cert);
  X509_free(cert);
  BIO_free(pem);
}

static void pair_open(struct pair *p, int version) {
  struct err err;
  ca_make(&p->ca, 3650 * DAY);
  issue(&p->issued, &p->ca);
  p->server = tls_server_new(buf_str(&p->issued.chain), p->issued.chain.len, buf_str(&p->issued.key), p->issued.key.len, &err);
  assert_non_null(p->server);
  assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, p->fd), 0);
  p->stream = tls_stream_new(p->server, p->fd[0]);
  p->ctx = SSL_CTX_new(TLS_client_method());
  SSL_CTX_set_max_proto_version(p->ctx, version);
  trust(p->ctx, &p->ca);
  SSL_CTX_set_verify(p->ctx, SSL_VERIFY_PEER, NULL);
  p->client = SSL_new(p->ctx);
  SSL_set_fd(p->client, p->fd[1]);
  SSL_set_connect_state(p->client);
  SSL_set1_host(p->client, "n1");
}

static void pair_close(struct pair *p) {
  tls_stream_free(p->stream);
  tls_server_free(p->server);
  SSL_free(p->client);
  SSL_CTX_free(p->ctx);
  issued_free(&p->issued);
  close(p->fd[0]);
  if (p->fd[1] >= 0)
    close(p->fd[1]);
}

/* 1, or -1 when either side refused. */
static int shake(struct pair *p) {
  const char *why = NULL;
  int server = 0, client = 0;
  for (int i = 0; i < 20 && (server != 1 || client != 1); i++) {
    if (client != 1) {
      ERR_clear_error();
      client = SSL_do_handshake(p->client);
      int what = SSL_get_error(p->client, client);
      if (client != 1 && what != SSL_ERROR_WANT_READ && what != SSL_ERROR_WANT_WRITE)
        return -1;
    }
    if (server != 1 && (server = tls_handshake(p->stream, &why)) < 0) {
      assert_non_null(why);
      return -1;
    }
  }
  return server == 1 && client == 1 ? 1 : 0;
}

static void test_bytes_both_ways(void **state) {
  (void)state;
  struct pair p;
  pair_open(&p, TLS1_3_VERSION);
  tls_server_free(tls_server_ref(p.server));
  assert_int_equal(shake(&p), 1);
  assert_int_equal(SSL_version(p.client), TLS1_3_VERSION);
  char in[64];
  assert_int_equal(tls_read(p.stream, in, sizeof in), -1);
  assert_int_equal(errno, EAGAIN);
  assert_int_equal(SSL_write(p.client, "question", 8), 8);
  assert_int_equal(tls_read(p.stream, in, sizeof in), 8);
  assert_memory_equal(in, "question", 8);
  /* A megabyte against a reader that is behind: what was not taken is offered again, from a buffer that has moved. */
  enum { SIZE = 1 << 20 };
  uint8_t *out = malloc(SIZE), *moved = malloc(SIZE), *got = malloc(SIZE);
  for (size_t i = 0; i < SIZE; i++)
    out[i] = moved[i] = (uint8_t)(i * 7 + i / 251);
  size_t sent = 0, read_ = 0;
  for (unsigned turn = 0; read_ < SIZE; turn++) {
    while (sent < SIZE) {
      ssize_t n = tls_write(p.stream, (turn % 2 ? moved : out) + sent, SIZE - sent);
      if (n < 0) {
        assert_int_equal(errno, EAGAIN);
        break;
      }
      sent += (size_t)n;
    }
    for (int n; read_ < SIZE && (n = SSL_read(p.client, got + read_, SIZE)) > 0;)
      read_ += (size_t)n;
  }
  assert_memory_equal(out, got, SIZE);
  free(out);
  free(moved);
  free(got);
  SSL_shutdown(p.client);
  assert_int_equal(tls_read(p.stream, in, sizeof in), 0);
  tls_end(p.stream);
  assert_int_equal(SSL_read(p.client, in, sizeof in), 0);
  assert_int_equal(SSL_get_error(p.client, 0), SSL_ERROR_ZERO_RETURN);
  pair_close(&p);
}

static void test_a_connection_cut_is_no_end(void **state) {
  (void)state;
  struct pair p;
  char in[8];
  pair_open(&p, TLS1_3_VERSION);
  assert_int_equal(shake(&p), 1);
  close(p.fd[1]);
  p.fd[1] = -1;
  assert_int_equal(tls_read(p.stream, in, sizeof in), -1);
  assert_int_equal(errno, EIO);
  assert_int_equal(tls_write(p.stream, "x", 1), -1);
  assert_int_equal(errno, EIO);
  pair_close(&p);
}

static void test_older_versions_and_rubbish_are_refused(void **state) {
  (void)state;
  struct pair p;
  pair_open(&p, TLS1_2_VERSION);
  assert_int_equal(shake(&p), -1);
  pair_close(&p);
  pair_open(&p, TLS1_3_VERSION);
  const char *why;
  assert_int_equal(tls_handshake(p.stream, &why), 0);
  assert_int_equal(write(p.fd[1], "GET / HTTP/1.1\r\n\r\n", 18), 18);
  assert_int_equal(tls_handshake(p.stream, &why), -1);
  tls_end(p.stream); /* harmless where nothing was agreed on */
  pair_close(&p);
}

static void test_pairs_that_do_not_belong_together(void **state) {
  (void)state;
  struct ca ca;
  struct issued a, b;
  struct err err;
  ca_make(&ca, 3650 * DAY);
  issue(&a, &ca);
  issue(&b, &ca);
  assert_null(tls_server_new(buf_str(&a.chain), a.chain.len, buf_str(&b.key), b.key.len, &err));
  assert_int_equal(err.code, ERR_INVALID);
  assert_null(tls_server_new("", 0, "", 0, &err));
  assert_null(tls_server_new("rubbish", 7, buf_str(&b.key), b.key.len, &err));
  issued_free(&a);
  issued_free(&b);
}

int main(void) {
  signal(SIGPIPE, SIG_IGN); /* as every daemon does */
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_a_signed_certificate),
      cmocka_unit_test(test_it_never_outlives_its_ca),
      cmocka_unit_test(test_requests_that_are_refused),
      cmocka_unit_test(test_bytes_both_ways),
      cmocka_unit_test(test_a_connection_cut_is_no_end),
      cmocka_unit_test(test_older_versions_and_rubbish_are_refused),
      cmocka_unit_test(test_pairs_that_do_not_belong_together),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
