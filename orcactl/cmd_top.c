#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "common/http/http.h"
#include "orcactl/api.h"
#include "orcactl/text.h"
#include "orcactl/view.h"

#define EVERY_MS 2000

enum sort { BY_CPU, BY_MEMORY, BY_REQUESTS };

static double weight(const json_t *one, enum sort sort) {
  switch (sort) {
  case BY_CPU:
    return api_num(one, "cpu");
  case BY_MEMORY:
    return api_num(one, "memory");
  case BY_REQUESTS:
    return api_num(one, "requests_rate");
  }
  return 0;
}

/* ---- the page ---- */

static void bytes_of(const json_t *one, const char *key, char out[24], const char *unit) {
  char text[16];
  if (!json_is_number(json_object_get(one, key))) {
    snprintf(out, 24, "-");
    return;
  }
  text_bytes((uint64_t)api_int(one, key), text);
  snprintf(out, 24, "%s%s", text, unit);
}

static void number_of(const json_t *one, const char *key, char out[24]) {
  double n = api_num(one, key);
  if (!json_is_number(json_object_get(one, key)))
    snprintf(out, 24, "-");
  else
    snprintf(out, 24, n >= 100 || n <= 0 ? "%.0f" : n >= 10 ? "%.1f" : "%.2f", n);
}

static void use_cells(struct table *t, const json_t *one) {
  char a[24], b[24];
  double cpu = api_num(one, "cpu"), limit = api_num(one, "cpu_limit");
  enum table_color color = limit > 0 && cpu > 0.9 * limit ? TABLE_YELLOW : TABLE_PLAIN;
  if (limit > 0)
    table_cellf(t, color, "%.2f/%g", cpu, limit);
  else
    table_cellf(t, color, "%.2f", cpu);
  bytes_of(one, "memory", a, "");
  bytes_of(one, "memory_limit", b, "");
  limit = api_num(one, "memory_limit");
  color = limit > 0 && api_num(one, "memory") > 0.9 * limit ? TABLE_YELLOW : TABLE_PLAIN;
  if (limit > 0)
    table_cellf(t, color, "%s/%s", a, b);
  else
    table_cell(t, color, a);
  bytes_of(one, "net_rx_rate", a, "/s");
  table_cell(t, TABLE_PLAIN, a);
  bytes_of(one, "net_tx_rate", a, "/s");
  table_cell(t, TABLE_PLAIN, a);
}

static void row(struct table *t, const json_t *s, bool wide) {
  char text[24];
  size_t i;
  json_t *in;
  const json_t *instances = json_object_get(s, "instances");
  table_cell(t, TABLE_PLAIN, api_str(s, "service"));
  table_cellf(t, TABLE_PLAIN, "%zu", json_array_size(instances));
  use_cells(t, s);
  static const char *const rates[] = {"requests_rate", "errors_rate", "p50_ms", "p99_ms"};
  for (size_t k = 0; k < sizeof rates / sizeof *rates; k++) {
    number_of(s, rates[k], text);
    table_cell(t, k == 1 && api_num(s, rates[k]) > 0 ? TABLE_RED : TABLE_PLAIN, text);
  }
  if (!wide && json_array_size(instances) < 2)
    return;
  json_array_foreach(instances, i, in) {
    const char *dot = strrchr(api_str(in, "id"), '.');
    table_cellf(t, TABLE_DIM, "  %s on %s", dot ? dot : api_str(in, "id"), *api_str(in, "node") ? api_str(in, "node") : "no node");
    table_cell(t, TABLE_DIM, "");
    use_cells(t, in);
    for (size_t k = 0; k < 4; k++)
      table_cell(t, TABLE_DIM, "");
  }
}

static enum sort sorted_by;

static int by_weight(const void *a, const void *b) {
  const json_t *x = *(json_t *const *)a, *y = *(json_t *const *)b;
  double v = weight(x, sorted_by), w = weight(y, sorted_by);
  return v != w ? (v < w ? 1 : -1) : strcmp(api_str(x, "service"), api_str(y, "service"));
}

static void page_of(const struct ctl *ctl, const json_t *reply, enum sort sort, struct buf *page) {
  const json_t *services = json_object_get(reply, "services"), *nodes = json_object_get(reply, "nodes");
  size_t i, count = json_array_size(services);
  json_t *one, **list = calloc(count + 1, sizeof(json_t *));
  json_array_foreach(nodes, i, one) {
    char used[24], all[24];
    bytes_of(one, "memory", used, "");
    bytes_of(one, "memory_limit", all, "");
    text_clean(api_str(one, "name"), page);
    buf_printf(page, ": cpu %.2f of %g, memory %s of %s\n", api_num(one, "cpu"), api_num(one, "cpu_limit"), used, all);
  }
  if (!list || !count) {
    buf_add_str(page, "No services.\n");
    free(list);
    return;
  }
  for (i = 0; i < count; i++)
    list[i] = json_array_get(services, i);
  sorted_by = sort;
  qsort(list, count, sizeof(json_t *), by_weight);
  struct table t = {0};
  static const char *const heads[] = {"SERVICE", "N", "CPU", "MEMORY", "NET IN", "NET OUT", "REQ/S", "ERR/S", "P50 MS", "P99 MS"};
  for (i = 0; i < sizeof heads / sizeof *heads; i++)
    table_column(&t, heads[i], i > 0);
  t.minor = "NET IN,NET OUT,ERR/S,P50 MS";
  for (i = 0; i < count; i++)
    row(&t, list[i], ctl->output == CTL_WIDE);
  buf_add_byte(page, '\n');
  table_print(&t, ctl->width, ctl->color, page);
  table_free(&t);
  free(list);
}

/* ---- the terminal ---- */

static struct termios before;
static volatile sig_atomic_t raw_on, ended;

static void restore(void) {
  if (!raw_on)
    return;
  raw_on = 0;
  tcsetattr(STDIN_FILENO, TCSANOW, &before);
  static const char back[] = "\033[?25h\033[?1049l";
  if (write(STDOUT_FILENO, back, sizeof back - 1) < 0)
    return;
}

static void on_signal(int signo) {
  (void)signo;
  ended = 1;
}

/* Keys come one by one and unechoed, on a screen of their own; whatever ends us puts the old one back. */
static void go_raw(void) {
  struct termios raw;
  if (!isatty(STDIN_FILENO) || tcgetattr(STDIN_FILENO, &before) < 0)
    return;
  raw = before;
  raw.c_lflag &= (tcflag_t) ~(ICANON | ECHO);
  raw.c_cc[VMIN] = 0;
  raw.c_cc[VTIME] = 0;
  atexit(restore);
  struct sigaction act = {.sa_handler = on_signal};
  sigaction(SIGINT, &act, NULL);
  sigaction(SIGTERM, &act, NULL);
  sigaction(SIGHUP, &act, NULL);
  if (tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0)
    raw_on = 1;
  fputs("\033[?1049h\033[?25l\033[2J", stdout);
}

/* Waits for the next round; false: it is over. */
static bool wait_for_key(enum sort *sort) {
  if (!raw_on) {
    nanosleep(&(struct timespec){.tv_sec = EVERY_MS / 1000, .tv_nsec = EVERY_MS % 1000 * 1000000}, NULL);
    return !ended;
  }
  struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
  if (poll(&in, 1, EVERY_MS) <= 0)
    return !ended;
  char key;
  if (read(STDIN_FILENO, &key, 1) != 1 || key == 'q' || key == 'Q' || key == 3)
    return false;
  *sort = key == 'm' ? BY_MEMORY : key == 'r' ? BY_REQUESTS : key == 'c' ? BY_CPU : *sort;
  return !ended;
}

static int watch(struct ctl *ctl, const char *path, enum sort sort) {
  int rc = CTL_OK;
  bool first = true;
  do {
    struct err err;
    json_t *reply;
    struct buf page = BUF_INIT((size_t)64 << 20);
    if (api_call(ctl, "GET", path, NULL, &reply, &err) == 0) {
      page_of(ctl, reply, sort, &page);
      json_decref(reply);
    } else if (first || !(ctl->unreachable || err.code == ERR_UNAVAILABLE)) {
      restore();
      return ctl_fail(ctl, &err);
    } else {
      buf_printf(&page, "%s (trying again)\n", err.msg);
    }
    if (first)
      go_raw();
    first = false;
    buf_add_str(&page, "\nq: end   c, m, r: sort by cpu, memory, requests\n");
    view_draw(&page);
    buf_free(&page);
  } while (wait_for_key(&sort) && !ferror(stdout));
  restore();
  return rc;
}

static int once(struct ctl *ctl, const char *path, enum sort sort) {
  struct err err;
  json_t *reply;
  if (api_call(ctl, "GET", path, NULL, &reply, &err) < 0)
    return ctl_fail(ctl, &err);
  if (ctl->output == CTL_JSON) {
    ctl_print_json(ctl, reply);
  } else {
    struct buf page = BUF_INIT((size_t)64 << 20);
    page_of(ctl, reply, sort, &page);
    fputs(buf_str(&page), stdout);
    buf_free(&page);
  }
  json_decref(reply);
  return CTL_OK;
}

int cmd_top(struct ctl *ctl) {
  const char *project = ctl_value(ctl, "project"), *by = ctl_value(ctl, "sort");
  char path[256] = "/api/v1/top", value[200];
  enum sort sort = BY_CPU;
  if (by && strcmp(by, "memory") == 0)
    sort = BY_MEMORY;
  else if (by && strcmp(by, "requests") == 0)
    sort = BY_REQUESTS;
  else if (by && strcmp(by, "cpu") != 0)
    return ctl_usage(ctl, "--sort %s: want cpu, memory or requests", by);
  if (project && http_escape(project, value, sizeof value) < 0)
    return ctl_usage(ctl, "--project is too long");
  if (project)
    snprintf(path, sizeof path, "/api/v1/top?project=%s", value);
  return ctl_flag(ctl, "once") || !ctl->live || ctl->output == CTL_JSON ? once(ctl, path, sort) : watch(ctl, path, sort);
}
