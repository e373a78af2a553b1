/* What a proxy asks to be signed: whatever it is, the CA signs it or says why not. And what a client says before it is known: whatever it is, the
 * handshake waits for more or ends. */
#include <openssl/bio.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/tls/cert.h"
#include "common/tls/server.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static char ca_pem[4096], ca_key[2048];
static struct tls_server *server;

static void text_of(BIO *bio, char *out, size_t size) {
  int n = BIO_read(bio, out, (int)size - 1);
  if (n <= 0)
    abort();
  out[n] = 0;
  BIO_free(bio);
}

static void make_ca(void) {
  EVP_PKEY *key = EVP_EC_gen("P-256");
  X509 *cert = X509_new();
  X509V3_CTX ctx;
  X509_set_version(cert, X509_VERSION_3);
  X509_gmtime_adj(X509_getm_notBefore(cert), -3600);
  X509_gmtime_adj(X509_getm_notAfter(cert), 86400L * 3650);
  X509_set_pubkey(cert, key);
  X509V3_set_ctx(&ctx, cert, cert, NULL, NULL, 0);
  X509_EXTENSION *id = X509V3_EXT_conf_nid(NULL, &ctx, NID_subject_key_identifier, "hash");
  X509_add_ext(cert, id, -1);
  X509_EXTENSION_free(id);
  X509_sign(cert, key, EVP_sha256());
  BIO *pem = BIO_new(BIO_s_mem()), *key_pem = BIO_new(BIO_s_mem());
  PEM_write_bio_X509(pem, cert);
  PEM_write_bio_PKCS8PrivateKey(key_pem, key, NULL, NULL, 0, NULL, NULL);
  text_of(pem, ca_pem, sizeof ca_pem);
  text_of(key_pem, ca_key, sizeof ca_key);
  X509_free(cert);
  EVP_PKEY_free(key);
}

static int sign(const uint8_t *data, size_t size, struct buf *chain, struct err *err) {
  static const char *const names[] = {"n1", "10.0.0.1"};
  struct tls_signing how = {
      .ca_pem = ca_pem, .ca_key_pem = ca_key, .common_name = "n1", .names = names, .name_count = 2, .now_s = INT64_C(1800000000), .life_s = 86400};
  int64_t until;
  return tls_sign(data, size, &how, chain, &until, err);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
  (void)argc;
  (void)argv;
  struct buf key = BUF_INIT(TLS_PEM_MAX), request = BUF_INIT(TLS_REQUEST_MAX), chain = BUF_INIT(TLS_PEM_MAX);
  struct err err;
  make_ca();
  if (tls_key_and_request(&key, &request, &err) < 0 || sign(request.data, request.len, &chain, &err) < 0 ||
      !(server = tls_server_new(buf_str(&chain), chain.len, buf_str(&key), key.len, &err)))
    abort();
  buf_free(&chain);
  buf_free(&request);
  tls_wipe(&key);
  return 0;
}

static void say_hello(const uint8_t *data, size_t size) {
  int fd[2];
  const char *why;
  if (size > 32768 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd) < 0)
    return;
  struct tls_stream *stream = tls_stream_new(server, fd[0]);
  if (!stream || send(fd[1], data, size, MSG_NOSIGNAL) != (ssize_t)size)
    abort();
  shutdown(fd[1], SHUT_WR);
  for (int i = 0; i < 8 && tls_handshake(stream, &why) == 0; i++)
    ;
  tls_end(stream);
  tls_stream_free(stream);
  close(fd[0]);
  close(fd[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct buf chain = BUF_INIT(TLS_PEM_MAX);
  struct tls_certificate info;
  struct err err;
  if (sign(data, size, &chain, &err) == 0 && (tls_certificate_read(buf_str(&chain), chain.len, &info, &err) < 0 || info.not_after_s != 1800086400))
    abort();
  buf_free(&chain);
  if (size)
    say_hello(data, size);
  return 0;
}
