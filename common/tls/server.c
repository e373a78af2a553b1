#include "common/tls/server.h"

#include <errno.h>
#include <limits.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <string.h>

/* Both are OpenSSL's own, counted by it: the names here keep its headers out of those who only carry bytes. */
static SSL_CTX *ctx_of(struct tls_server *s) {
  return (SSL_CTX *)(void *)s;
}
static SSL *ssl_of(struct tls_stream *t) {
  return (SSL *)(void *)t;
}

static int no_password(char *out, int size, int writing, void *arg) {
  (void)out;
  (void)size;
  (void)writing;
  (void)arg;
  return 0;
}

static bool use_chain(SSL_CTX *ctx, const char *pem, size_t len) {
  BIO *bio = len && len <= INT_MAX ? BIO_new_mem_buf(pem, (int)len) : NULL;
  X509 *cert = bio ? PEM_read_bio_X509(bio, NULL, no_password, NULL) : NULL;
  bool ok = cert && SSL_CTX_use_certificate(ctx, cert) == 1;
  X509_free(cert);
  while (ok && (cert = PEM_read_bio_X509(bio, NULL, no_password, NULL)))
    if (SSL_CTX_add0_chain_cert(ctx, cert) != 1) {
      X509_free(cert);
      ok = false;
    }
  BIO_free(bio);
  return ok;
}

static bool use_key(SSL_CTX *ctx, const char *pem, size_t len) {
  BIO *bio = len && len <= INT_MAX ? BIO_new_mem_buf(pem, (int)len) : NULL;
  EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, no_password, NULL) : NULL;
  bool ok = key && SSL_CTX_use_PrivateKey(ctx, key) == 1 && SSL_CTX_check_private_key(ctx) == 1;
  EVP_PKEY_free(key);
  BIO_free(bio);
  return ok;
}

struct tls_server *tls_server_new(const char *chain_pem, size_t chain_len, const char *key_pem, size_t key_len, struct err *err) {
  static const unsigned char context[] = "orca";
  SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
  bool made = ctx && SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) == 1 && SSL_CTX_set_max_early_data(ctx, 0) == 1 &&
              SSL_CTX_set_session_id_context(ctx, context, sizeof context - 1) == 1;
  if (made) {
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF); /* tickets hold what is needed */
    SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_NONE, NULL);
  }
  if (made && use_chain(ctx, chain_pem, chain_len) && use_key(ctx, key_pem, key_len)) {
    ERR_clear_error();
    return (struct tls_server *)(void *)ctx;
  }
  SSL_CTX_free(ctx);
  ERR_clear_error();
  if (made)
    err_set(err, ERR_INVALID, "the certificate and its key can't be used together");
  else
    err_set(err, ERR_MEMORY, "no memory for TLS");
  return NULL;
}

struct tls_server *tls_server_ref(struct tls_server *s) {
  SSL_CTX_up_ref(ctx_of(s));
  return s;
}

void tls_server_free(struct tls_server *s) {
  SSL_CTX_free(ctx_of(s));
}

struct tls_stream *tls_stream_new(struct tls_server *s, int fd) {
  SSL *ssl = SSL_new(ctx_of(s));
  if (!ssl || SSL_set_fd(ssl, fd) != 1) {
    SSL_free(ssl);
    return NULL;
  }
  SSL_set_accept_state(ssl);
  return (struct tls_stream *)(void *)ssl;
}

void tls_stream_free(struct tls_stream *t) {
  SSL_free(ssl_of(t));
}

int tls_handshake(struct tls_stream *t, const char **why) {
  ERR_clear_error();
  int rc = SSL_do_handshake(ssl_of(t));
  if (rc == 1)
    return 1;
  int what = SSL_get_error(ssl_of(t), rc);
  if (what == SSL_ERROR_WANT_READ || what == SSL_ERROR_WANT_WRITE)
    return 0;
  const char *reason = ERR_reason_error_string(ERR_peek_error());
  *why = reason ? reason : "the connection was closed";
  ERR_clear_error();
  return -1;
}

static ssize_t failed(SSL *ssl, int rc) {
  switch (SSL_get_error(ssl, rc)) {
  case SSL_ERROR_WANT_READ:
  case SSL_ERROR_WANT_WRITE:
    errno = EAGAIN;
    return -1;
  case SSL_ERROR_ZERO_RETURN:
    return 0;
  default:
    ERR_clear_error();
    errno = EIO;
    return -1;
  }
}

ssize_t tls_read(struct tls_stream *t, void *data, size_t len) {
  size_t n;
  ERR_clear_error();
  int rc = SSL_read_ex(ssl_of(t), data, len, &n);
  return rc == 1 ? (ssize_t)n : failed(ssl_of(t), rc);
}

ssize_t tls_write(struct tls_stream *t, const void *data, size_t len) {
  size_t n;
  ERR_clear_error();
  int rc = SSL_write_ex(ssl_of(t), data, len, &n);
  if (rc == 1)
    return (ssize_t)n;
  ssize_t no = failed(ssl_of(t), rc);
  if (no == 0) { /* the peer reads no more */
    errno = EIO;
    no = -1;
  }
  return no;
}

void tls_end(struct tls_stream *t) {
  ERR_clear_error();
  if (SSL_is_init_finished(ssl_of(t)))
    (void)SSL_shutdown(ssl_of(t));
  ERR_clear_error();
}
