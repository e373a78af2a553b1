/* Docker, or a container that is probed, answers anything: every request ends in exactly one `done`, no body is over its bound, and the next request
 * over the same client goes on from there. The first byte says how the request is made. */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/http/http.h"
#include "common/loop.h"
#include "tests/fuzz/fuzz.h"

#define BODY_MAX ((size_t)4096)

static struct loop *loop;
static struct sockaddr_un address = {.sun_family = AF_UNIX};
static int listener;

struct seen {
  unsigned done;
  size_t streamed;
};

static void remove_socket(void) {
  unlink(address.sun_path);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
  (void)argc;
  (void)argv;
  struct err err;
  snprintf(address.sun_path, sizeof address.sun_path, "/tmp/orca-fuzz-http-%d", (int)getpid());
  loop = loop_new(NULL, &err);
  listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (!loop || bind(listener, (const struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 8) < 0)
    abort();
  atexit(remove_socket);
  return 0;
}

static bool on_data(void *arg, const uint8_t *data, size_t len) {
  struct seen *seen = arg;
  (void)data;
  seen->streamed += len;
  return seen->streamed < BODY_MAX;
}

static void on_done(void *arg, const struct http_answer *answer, const struct err *err) {
  struct seen *seen = arg;
  seen->done++;
  if (!err && (answer->status < 200 || answer->status > 999 || answer->len > BODY_MAX || answer->body[answer->len] || !answer->content_type))
    abort();
}

static void one(struct http_client *client, uint8_t how, const uint8_t *data, size_t size) {
  struct err err;
  struct seen seen = {0};
  struct http_options o = {.method = how & 1   ? "HEAD"
                                     : how & 2 ? "POST"
                                               : "GET",
                           .url = "http://docker/x",
                           .unix_socket = address.sun_path,
                           .body = how & 2 ? "{}" : NULL,
                           .body_len = how & 2 ? 2 : 0,
                           .timeout_ns = 50 * NS_PER_MS,
                           .max_body = BODY_MAX,
                           .fresh_connection = how & 4,
                           .data = how & 8 ? on_data : NULL,
                           .done = on_done,
                           .arg = &seen};
  if (!http_start(client, &o, &err))
    abort();
  int fd = -1;
  for (int i = 0; i < 50 && !seen.done; i++) {
    if (fd < 0 && (fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0) {
      size_t first = how & 16 ? size / 2 : size;
      send(fd, data, first, MSG_NOSIGNAL);
      loop_once(loop, 0, &err);
      send(fd, data + first, size - first, MSG_NOSIGNAL);
      shutdown(fd, SHUT_WR);
    }
    loop_once(loop, NS_PER_MS, &err);
  }
  while (!seen.done) /* at its deadline */
    loop_once(loop, 50 * NS_PER_MS, &err);
  if (fd >= 0)
    close(fd);
  loop_once(loop, 0, &err);
  if (seen.done != 1)
    abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct err err;
  if (size < 2 || size > 16384)
    return 0;
  struct http_client *client = http_client_new(loop, &err);
  if (!client)
    abort();
  one(client, data[0], data + 1, size - 1);
  one(client, (uint8_t)(data[0] >> 4), data + 1, size - 1);
  http_client_free(client);
  loop_once(loop, 0, &err);
  for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) >= 0;)
    close(fd);
  return 0;
}
