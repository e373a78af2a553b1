/* What a proxy asks to be signed: whatever it is, the CA signs it or says why not. And what a client says before it is known: whatever it is, the
 * handshake waits for more or ends. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/tls/cert.h"
#include "common/tls/server.h"
#include "tests/fuzz/fuzz.h"
#include "tests/lib/ca.h"

static struct ca ca;
static struct tls_server *server;

static int sign(const uint8_t *data, size_t size, struct buf *chain, struct err *err) {
  static const char *const names[] = {"n1", "10.0.0.1"};
  struct tls_signing how = {
      .ca_pem = ca.pem, .ca_key_pem = ca.key, .common_name = "n1", .names = names, .name_count = 2, .now_s = INT64_C(1800000000), .life_s = 86400};
  int64_t until;
  return tls_sign(data, size, &how, chain, &until, err);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
  (void)argc;
  (void)argv;
  struct buf key = BUF_INIT(TLS_PEM_MAX), request = BUF_INIT(TLS_REQUEST_MAX), chain = BUF_INIT(TLS_PEM_MAX);
  struct err err;
  ca_make(&ca, INT64_C(86400) * 3650);
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
