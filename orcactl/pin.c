#include "orcactl/pin.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "common/crypto/crypto.h"

#define WAIT_S 5

static int connect_to(const char *host, uint16_t port, struct err *err) {
  char service[8];
  struct addrinfo want = {.ai_socktype = SOCK_STREAM}, *list;
  snprintf(service, sizeof service, "%u", port);
  int rc = getaddrinfo(host, service, &want, &list);
  if (rc)
    return err_set(err, ERR_UNAVAILABLE, "%s: %s", host, gai_strerror(rc));
  int fd = -1, why = 0;
  for (const struct addrinfo *a = list; a && fd < 0; a = a->ai_next) {
    struct timeval wait = {.tv_sec = WAIT_S}; /* of connect, too */
    fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);
    if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait) == 0 &&
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait) == 0 && connect(fd, a->ai_addr, a->ai_addrlen) == 0)
      continue;
    why = errno == EINPROGRESS ? ETIMEDOUT : errno;
    if (fd >= 0)
      close(fd);
    fd = -1;
  }
  freeaddrinfo(list);
  return fd >= 0 ? fd : err_errno(err, why, "%s port %u", host, port);
}

/* The self-signed CA that the server sent along; NULL. Borrowed from ssl. */
static X509 *ca_of_chain(const SSL *ssl) {
  STACK_OF(X509) *chain = SSL_get_peer_cert_chain(ssl);
  for (int i = chain ? sk_X509_num(chain) : 0; i-- > 0;) {
    X509 *cert = sk_X509_value(chain, i);
    EVP_PKEY *key = X509_get0_pubkey(cert);
    if (X509_check_ca(cert) == 1 && X509_NAME_cmp(X509_get_subject_name(cert), X509_get_issuer_name(cert)) == 0 && key && X509_verify(cert, key) == 1)
      return cert;
  }
  return NULL;
}

/* With the CA as the only root; the name as a client checks it later. */
static int verify(const SSL *ssl, X509 *ca, const char *host, struct err *err) {
  X509_STORE *store = X509_STORE_new();
  X509_STORE_CTX *ctx = X509_STORE_CTX_new();
  X509 *leaf = SSL_get0_peer_certificate(ssl);
  struct in6_addr any;
  bool ip = inet_pton(AF_INET, host, &any) == 1 || inet_pton(AF_INET6, host, &any) == 1;
  int rc = -1;
  if (!store || !ctx || !leaf || X509_STORE_add_cert(store, ca) != 1 || X509_STORE_CTX_init(ctx, store, leaf, NULL) != 1)
    err_set(err, ERR_MEMORY, "no memory to check a certificate");
  else if (X509_STORE_CTX_set_purpose(ctx, X509_PURPOSE_SSL_SERVER) != 1 || X509_verify_cert(ctx) != 1)
    err_set(err, ERR_INVALID, "%s: the server's certificate is not good: %s", host, X509_verify_cert_error_string(X509_STORE_CTX_get_error(ctx)));
  else if ((ip ? X509_check_ip_asc(leaf, host, 0) : X509_check_host(leaf, host, 0, 0, NULL)) != 1)
    err_set(err, ERR_INVALID, "%s: the server's certificate is for other names", host);
  else
    rc = 0;
  X509_STORE_CTX_free(ctx);
  X509_STORE_free(store);
  return rc;
}

static char *to_pem(X509 *cert) {
  BIO *bio = BIO_new(BIO_s_mem());
  char *text, *copy = NULL;
  if (bio && PEM_write_bio_X509(bio, cert) == 1) {
    long len = BIO_get_mem_data(bio, &text);
    copy = len > 0 ? strndup(text, (size_t)len) : NULL;
  }
  BIO_free(bio);
  return copy;
}

static int take_ca(const SSL *ssl, const char *host, const char *expected, char **ret_pem, char ret_hash[65], struct err *err) {
  X509 *ca = ca_of_chain(ssl);
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned n = 0;
  if (!ca || X509_digest(ca, EVP_sha256(), digest, &n) != 1 || n != 32)
    return err_set(err, ERR_INVALID, "%s: the server did not send a cluster's CA", host);
  crypto_hex(digest, n, ret_hash);
  if (expected && strcasecmp(expected, ret_hash) != 0)
    return err_set(err, ERR_DENIED,
                   "%s: its CA is not the expected one: SHA-256 %s. Either the hash is another cluster's, or somebody answers in its place", host,
                   ret_hash);
  if (verify(ssl, ca, host, err) < 0)
    return -1;
  char *pem = to_pem(ca);
  if (!pem)
    return err_set(err, ERR_MEMORY, "no memory for a certificate");
  *ret_pem = pem;
  return 0;
}

static int shake_hands(SSL *ssl, int fd, const char *host, uint16_t port, struct err *err) {
  struct in6_addr any;
  bool ip = inet_pton(AF_INET, host, &any) == 1 || inet_pton(AF_INET6, host, &any) == 1;
  if (SSL_set_fd(ssl, fd) != 1 || (!ip && SSL_ctrl(ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, (void *)(uintptr_t)host) != 1))
    return err_set(err, ERR_MEMORY, "no memory for TLS");
  ERR_clear_error();
  if (SSL_connect(ssl) == 1)
    return 0;
  const char *why = ERR_reason_error_string(ERR_peek_error());
  return err_set(err, ERR_UNAVAILABLE, "%s port %u: no TLS 1.3: %s", host, port, why ? why : "the connection was closed, or nothing was said");
}

int pin_fetch_ca(const char *host, uint16_t port, const char *expected_sha256, char **ret_pem, char ret_hash[65], struct err *err) {
  ret_hash[0] = 0;
  if (expected_sha256 && (strlen(expected_sha256) != 64 || strspn(expected_sha256, "0123456789abcdefABCDEF") != 64))
    return err_set(err, ERR_INVALID, "not the SHA-256 of a CA: 64 hex digits, as `orcactl init` prints it");
  int fd = connect_to(host, port, err);
  if (fd < 0)
    return -1;
  /* Nothing is verified by the library: what is trusted is only known once the chain is here, and nothing is said before. */
  SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
  SSL *ssl = ctx && SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) == 1 ? SSL_new(ctx) : NULL;
  int rc = ssl ? shake_hands(ssl, fd, host, port, err) : err_set(err, ERR_MEMORY, "no memory for TLS");
  if (rc == 0)
    rc = take_ca(ssl, host, expected_sha256, ret_pem, ret_hash, err);
  SSL_free(ssl);
  SSL_CTX_free(ctx);
  close(fd);
  ERR_clear_error();
  return rc;
}

int pin_of_pem(const char *pem, char ret_hash[65]) {
  BIO *bio = BIO_new_mem_buf(pem, -1);
  X509 *ca = bio ? PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;
  uint8_t digest[EVP_MAX_MD_SIZE];
  unsigned n = 0;
  int rc = ca && X509_digest(ca, EVP_sha256(), digest, &n) == 1 && n == 32 ? 0 : -1;
  if (rc == 0)
    crypto_hex(digest, n, ret_hash);
  X509_free(ca);
  BIO_free(bio);
  return rc;
}
