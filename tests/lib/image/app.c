/* The service that integration tests deploy: it does as it is told, by its environment and by request.
 *
 *   PORT (8080), TEXT (what / says), START_DELAY_MS (before it listens), READY_AFTER_MS (503 from /healthz until then), EXIT_AFTER_MS and EXIT_CODE,
 *   IGNORE_TERM=1
 *   LOG_LINES (how many it writes to its log at first), LOG_LEN (characters of each, 100), LOG_KBPS (kB/s, 0: as fast as it goes), LOG_ERR (every so
 *   many-th goes to stderr): "RUN NUMBER xxx…", RUN being the ms at which it began; then "RUN end"
 *
 *   /            TEXT and a line end          /healthz     200, or 503 while unhealthy
 *   /slow?MS     answers after MS             /exit?CODE   ends the process
 *   /unhealthy   /healthz says 503 from now   /healthy     and 200 again
 *   /env?NAME    a variable                   /file?PATH   a file's content
 *   /headers     the request's head           /bytes?N     N bytes
 *   /stall       never answers */
#define _GNU_SOURCE
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define HEAD_MAX 16384

static bool unhealthy; /* atomic */
static struct timespec began;

static long number(const char *name, long otherwise) {
  const char *v = getenv(name);
  return v ? strtol(v, NULL, 10) : otherwise;
}

static void pause_ms(long ms) {
  struct timespec ts = {ms / 1000, ms % 1000 * 1000000};
  nanosleep(&ts, NULL);
}

static long age_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (now.tv_sec - began.tv_sec) * 1000 + (now.tv_nsec - began.tv_nsec) / 1000000;
}

static bool say(int fd, int status, const void *body, size_t len, bool keep) {
  char head[256];
  int n = snprintf(head, sizeof head, "HTTP/1.1 %d %s\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n%s\r\n", status,
                   status == 200 ? "OK" : "No", len, keep ? "" : "Connection: close\r\n");
  if (send(fd, head, (size_t)n, MSG_NOSIGNAL | (len ? MSG_MORE : 0)) != n)
    return false;
  for (const char *p = body; len;) {
    ssize_t sent = send(fd, p, len, MSG_NOSIGNAL);
    if (sent <= 0)
      return false;
    p += sent;
    len -= (size_t)sent;
  }
  return keep;
}

static bool say_bytes(int fd, size_t len, bool keep) {
  char *bytes = calloc(1, len + 1);
  if (!bytes)
    return say(fd, 500, "", 0, false);
  memset(bytes, 'x', len);
  bool more = say(fd, 200, bytes, len, keep);
  free(bytes);
  return more;
}

static bool say_file(int fd, const char *path, bool keep) {
  char content[65536];
  int file = open(path, O_RDONLY | O_CLOEXEC);
  ssize_t n = file < 0 ? -1 : read(file, content, sizeof content);
  if (file >= 0)
    close(file);
  return n < 0 ? say(fd, 404, "", 0, keep) : say(fd, 200, content, (size_t)n, keep);
}

static bool answer(int fd, char *head) {
  bool keep = !strcasestr(head, "\r\nConnection: close") && !strstr(head, " HTTP/1.0\r\n");
  char all[HEAD_MAX];
  snprintf(all, sizeof all, "%s", head);
  char *path = strchr(head, ' ');
  if (!path++)
    return false;
  path[strcspn(path, " \r\n")] = 0;
  char *argument = strchr(path, '?');
  if (argument)
    *argument++ = 0;
  else
    argument = path + strlen(path);
  if (strcmp(path, "/healthz") == 0) {
    bool bad = __atomic_load_n(&unhealthy, __ATOMIC_RELAXED) || age_ms() < number("READY_AFTER_MS", 0);
    return say(fd, bad ? 503 : 200, bad ? "bad\n" : "ok\n", bad ? 4 : 3, keep);
  }
  if (strcmp(path, "/slow") == 0)
    pause_ms(strtol(argument, NULL, 10));
  if (strcmp(path, "/exit") == 0)
    _exit((int)strtol(argument, NULL, 10));
  if (strcmp(path, "/unhealthy") == 0 || strcmp(path, "/healthy") == 0)
    __atomic_store_n(&unhealthy, path[1] == 'u', __ATOMIC_RELAXED);
  if (strcmp(path, "/stall") == 0)
    pause();
  if (strcmp(path, "/headers") == 0)
    return say(fd, 200, all, strlen(all), keep);
  if (strcmp(path, "/bytes") == 0)
    return say_bytes(fd, strtoul(argument, NULL, 10), keep);
  if (strcmp(path, "/file") == 0)
    return say_file(fd, argument, keep);
  const char *text = strcmp(path, "/env") == 0 ? getenv(argument) : getenv("TEXT");
  char line[4096];
  int n = snprintf(line, sizeof line, "%s\n", text ? text : "");
  return say(fd, 200, line, (size_t)n, keep);
}

static void *serve(void *arg) {
  int fd = (int)(long)arg;
  char head[HEAD_MAX];
  size_t len = 0;
  for (bool more = true; more && len < sizeof head - 1;) {
    ssize_t n = recv(fd, head + len, sizeof head - 1 - len, 0);
    if (n <= 0)
      break;
    len += (size_t)n;
    head[len] = 0;
    for (char *end; more && (end = memmem(head, len, "\r\n\r\n", 4));) {
      size_t used = (size_t)(end + 4 - head);
      char one[HEAD_MAX];
      memcpy(one, head, used);
      one[used - 2] = 0;
      len -= used;
      memmove(head, head + used, len);
      more = answer(fd, one);
    }
  }
  close(fd);
  return NULL;
}

static void *end_later(void *arg) {
  pause_ms((long)arg);
  _exit((int)number("EXIT_CODE", 1));
}

static void *write_log(void *arg) {
  (void)arg;
  static char line[1 << 20];
  long count = number("LOG_LINES", 0), len = number("LOG_LEN", 100), rate = number("LOG_KBPS", 0), err = number("LOG_ERR", 0);
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  long long run = now.tv_sec * 1000LL + now.tv_nsec / 1000000;
  if (len < 40 || len >= (long)sizeof line)
    len = 100;
  memset(line, 'x', (size_t)len);
  line[len] = '\n';
  long long written = 0, from_ms = age_ms();
  for (long i = 0; i < count; i++) {
    int n = snprintf(line, sizeof line, "%lld %08ld ", run, i);
    line[n] = 'x';
    fwrite(line, 1, (size_t)len + 1, err && i % err == err - 1 ? stderr : stdout);
    written += len + 1;
    long long ahead = rate ? written / rate - (age_ms() - from_ms) : 0;
    if (ahead > 4) {
      fflush(stdout);
      pause_ms(ahead);
    }
  }
  printf("%lld end\n", run);
  fflush(stdout);
  return NULL;
}

static void on_term(int signo) {
  (void)signo;
  _exit(0);
}

int main(void) {
  clock_gettime(CLOCK_MONOTONIC, &began);
  signal(SIGTERM, number("IGNORE_TERM", 0) ? SIG_IGN : on_term);
  pthread_attr_t small;
  pthread_attr_init(&small);
  pthread_attr_setdetachstate(&small, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&small, 256 * 1024);
  pthread_t thread;
  if (getenv("EXIT_AFTER_MS") && pthread_create(&thread, &small, end_later, (void *)number("EXIT_AFTER_MS", 0)) != 0)
    return 1;
  printf("%s starting\n", getenv("TEXT") ? getenv("TEXT") : "app");
  fflush(stdout);
  if (getenv("LOG_LINES") && pthread_create(&thread, &small, write_log, NULL) != 0)
    return 1;
  pause_ms(number("START_DELAY_MS", 0));
  struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons((uint16_t)number("PORT", 8080))};
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
  if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) < 0 || bind(fd, (struct sockaddr *)&any, sizeof any) < 0 ||
      listen(fd, 512) < 0) {
    perror("app: listen");
    return 1;
  }
  for (;;) {
    int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
    if (client < 0)
      continue;
    setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (pthread_create(&thread, &small, serve, (void *)(long)client) != 0)
      close(client);
  }
}
