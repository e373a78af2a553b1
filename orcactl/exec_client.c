#include "orcactl/exec_client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "common/crypto/crypto.h"
#include "common/daemon/daemon.h"
#include "common/http/upgrade.h"
#include "common/ws/exec_wire.h"
#include "common/ws/ws.h"
#include "orcactl/api_curl.h"
#include "orcactl/terminal.h"

#define REQUEST_MAX ((size_t)30 << 10) /* the apiserver takes heads of 32 KiB */
#define HANDSHAKE_MS 30000
#define PIECE ((size_t)32 << 10)
#define OUT_HIGH ((size_t)256 << 10)
#define ALIVE_MS 15000
#define FAREWELL_MS 2000 /* for a close to be written when we end it */
#define LOST 255         /* exit code, as ssh's */

struct sink { /* stdout or stderr */
  int fd;
  struct buf out;
  bool broken;
};

struct client {
  struct ctl *ctl;
  const struct exec_options *options;
  CURL *curl;
  curl_socket_t fd;
  struct ws *ws;
  struct sink sinks[2];
  bool stdin_over, started, ended, failed;
  bool mute, over; /* nothing more can be said; nothing more will be heard, but for what is held */
  int exit_code;
  struct err why;
  int signals;
};

static int64_t now_ms(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* ---- the connection ---- */

static ssize_t on_read(void *arg, uint8_t *to, size_t len) {
  size_t n = 0;
  CURLcode rc = curl_easy_recv(((struct client *)arg)->curl, to, len, &n);
  errno = rc == CURLE_AGAIN ? EAGAIN : EIO;
  return rc == CURLE_OK ? (ssize_t)n : -1;
}

static ssize_t on_write(void *arg, const uint8_t *data, size_t len) {
  size_t n = 0;
  CURLcode rc = curl_easy_send(((struct client *)arg)->curl, data, len, &n);
  errno = rc == CURLE_AGAIN ? EAGAIN : EIO;
  return rc == CURLE_OK ? (ssize_t)n : -1;
}

static int wait_for(curl_socket_t fd, short events, int64_t until, const struct ctl *ctl, struct err *err) {
  struct pollfd p = {.fd = fd, .events = events};
  int64_t left = until - now_ms();
  int n = left > 0 ? poll(&p, 1, (int)left) : 0;
  return n > 0 || (n < 0 && errno == EINTR) ? 0 : err_set(err, ERR_UNAVAILABLE, "%s: no answer within %d s", ctl->context.url, HANDSHAKE_MS / 1000);
}

static int connect_api(struct client *c, struct err *err) {
  char why[CURL_ERROR_SIZE] = "";
  struct ctl *ctl = c->ctl;
  if (api_prepare(ctl, why, err) < 0)
    return -1;
  c->curl = ctl->curl;
  curl_easy_setopt(c->curl, CURLOPT_URL, ctl->context.url);
  curl_easy_setopt(c->curl, CURLOPT_CONNECT_ONLY, 1L);
  curl_easy_setopt(c->curl, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
  CURLcode rc = curl_easy_perform(c->curl);
  curl_easy_setopt(c->curl, CURLOPT_ERRORBUFFER, NULL);
  if (rc == CURLE_OK)
    rc = curl_easy_getinfo(c->curl, CURLINFO_ACTIVESOCKET, &c->fd);
  if (rc == CURLE_OK && c->fd != CURL_SOCKET_BAD)
    return 0;
  if (ctl->stranger.code != ERR_NONE) {
    *err = ctl->stranger;
    return -1;
  }
  ctl->unreachable = true;
  return err_set(err, ERR_UNAVAILABLE, "%s: %s", ctl->context.url, *why ? why : curl_easy_strerror(rc));
}

static int send_request(struct client *c, const char *path, const char *key, struct err *err) {
  struct buf b = BUF_INIT(REQUEST_MAX);
  const struct context *context = &c->ctl->context;
  const char *host = strstr(context->url, "://") + 3, *base = strchr(host, '/');
  int host_len = (int)(base ? base - host : (ptrdiff_t)strlen(host));
  size_t base_len = base ? strlen(base) : 0;
  while (base_len && base[base_len - 1] == '/')
    base_len--;
  buf_printf(&b,
             "GET %.*s%s HTTP/1.1\r\nHost: %.*s\r\nUser-Agent: orcactl/" ORCA_VERSION "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
             "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\nSec-WebSocket-Protocol: " EXEC_PROTOCOL "\r\nAuthorization: Bearer %s\r\n\r\n",
             (int)base_len, base ? base : "", path, host_len, host, key, context->token);
  int rc = buf_failed(&b) ? err_set(err, ERR_TOO_LARGE, "the command is too long") : 0;
  int64_t until = now_ms() + HANDSHAKE_MS;
  for (size_t sent = 0; rc == 0 && sent < b.len;) {
    ssize_t n = on_write(c, b.data + sent, b.len - sent);
    if (n >= 0)
      sent += (size_t)n;
    else
      rc = errno == EAGAIN ? wait_for(c->fd, POLLOUT, until, c->ctl, err)
                           : err_set(err, ERR_UNAVAILABLE, "%s has closed the connection", context->url);
  }
  if (b.data)
    crypto_wipe(b.data, b.size);
  buf_free(&b);
  return rc;
}

static int check_answer(struct client *c, struct http_upgrade *u, const char *key, struct err *err) {
  char accept[WS_ACCEPT_LEN + 1];
  switch (u->state) {
  case HTTP_UPGRADE_REFUSED:
    return api_refused(c->ctl, u->status, &u->body, err);
  case HTTP_UPGRADE_DONE:
    ws_accept_of(key, accept);
    if (strcasecmp(u->protocol, "websocket") == 0 && strcmp(u->accept, accept) == 0 && strcmp(u->subprotocol, EXEC_PROTOCOL) == 0)
      return 0;
    break;
  case HTTP_UPGRADE_MORE:
  case HTTP_UPGRADE_BAD:
    break;
  }
  return err_set(err, ERR_INTERNAL, "%s did not answer as a WebSocket: is it an orca-apiserver?", c->ctl->context.url);
}

static int read_answer(struct client *c, const char *key, struct err *err) {
  struct http_upgrade u;
  uint8_t piece[4096];
  size_t used = 0;
  int rc = 0;
  int64_t until = now_ms() + HANDSHAKE_MS;
  http_upgrade_init(&u);
  while (rc == 0 && u.state == HTTP_UPGRADE_MORE) {
    ssize_t n = on_read(c, piece, sizeof piece);
    if (n > 0 && http_upgrade_feed(&u, piece, (size_t)n, &used) == HTTP_UPGRADE_DONE && ws_give(c->ws, piece + used, (size_t)n - used) < 0)
      rc = err_set(err, ERR_MEMORY, "no memory");
    else if (n < 0 && errno == EAGAIN)
      rc = wait_for(c->fd, POLLIN, until, c->ctl, err);
    else if (n <= 0)
      http_upgrade_end(&u);
  }
  if (rc == 0)
    rc = check_answer(c, &u, key, err);
  http_upgrade_fini(&u);
  return rc;
}

/* ---- messages ---- */

static void lose(struct client *c, enum err_code code, const char *why) {
  if (c->ended)
    return;
  c->ended = c->failed = true;
  err_set(&c->why, code, "%s", why);
}

static void on_message(void *arg, const uint8_t *data, size_t len) {
  struct client *c = arg;
  struct exec_control control;
  if (c->ended || !len)
    return;
  if (data[0] == EXEC_STDOUT || data[0] == EXEC_STDERR) {
    struct sink *s = &c->sinks[data[0] == EXEC_STDERR];
    if (!s->broken)
      buf_add(&s->out, data + 1, len - 1);
    if (buf_failed(&s->out))
      lose(c, ERR_MEMORY, "no memory");
    if (s->out.len > OUT_HIGH)
      ws_hold(c->ws);
    return;
  }
  if (data[0] != EXEC_CONTROL || !exec_control_parse(data + 1, len - 1, &control))
    return; /* of a later server */
  switch (control.kind) {
  case EXEC_STARTED:
    c->started = true;
    break;
  case EXEC_EXIT:
    c->ended = true;
    c->exit_code = control.exit_code;
    break;
  case EXEC_ERROR:
    lose(c, err_code_from_text(control.code), control.text);
    break;
  case EXEC_RESIZE:
  case EXEC_EOF:
    break;
  }
}

static void send_control(struct client *c, const struct exec_control *control) {
  struct buf b = BUF_INIT(256);
  exec_control_write(control, &b);
  if (buf_failed(&b) || ws_send(c->ws, b.data, b.len) < 0)
    lose(c, ERR_MEMORY, "no memory");
  buf_free(&b);
}

static void send_size(struct client *c) {
  struct exec_control control = {.kind = EXEC_RESIZE};
  if (c->options->tty && terminal_size(&control.rows, &control.cols))
    send_control(c, &control);
}

/* ---- stdin, stdout, stderr, signals ---- */

static void read_stdin(struct client *c) {
  uint8_t message[1 + PIECE];
  ssize_t n = read(STDIN_FILENO, message + 1, PIECE);
  if (n < 0 && (errno == EINTR || errno == EAGAIN))
    return;
  if (n <= 0) {
    c->stdin_over = true;
    send_control(c, &(struct exec_control){.kind = EXEC_EOF});
    return;
  }
  message[0] = EXEC_STDIN;
  if (ws_send(c->ws, message, (size_t)n + 1) < 0)
    lose(c, ERR_MEMORY, "no memory");
}

/* Not more than a pipe takes at once when poll says it has room: the descriptor is shared with others, and stays blocking. */
static void write_sink(struct client *c, struct sink *s) {
  ssize_t n = write(s->fd, s->out.data, s->out.len < 4096 ? s->out.len : 4096);
  if (n < 0 && (errno == EINTR || errno == EAGAIN))
    return;
  if (n < 0) { /* nobody reads it any more: like a command whose pipe broke, when it was stdout */
    s->broken = true;
    buf_reset(&s->out);
    if (s->fd == STDOUT_FILENO && !c->ended) {
      c->ended = true;
      c->exit_code = 128 + SIGPIPE;
    }
    return;
  }
  buf_consume(&s->out, (size_t)n);
}

static void on_signal(struct client *c) {
  struct signalfd_siginfo info;
  if (read(c->signals, &info, sizeof info) != (ssize_t)sizeof info)
    return;
  if (info.ssi_signo == SIGCONT && c->options->raw)
    terminal_raw();
  if (info.ssi_signo == SIGWINCH || info.ssi_signo == SIGCONT) {
    send_size(c);
    return;
  }
  if (!c->ended) {
    c->ended = true;
    c->exit_code = 128 + (int)info.ssi_signo;
  }
  for (size_t i = 0; i < 2; i++) /* a pipe that nobody empties must not outlast who wants us to go */
    buf_reset(&c->sinks[i].out);
}

static int open_signals(void) {
  const int wanted[] = {SIGWINCH, SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGCONT};
  sigset_t set;
  sigemptyset(&set);
  for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
    sigaddset(&set, wanted[i]);
  if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
    return -1;
  return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static bool has_output(const struct client *c) {
  return c->sinks[0].out.len || c->sinks[1].out.len;
}

static void pump(struct client *c) {
  int64_t alive = now_ms() + ALIVE_MS;
  send_size(c);              /* it may have changed since the request was written */
  c->over = !ws_read(c->ws); /* what came with the handshake, and what TLS has read already, wakes no poll */
  while (!c->ended || has_output(c)) {
    c->mute = c->mute || !ws_write(c->ws);
    if (c->over && !c->ended && !ws_is_held(c->ws)) { /* else the command's end may wait behind output that is held */
      lose(c, ERR_UNAVAILABLE, "the connection to the cluster is lost");
      continue;
    }
    bool reads_stdin = !c->ended && !c->mute && c->options->stdin_open && !c->stdin_over && ws_queued(c->ws) < 2 * PIECE;
    struct pollfd p[] = {{.fd = c->signals, .events = POLLIN},
                         {.fd = c->ended || c->over || (c->mute && ws_is_held(c->ws)) ? -1 : c->fd,
                          .events = (short)((ws_wants_read(c->ws) ? POLLIN : 0) | (!c->mute && ws_wants_write(c->ws) ? POLLOUT : 0))},
                         {.fd = reads_stdin ? STDIN_FILENO : -1, .events = POLLIN},
                         {.fd = c->sinks[0].out.len ? STDOUT_FILENO : -1, .events = POLLOUT},
                         {.fd = c->sinks[1].out.len ? STDERR_FILENO : -1, .events = POLLOUT}};
    int64_t left = alive - now_ms();
    if (poll(p, sizeof p / sizeof *p, left > 0 ? (int)left : 0) < 0 && errno != EINTR) {
      lose(c, ERR_IO, strerror(errno));
      return;
    }
    if (p[0].revents)
      on_signal(c);
    for (size_t i = 0; i < 2; i++)
      if (p[3 + i].revents && c->sinks[i].out.len)
        write_sink(c, &c->sinks[i]);
    if (ws_is_held(c->ws) && c->sinks[0].out.len < OUT_HIGH / 2 && c->sinks[1].out.len < OUT_HIGH / 2) {
      ws_resume(c->ws);
      p[1].revents |= POLLIN; /* some of it may be in libcurl's hands already */
    }
    if (p[2].revents)
      read_stdin(c);
    if (!c->ended && (p[1].revents & (POLLIN | POLLHUP | POLLERR)))
      c->over = !ws_read(c->ws);
    if (now_ms() >= alive) {
      ws_pong(c->ws);
      alive = now_ms() + ALIVE_MS;
    }
  }
}

/* Told that we go, the other side ends what still runs at once. */
static void say_goodbye(struct client *c) {
  int64_t until = now_ms() + FAREWELL_MS;
  struct err err;
  ws_close(c->ws, WS_GOOD, "");
  while (ws_write(c->ws) && ws_wants_write(c->ws) && wait_for(c->fd, POLLOUT, until, c->ctl, &err) == 0)
    ;
}

static int end(struct client *c) {
  terminal_restore();
  if (!c->failed)
    return c->exit_code & 0xff;
  if (c->started)
    c->why.code = ERR_INTERNAL; /* no advice: the command has ended with it */
  int rc = ctl_fail(c->ctl, &c->why);
  return c->started ? LOST : rc;
}

/* A handle that was told to connect only is not for requests (libcurl loses the connection): the next one has its own. */
static void disconnect(struct ctl *ctl) {
  if (ctl->curl)
    curl_easy_cleanup(ctl->curl);
  ctl->curl = NULL;
}

static int start(struct client *c, const char *path, struct err *err) {
  static const struct ws_ops ops = {.read = on_read, .write = on_write, .message = on_message};
  char key[WS_KEY_LEN + 1];
  if (!(c->ws = ws_new(WS_CLIENT, EXEC_MESSAGE_MAX, &ops, c)))
    return err_set(err, ERR_MEMORY, "no memory");
  if (connect_api(c, err) < 0 || ws_new_key(key, err) < 0 || send_request(c, path, key, err) < 0 || read_answer(c, key, err) < 0)
    return -1;
  return (c->signals = open_signals()) < 0 ? err_errno(err, errno, "signals") : 0;
}

int exec_client_run(struct ctl *ctl, const char *path, const struct exec_options *options) {
  struct client c = {.ctl = ctl, .options = options, .fd = CURL_SOCKET_BAD, .signals = -1};
  struct err err;
  for (int i = 0; i < 2; i++)
    c.sinks[i] = (struct sink){.fd = i ? STDERR_FILENO : STDOUT_FILENO, .out = BUF_INIT((size_t)8 << 20)};
  int rc = start(&c, path, &err);
  if (rc == 0) {
    if (options->raw)
      terminal_raw();
    pump(&c);
    say_goodbye(&c);
    close(c.signals);
  }
  disconnect(ctl);
  rc = rc < 0 ? ctl_fail(ctl, &err) : end(&c);
  ws_free(c.ws);
  buf_free(&c.sinks[0].out);
  buf_free(&c.sinks[1].out);
  return rc;
}
