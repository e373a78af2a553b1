#include "orcactl/view.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "orcactl/api.h"
#include "orcactl/job_view.h"
#include "orcactl/text.h"

enum table_color view_status_color(const char *s) {
  static const struct {
    const char *status;
    enum table_color color;
  } colors[] = {
      {"running", TABLE_GREEN},   {"complete", TABLE_GREEN}, {"ready", TABLE_GREEN},  {"stopped", TABLE_DIM},
      {"exited", TABLE_DIM},      {"failed", TABLE_RED},     {"crashing", TABLE_RED}, {"backoff", TABLE_RED},
      {"rolled_back", TABLE_RED}, {"degraded", TABLE_RED},   {"timeout", TABLE_RED},  {"removed", TABLE_RED},
  };
  for (size_t i = 0; i < sizeof colors / sizeof *colors; i++)
    if (strcmp(colors[i].status, s) == 0)
      return colors[i].color;
  return *s ? TABLE_YELLOW : TABLE_PLAIN;
}

bool view_status_is_bad(const char *s) {
  return strcmp(s, "running") != 0 && strcmp(s, "stopped") != 0 && strcmp(s, "stopping") != 0 && strcmp(s, "deploying") != 0;
}

void view_join(const json_t *strings, struct buf *to) {
  size_t i;
  json_t *one;
  json_array_foreach(strings, i, one) buf_printf(to, "%s%s", i ? "," : "", json_is_string(one) ? json_string_value(one) : "");
}

void view_age(const char *rfc3339, char out[16]) {
  int64_t at = text_time(rfc3339);
  if (at < 0)
    snprintf(out, 16, "-");
  else
    text_age((int64_t)time(NULL) - at, out);
}

void view_when(const char *rfc3339, char out[32]) {
  int64_t at = text_time(rfc3339), now = (int64_t)time(NULL);
  char age[16];
  if (at < 0) {
    out[0] = 0;
  } else if (at > now) {
    text_age(at - now, age);
    snprintf(out, 32, "in %s", age);
  } else {
    text_age(now - at, age);
    snprintf(out, 32, "%s ago", age);
  }
}

void view_line(const char *name, const char *value) {
  char *text = text_cleaned(value);
  if (text && *text)
    printf("%-12s %s\n", name, text);
  free(text);
}

void view_put(struct buf *line) {
  puts(buf_str(line));
  buf_free(line);
}

void view_colored(const struct ctl *ctl, struct buf *to, enum table_color color, const char *text) {
  if (ctl->color)
    buf_add_str(to, table_color_code(color));
  text_clean(text, to);
  if (ctl->color && color != TABLE_PLAIN)
    buf_add_str(to, "\033[0m");
}

void view_after(struct buf *to, const char *before, const char *text) {
  if (!*text)
    return;
  buf_add_str(to, before);
  text_clean(text, to);
}

void view_spec(const json_t *spec) {
  char *text = json_dumps(spec, JSON_INDENT(2));
  if (text) {
    struct buf b = BUF_INIT((size_t)16 << 20);
    text_clean_lines(text, &b);
    printf("\nSpec:\n%s\n", buf_str(&b));
    buf_free(&b);
  }
  free(text);
}

void view_print(const struct ctl *ctl, const struct table *t) {
  struct buf out = BUF_INIT((size_t)64 << 20);
  table_print(t, ctl->width, ctl->color, &out);
  fputs(buf_str(&out), stdout);
  buf_free(&out);
}

/* Colours take no room. */
static unsigned columns_of(const char *line, size_t len) {
  struct buf plain = BUF_INIT((size_t)64 << 20);
  for (size_t i = 0; i < len; i++)
    if (line[i] == '\033')
      i += strcspn(line + i, "m");
    else
      buf_add_byte(&plain, (uint8_t)line[i]);
  unsigned width = text_width(buf_str(&plain));
  buf_free(&plain);
  return width;
}

void view_fit(const char *page, unsigned rows, unsigned columns, struct buf *to) {
  unsigned used = 0;
  size_t left = 0;
  while (*page) {
    size_t len = strcspn(page, "\n");
    unsigned width = columns ? columns_of(page, len) : 0;
    used += width ? (width - 1) / columns + 1 : 1;
    if (rows && used >= rows) { /* the last row is for how much is left */
      left++;
    } else {
      buf_add(to, page, len);
      /* Cleared to its end; where it ends with the row, its last letter would go. */
      buf_add_str(to, width && width % columns == 0 ? "\n" : "\033[K\n");
    }
    page += len + (page[len] == '\n');
  }
  buf_add_str(to, "\033[J"); /* what is left below goes */
  if (left)
    buf_printf(to, "(%zu more line%s: a higher window shows them)", left, left == 1 ? "" : "s");
}

void view_draw(struct buf *page) {
  struct winsize size;
  struct buf out = BUF_INIT((size_t)64 << 20);
  bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0;
  view_fit(buf_str(page), known ? size.ws_row : 0, known ? size.ws_col : 0, &out);
  printf("\033[H%s", buf_str(&out));
  fflush(stdout);
  buf_free(&out);
}

/* ---- instances ---- */

void view_instance_columns(struct table *t, bool wide) {
  table_column(t, "INSTANCE", false);
  table_column(t, "STATE", false);
  table_column(t, "READY", false);
  table_column(t, "RESTARTS", true);
  table_column(t, "NODE", false);
  table_column(t, "ADDRESS", false);
  table_column(t, "REV", true);
  table_column(t, "AGE", true);
  if (wide) {
    table_column(t, "CONTAINER", false);
    table_column(t, "CPU", true);
    table_column(t, "MEMORY", true);
    table_column(t, "EXIT", true);
  }
  table_column(t, "REASON", false);
  t->minor = "CONTAINER,ADDRESS,EXIT,REV,CPU,MEMORY,AGE,NODE";
}

static const char *dash(const char *s) {
  return *s ? s : "-";
}

void view_instance_row(struct table *t, const json_t *in, bool wide) {
  char age[16], memory[16];
  const char *state = api_str(in, "state");
  const json_t *exit_code = json_object_get(in, "exit_code");
  view_age(*api_str(in, "started") ? api_str(in, "started") : api_str(in, "created"), age);
  text_bytes((uint64_t)api_int(in, "memory"), memory);
  bool ready = json_is_true(json_object_get(in, "ready"));
  table_cell(t, TABLE_PLAIN, api_str(in, "id"));
  table_cell(t, view_status_color(state), state);
  table_cell(t, ready ? TABLE_GREEN : TABLE_PLAIN, ready ? "yes" : "no");
  table_cellf(t, TABLE_PLAIN, "%lld", api_int(in, "restarts"));
  table_cell(t, TABLE_PLAIN, dash(api_str(in, "node")));
  table_cell(t, TABLE_PLAIN, dash(api_str(in, "address")));
  table_cellf(t, TABLE_PLAIN, "%lld", api_int(in, "revision"));
  table_cell(t, TABLE_PLAIN, age);
  if (wide) {
    table_cellf(t, TABLE_PLAIN, "%.12s", dash(api_str(in, "container_id")));
    table_cellf(t, TABLE_PLAIN, "%.3f", api_num(in, "cpu"));
    table_cell(t, TABLE_PLAIN, memory);
    if (json_is_integer(exit_code))
      table_cellf(t, TABLE_PLAIN, "%lld", (long long)json_integer_value(exit_code));
    else
      table_cell(t, TABLE_PLAIN, "-");
  }
  table_cellf(t, TABLE_PLAIN, "%s%s%s", api_str(in, "reason"), *api_str(in, "reason") && *api_str(in, "progress") ? ": " : "",
              api_str(in, "progress"));
}

void view_instances(const struct ctl *ctl, const json_t *instances) {
  struct table t = {0};
  size_t i;
  json_t *one;
  if (!json_array_size(instances))
    return;
  view_instance_columns(&t, ctl->output == CTL_WIDE);
  json_array_foreach(instances, i, one) view_instance_row(&t, one, ctl->output == CTL_WIDE);
  putchar('\n');
  view_print(ctl, &t);
  table_free(&t);
}

/* ---- services ---- */

static void columns(struct table *t, bool wide) {
  table_column(t, "SERVICE", false);
  table_column(t, "STATUS", false);
  table_column(t, "READY", true);
  table_column(t, "IMAGE", false);
  table_column(t, "DOMAIN", false);
  table_column(t, "REV", true);
  if (wide)
    table_column(t, "NODES", false);
  table_column(t, "CPU", true);
  table_column(t, "MEMORY", true);
  t->minor = "CPU,REV,IMAGE,MEMORY,NODES";
}

static void row(struct table *t, const json_t *s, bool wide) {
  const char *status = api_str(s, "status");
  char memory[16];
  text_bytes((uint64_t)api_int(s, "memory"), memory);
  table_cellf(t, TABLE_PLAIN, "%s/%s", api_str(s, "project"), api_str(s, "name"));
  table_cell(t, view_status_color(status), status);
  table_cellf(t, TABLE_PLAIN, "%lld/%lld", api_int(s, "ready_replicas"), api_int(s, "replicas"));
  table_cell(t, TABLE_PLAIN, dash(api_str(s, "image")));
  table_cell(t, TABLE_PLAIN, dash(api_str(s, "domain")));
  table_cellf(t, TABLE_PLAIN, "%lld", api_int(s, "revision"));
  if (wide) {
    struct buf nodes = BUF_INIT((size_t)1 << 16);
    view_join(json_object_get(s, "nodes"), &nodes);
    table_cell(t, TABLE_PLAIN, dash(buf_str(&nodes)));
    buf_free(&nodes);
  }
  table_cellf(t, TABLE_PLAIN, "%.2f", api_num(s, "cpu"));
  table_cell(t, TABLE_PLAIN, memory);
}

static void headline(const struct ctl *ctl, const json_t *reply, struct buf *to) {
  bool well = json_is_true(json_object_get(reply, "well")), notes = json_array_size(json_object_get(reply, "reasons")) != 0;
  if (ctl->color)
    buf_add_str(to, table_color_code(!well ? TABLE_RED : notes ? TABLE_YELLOW : TABLE_GREEN));
  text_clean(api_str(reply, "summary"), to);
  buf_printf(to, "%s\n", ctl->color ? "\033[0m" : "");
}

void view_status(const struct ctl *ctl, const json_t *reply, struct buf *to) {
  const json_t *services = json_object_get(reply, "services");
  size_t i;
  json_t *s;
  headline(ctl, reply, to);
  if (json_array_size(services)) {
    buf_add_byte(to, '\n');
    struct table t = {0};
    columns(&t, ctl->output == CTL_WIDE);
    json_array_foreach(services, i, s) row(&t, s, ctl->output == CTL_WIDE);
    table_print(&t, ctl->width, ctl->color, to);
    table_free(&t);
  }
  if (json_array_size(json_object_get(reply, "jobs"))) {
    buf_add_byte(to, '\n');
    struct table t = {0};
    job_columns(&t);
    json_array_foreach(json_object_get(reply, "jobs"), i, s) job_row(&t, s);
    table_print(&t, ctl->width, ctl->color, to);
    table_free(&t);
  }
  bool first = true;
  json_array_foreach(services, i, s) {
    if (!json_is_true(json_object_get(s, "secrets_newer")))
      continue;
    buf_add_str(to, first ? "\n" : "");
    first = false;
    text_clean(api_str(s, "project"), to);
    buf_add_byte(to, '/');
    text_clean(api_str(s, "name"), to);
    buf_add_str(to, ": secrets newer than the running instance: `orcactl redeploy` takes them up\n");
  }
  json_array_foreach(services, i, s) {
    if (!*api_str(s, "last_error"))
      continue;
    if (first)
      buf_add_byte(to, '\n');
    first = false;
    text_clean(api_str(s, "project"), to);
    buf_add_byte(to, '/');
    text_clean(api_str(s, "name"), to);
    buf_add_str(to, ": ");
    if (strcmp(api_str(s, "status"), "rolled_back") == 0)
      buf_printf(to, "rolled back to revision %lld: ", api_int(s, "revision"));
    text_clean(api_str(s, "last_error"), to);
    buf_add_byte(to, '\n');
  }
}
